//! Messages of D-Bus: a header with named fields, and values.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-messages>

use super::reader::{Malformed, Reader};
use super::value::{Value, Writer};

/// The bytes before the header's fields, with the length of the fields.
pub(super) const FIXED: usize = 16;
/// The longest header that is read: ten times what any peer sends.
const MAX_FIELDS: usize = 64 << 10;
/// The longest message: the specification's limit.
const MAX_BODY: usize = 128 << 20;

/// A method, and whom to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// The bytes of a call.
pub(super) fn call(serial: u32, method: &Method, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|one| body.value(one));
    let signature: String = arguments.iter().map(Value::signature).collect();

    let mut writer = Writer::default();
    // Little-endian, a call, no flags, version 1 of the protocol.
    writer.bytes.extend([b'l', 1, 0, 1]);
    writer.u32(u32::try_from(body.bytes.len()).unwrap_or(u32::MAX));
    writer.u32(serial);
    let text = |code, text: &str| field(code, Value::str(text));
    let mut fields = vec![
        field(1, Value::Path(method.path.to_owned())),
        text(2, method.interface),
        text(3, method.member),
        text(6, method.destination),
    ];
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    writer.value(&Value::Array("(yv)".into(), fields));
    writer.align(8);
    writer.bytes.append(&mut body.bytes);
    writer.bytes
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer to a call.
    Return,
    /// The refusal of a call.
    Error,
    /// News.
    Signal,
    /// A call to us, or what a later version of the protocol invents.
    Other,
}

/// The header of a message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// The call that is answered.
    pub(super) reply_to: Option<u32>,
    /// The name of a signal.
    pub(super) member: String,
    /// The name of an error.
    pub(super) error: String,
    /// The types of the values.
    pub(super) signature: String,
    big_endian: bool,
}

/// How many bytes the header and the body of a message take, by its first [`FIXED`] bytes.
pub(super) fn lengths(fixed: &[u8]) -> Result<(usize, usize), Malformed> {
    let mut reader = Reader::new(fixed, big_endian(fixed)?);
    let mut number = || {
        let number = reader.u32()?;
        usize::try_from(number).map_err(|_| Malformed("a length is too large"))
    };
    let (_, body, _, fields) = (number()?, number()?, number()?, number()?);
    if fields > MAX_FIELDS || body > MAX_BODY {
        return Err(Malformed("it is longer than any message may be"));
    }
    Ok(((FIXED + fields).next_multiple_of(8), body))
}

fn big_endian(bytes: &[u8]) -> Result<bool, Malformed> {
    match bytes.first() {
        Some(b'l') => Ok(false),
        Some(b'B') => Ok(true),
        _ => Err(Malformed("it begins with no byte order")),
    }
}

impl Header {
    /// Reads a whole header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let big_endian = big_endian(bytes)?;
        let kind = match bytes.get(1) {
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => Kind::Other,
        };
        let mut reader = Reader::new(bytes, big_endian);
        let read = reader.values("uuua(yv)")?;
        let mut header = Self {
            kind,
            reply_to: None,
            member: String::new(),
            error: String::new(),
            signature: String::new(),
            big_endian,
        };
        if let Some(Value::Array(_, fields)) = read.into_iter().nth(3) {
            fields.into_iter().for_each(|one| header.set(one));
        }
        Ok(header)
    }

    /// Takes one field; those that nobody here needs are passed over.
    fn set(&mut self, field: Value) {
        let Value::Struct(field) = field else { return };
        let [Value::Byte(code), Value::Variant(value)] = field.as_slice() else {
            return;
        };
        match (code, value.as_ref()) {
            (3, Value::Str(member)) => self.member.clone_from(member),
            (4, Value::Str(error)) => self.error.clone_from(error),
            (5, Value::U32(serial)) => self.reply_to = Some(*serial),
            (8, Value::Signature(signature)) => self.signature.clone_from(signature),
            _ => {}
        }
    }

    /// Reads the values of the body.
    pub(super) fn values(&self, body: &[u8]) -> Result<Vec<Value>, Malformed> {
        Reader::new(body, self.big_endian).values(&self.signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METHOD: Method = Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "ResetFailedUnit",
    };

    #[test]
    fn a_call_has_the_bytes_that_every_implementation_sends() {
        let bytes = call(7, &METHOD, &[Value::str("a.scope")]);
        assert_eq!(&bytes[..16], b"l\x01\0\x01\x0c\0\0\0\x07\0\0\0\x9f\0\0\0");
        assert_eq!(&bytes[16..24], b"\x01\x01o\0\x19\0\0\0");
        assert_eq!(&bytes[bytes.len() - 12..], b"\x07\0\0\0a.scope\0");
        assert_eq!(lengths(&bytes), Ok((bytes.len() - 12, 12)));
        let header = Header::parse(&bytes[..bytes.len() - 12]).unwrap();
        assert_eq!(
            (header.kind, header.member.as_str()),
            (Kind::Other, "ResetFailedUnit")
        );
        assert_eq!(
            header.values(&bytes[bytes.len() - 12..]),
            Ok(vec![Value::str("a.scope")])
        );
    }

    #[test]
    fn a_message_longer_than_any_is_refused_by_its_first_bytes() {
        for fixed in [
            b"l\x04\0\x01\xff\xff\xff\xff\x07\0\0\0\0\0\0\0",
            b"l\x04\0\x01\0\0\0\0\x07\0\0\0\xff\xff\xff\x7f",
        ] {
            assert!(lengths(fixed).is_err());
        }
        assert!(lengths(b"HTTP/1.1 200 OK\r").is_err());
    }

    proptest! {
        #[test]
        fn hostile_headers_are_an_error_at_worst(mut bytes in proptest::collection::vec(any::<u8>(), 16..300), big: bool) {
            bytes[0] = if big { b'B' } else { b'l' };
            lengths(&bytes).ok();
            if let Ok(header) = Header::parse(&bytes) {
                drop(header.values(&bytes));
            }
        }

        #[test]
        fn a_damaged_message_is_an_error_at_worst(at in 0_usize..200, byte: u8) {
            let mut bytes = call(7, &METHOD, &[Value::str("a.scope"), Value::U64(5)]);
            let at = at % bytes.len();
            bytes[at] = byte;
            lengths(&bytes).ok();
            if let Ok(header) = Header::parse(&bytes) {
                drop(header.values(&bytes));
            }
        }
    }
}
