//! Reads values of D-Bus from bytes that may be anything: every length is checked, every recursion bounded.

use super::value::{Value, alignment};

/// How deep containers may be nested: the specification allows 32 arrays in 32 structs.
const MAX_DEPTH: usize = 64;

/// What is wrong with bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// A place in the bytes of a message.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, whose first byte is aligned to everything.
    pub(super) fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self {
            bytes,
            at: 0,
            big_endian,
        }
    }

    pub(super) fn align(&mut self, multiple: usize) -> Result<()> {
        let aligned = self.at.next_multiple_of(multiple);
        self.take(aligned - self.at).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Malformed("it ends in the middle of a value"))?;
        self.at += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.u32()?).map_err(|_| Malformed("a length is too large"))
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?;
        let end = self.take(1)?;
        if end != [0] || text.contains(&0) {
            return Err(Malformed("a string does not end with its NUL"));
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed("a string is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A type, as a variant carries it.
    pub(super) fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    /// The values of all types in `signature`.
    pub(super) fn values(&mut self, signature: &str) -> Result<Vec<Value>> {
        let mut rest = signature.as_bytes();
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (one, after) = split_type(rest, 0)?;
            values.push(self.value(one, 0)?);
            rest = after;
        }
        Ok(values)
    }

    /// One value of the one complete type in `kind`.
    fn value(&mut self, kind: &[u8], depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(Malformed("it is nested too deep"));
        }
        let first = kind.first().copied();
        Ok(match first.ok_or(Malformed("a type is empty"))? {
            b'y' => Value::Byte(self.byte()?),
            b'b' => match self.u32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(Malformed("a boolean is neither 0 nor 1")),
            },
            b'n' => Value::I16(i16::from_le_bytes(self.fixed()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.fixed()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.fixed()?)),
            // A descriptor is its index among those that came along.
            b'u' | b'h' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.fixed()?)),
            b't' => Value::U64(u64::from_le_bytes(self.fixed()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.fixed()?)),
            b's' => {
                let length = self.length()?;
                Value::Str(self.text(length)?)
            }
            b'o' => {
                let length = self.length()?;
                Value::Path(self.text(length)?)
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let signature = self.signature()?;
                let (one, rest) = split_type(signature.as_bytes(), 0)?;
                if !rest.is_empty() {
                    return Err(Malformed("a variant holds more than one value"));
                }
                Value::Variant(Box::new(self.value(one, depth + 1)?))
            }
            b'a' => self.array(kind.get(1..).unwrap_or_default(), depth)?,
            b'(' | b'{' => self.structure(kind, depth)?,
            _ => return Err(Malformed("a type is unknown")),
        })
    }

    fn array(&mut self, element: &[u8], depth: usize) -> Result<Value> {
        let length = self.length()?;
        self.align(alignment(element.first().copied().unwrap_or(0)))?;
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Malformed("an array is longer than its message"))?;
        let mut values = Vec::new();
        while self.at < end {
            // Every type takes at least a byte, so this ends.
            values.push(self.value(element, depth + 1)?);
        }
        if self.at != end {
            return Err(Malformed("an array ends in the middle of an element"));
        }
        let element = std::str::from_utf8(element).map_err(|_| Malformed("a type is unknown"))?;
        Ok(Value::Array(element.to_owned(), values))
    }

    fn structure(&mut self, kind: &[u8], depth: usize) -> Result<Value> {
        self.align(8)?;
        let mut rest = kind
            .get(1..kind.len().saturating_sub(1))
            .unwrap_or_default();
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (one, after) = split_type(rest, 0)?;
            fields.push(self.value(one, depth + 1)?);
            rest = after;
        }
        Ok(Value::Struct(fields))
    }
}

/// The first complete type of a signature, and what follows it.
pub(super) fn split_type(signature: &[u8], depth: usize) -> Result<(&[u8], &[u8])> {
    if depth > MAX_DEPTH {
        return Err(Malformed("a type is nested too deep"));
    }
    let length = match signature.first() {
        None => return Err(Malformed("a type is missing")),
        Some(b'a') => {
            let (element, _) = split_type(signature.get(1..).unwrap_or_default(), depth + 1)?;
            1 + element.len()
        }
        Some(open @ (b'(' | b'{')) => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut length = 1;
            loop {
                let rest = signature.get(length..).unwrap_or_default();
                if rest.first() == Some(&close) {
                    break;
                }
                length += split_type(rest, depth + 1)?.0.len();
            }
            if length == 1 {
                return Err(Malformed("a struct is empty"));
            }
            length + 1
        }
        Some(b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g')
        | Some(b'v' | b'h') => 1,
        Some(_) => return Err(Malformed("a type is unknown")),
    };
    signature
        .split_at_checked(length)
        .ok_or(Malformed("a type is cut off"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::value::Writer;
    use super::*;

    fn basic() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u8>().prop_map(Value::Byte),
            any::<bool>().prop_map(Value::Bool),
            any::<i16>().prop_map(Value::I16),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            any::<u64>().prop_map(Value::U64),
            (-1e9..1e9).prop_map(Value::F64),
            "[^\0]{0,20}".prop_map(Value::Str),
            "/[a-z/]{0,10}".prop_map(Value::Path),
            "[sobyt]{0,5}".prop_map(Value::Signature),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        basic().prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::Struct),
                inner
                    .clone()
                    .prop_map(|value| Value::Variant(Box::new(value))),
                (inner, 0_usize..4).prop_map(|(value, count)| {
                    Value::Array(value.signature(), vec![value; count])
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(values in proptest::collection::vec(value(), 0..4)) {
            let mut writer = Writer::default();
            values.iter().for_each(|value| writer.value(value));
            let signature: String = values.iter().map(Value::signature).collect();
            let mut reader = Reader::new(&writer.bytes, false);
            prop_assert_eq!(reader.values(&signature), Ok(values));
            prop_assert_eq!(reader.at, writer.bytes.len());
        }

        #[test]
        fn hostile_bytes_are_an_error_at_worst(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            signature in "[ybnqiuxtdsogvah(){}]{0,12}",
            big: bool
        ) {
            drop(Reader::new(&bytes, big).values(&signature));
        }
    }

    #[test]
    fn both_byte_orders_are_read() {
        assert_eq!(Reader::new(&[1, 0, 0, 0], false).u32(), Ok(1));
        assert_eq!(Reader::new(&[0, 0, 0, 1], true).u32(), Ok(1));
    }

    #[test]
    fn a_type_nested_without_end_is_refused() {
        let signature = "a".repeat(200) + "y";
        let read = Reader::new(&[0; 2000], false).values(&signature);
        assert_eq!(read, Err(Malformed("a type is nested too deep")));
        // Variants in variants, each three bytes long.
        let bytes: Vec<u8> = [1, b'v', 0].repeat(100);
        let read = Reader::new(&bytes, false).values("v");
        assert_eq!(read, Err(Malformed("it is nested too deep")));
    }

    #[test]
    fn signatures_fall_into_complete_types() {
        for (signature, first) in [
            ("sa(ss)u", "s"),
            ("a(ss)u", "a(ss)"),
            ("a{sv}t", "a{sv}"),
            ("((ii)s)", "((ii)s)"),
        ] {
            let (one, rest) = split_type(signature.as_bytes(), 0).unwrap();
            assert_eq!(one, first.as_bytes());
            assert_eq!(rest, &signature.as_bytes()[first.len()..]);
        }
        for bad in ["", "a", "(", "()", "(s", "z", "a{", "{sv"] {
            assert!(split_type(bad.as_bytes(), 0).is_err(), "{bad:?}");
        }
    }
}
