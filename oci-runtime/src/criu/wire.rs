//! The encoding of protocol buffers, as much of it as criu's messages need:
//! <https://protobuf.dev/programming-guides/encoding/>.

/// A message that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// The message as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a number; a negative one takes ten bytes, as `int32` has it.
    pub fn int(&mut self, field: u32, value: impl Into<i64>) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value.into().cast_unsigned());
        self
    }

    /// Adds a truth value.
    pub fn bool(&mut self, field: u32, value: bool) -> &mut Self {
        self.int(field, value)
    }

    /// Adds a text, or bytes.
    pub fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.varint(u64::from(field) << 3 | 2);
        // A usize has at most 64 bits.
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message in this one.
    pub fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number or truth value.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which no field that is read here has.
    Fixed,
}

impl<'a> Value<'a> {
    /// As an `int32`: its low bits.
    pub fn int(self) -> Option<i32> {
        let Self::Number(number) = self else {
            return None;
        };
        let [a, b, c, d, ..] = number.to_le_bytes();
        Some(i32::from_le_bytes([a, b, c, d]))
    }

    /// As a truth value.
    pub fn is_true(self) -> bool {
        matches!(self, Self::Number(number) if number != 0)
    }

    /// The bytes of a text or message.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A text; what is no UTF-8 is replaced.
    pub fn text(self) -> Option<String> {
        self.bytes()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The fields of a message, in order. After something malformed nothing more comes.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of the message in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            // Bits beyond the 64th are lost, as everywhere.
            value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let count = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(count)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Malformed);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_texts_are_encoded_as_the_guide_says() {
        let mut message = Message::default();
        message.int(1, 150).bytes(2, "testing").bool(5, true);
        let wanted = [
            &[0x08, 0x96, 0x01, 0x12, 0x07][..],
            b"testing",
            &[0x28, 0x01],
        ]
        .concat();
        assert_eq!(message.as_bytes(), wanted);
        let mut negative = Message::default();
        negative.int(1, -1);
        assert_eq!(
            negative.as_bytes(),
            [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]
        );
    }

    #[test]
    fn what_breaks_off_or_has_no_known_type_is_malformed() {
        for bytes in [
            &[0x08][..],
            &[0x12, 0x07, b't'],
            &[0x0b],
            &[0x80; 11],
            &[0x0d, 1],
        ] {
            let all: Vec<_> = Fields::new(bytes).collect();
            assert_eq!(all.last(), Some(&Err(Malformed)), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }

        #[test]
        fn what_is_written_is_read_again(number in any::<i32>(), field in 1_u32..1000, text in ".*") {
            let mut inner = Message::default();
            inner.bytes(field, &text);
            let mut message = Message::default();
            message.int(field, number).message(field + 1, &inner);
            let fields: Vec<_> = Fields::new(message.as_bytes()).map(Result::unwrap).collect();
            prop_assert_eq!(fields[0].0, field);
            prop_assert_eq!(fields[0].1.int(), Some(number));
            prop_assert_eq!(fields[1], (field + 1, Value::Bytes(inner.as_bytes())));
            let inner: Vec<_> = Fields::new(fields[1].1.bytes().unwrap()).map(Result::unwrap).collect();
            prop_assert_eq!(inner[0].1.text(), Some(text));
        }
    }
}
