//! Values of D-Bus, and how they are written as bytes.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-marshaling>

/// A value of D-Bus. Containers carry their type, so that an empty array has one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a…`: the type of the elements, and the elements.
    Array(String, Vec<Value>),
    /// `(…)`; a dictionary's entry reads as one, too.
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// An array of bytes.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().copied().map(Self::Byte).collect())
    }

    /// Its type, as D-Bus writes types.
    #[must_use]
    pub fn signature(&self) -> String {
        let basic = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Str(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => {
                let inner: String = fields.iter().map(Self::signature).collect();
                return format!("({inner})");
            }
        };
        basic.to_owned()
    }
}

/// To what multiple of bytes a value of this type is aligned.
pub(super) fn alignment(kind: u8) -> usize {
    match kind {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        // Bytes, signatures and variants, which begin with a signature.
        _ => 1,
    }
}

/// Writes values, little-endian.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, multiple: usize) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(multiple), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // Nothing here comes near 4 GiB; the peer would refuse what is cut.
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        // Signatures are at most 255 bytes; those written here are a few.
        self.bytes
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// Writes one value.
    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(value) => self.bytes.push(*value),
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::I16(value) => self.fixed(&value.to_le_bytes()),
            Value::U16(value) => self.fixed(&value.to_le_bytes()),
            Value::I32(value) => self.fixed(&value.to_le_bytes()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.fixed(&value.to_le_bytes()),
            Value::U64(value) => self.fixed(&value.to_le_bytes()),
            Value::F64(value) => self.fixed(&value.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => self.array(element, values),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.bytes.extend(bytes);
    }

    /// The length counts from the first element, without the padding before it.
    fn array(&mut self, element: &str, values: &[Value]) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment(element.bytes().next().unwrap_or(0)));
        let start = self.bytes.len();
        values.iter().for_each(|value| self.value(value));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}
