//! Values in GVariant's text format, as annotations `org.systemd.property.NAME` have them: `true`, `'text'`,
//! `uint64 5`, `['a', 'b']`, `@as []`. Dictionaries, tuples and variants are no type of any unit's property that this
//! text could set, and are refused.
//!
//! <https://docs.gtk.org/glib/gvariant-text-format.html>

use super::value::Value;

/// How deep arrays may be nested.
const MAX_DEPTH: usize = 8;

/// Reads one value.
///
/// # Errors
/// A sentence: what is wrong with the text.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let node = parser.node(0)?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(format!("unexpected {:?} after the value", parser.rest));
    }
    node.resolve(None)
}

/// The property that an annotation sets. systemd takes times in microseconds, as `…USec`; the manual calls them
/// `…Sec`, in seconds, so those are converted.
///
/// # Errors
/// A sentence: what is wrong with the name or the value.
pub fn property(name: &str, text: &str) -> Result<(String, Value), String> {
    if name.len() < 3 {
        return Err("name incorrect: too short".into());
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("name incorrect: contains non-alphabetic character".into());
    }
    let value = parse(text).map_err(|why| format!("value parse error: {why}"))?;
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
            let micros = microseconds(&value).ok_or("value parse error: not a number")?;
            Ok((format!("{stem}USec"), Value::U64(micros)))
        }
        _ => Ok((name.to_owned(), value)),
    }
}

/// More seconds than fit are "infinity", which systemd writes as the largest number.
fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        Value::Byte(n) => u64::from(n),
        Value::U16(n) => u64::from(n),
        Value::U32(n) => u64::from(n),
        Value::U64(n) => n,
        Value::I16(n) => u64::try_from(n).ok()?,
        Value::I32(n) => u64::try_from(n).ok()?,
        Value::I64(n) => u64::try_from(n).ok()?,
        Value::F64(n) if n >= 0.0 => return format!("{:.0}", (n * 1e6).floor()).parse().ok(),
        _ => return None,
    };
    Some(whole.saturating_mul(1_000_000))
}

/// A value whose type may follow from its neighbours.
#[derive(Debug)]
enum Node {
    Bool(bool),
    Number(String, Option<char>),
    Text(String, Option<char>),
    Bytes(Vec<u8>),
    Array(Vec<Node>, Option<String>),
}

impl Node {
    /// The type, where the node itself decides on it.
    fn fixed(&self) -> Option<String> {
        match self {
            Self::Bool(_) => Some("b".into()),
            Self::Number(_, Some(kind)) | Self::Text(_, Some(kind)) => Some(kind.to_string()),
            Self::Number(text, None) if is_float(text) => Some("d".into()),
            Self::Number(_, None) | Self::Text(_, None) => None,
            Self::Bytes(_) => Some("ay".into()),
            Self::Array(_, Some(element)) => Some(format!("a{element}")),
            Self::Array(nodes, None) => nodes
                .iter()
                .find_map(Self::fixed)
                .map(|element| format!("a{element}")),
        }
    }

    /// The type that it has where nothing decides.
    fn default(&self) -> Option<String> {
        self.fixed().or_else(|| match self {
            Self::Number(..) => Some("i".into()),
            Self::Text(..) => Some("s".into()),
            Self::Array(nodes, _) => nodes
                .iter()
                .find_map(Self::default)
                .map(|element| format!("a{element}")),
            Self::Bool(_) | Self::Bytes(_) => None,
        })
    }

    fn resolve(self, wanted: Option<&str>) -> Result<Value, String> {
        let kind = match wanted {
            Some(wanted) => wanted.to_owned(),
            None => self
                .default()
                .ok_or("the type of an empty array is unknown; write \"@as []\"")?,
        };
        let mismatch = || format!("a value is not of the type {kind:?}");
        if self.fixed().is_some_and(|fixed| fixed != kind) {
            return Err(mismatch());
        }
        match (self, kind.as_str()) {
            (Self::Bool(value), "b") => Ok(Value::Bool(value)),
            (Self::Text(text, _), "s") => Ok(Value::Str(text)),
            (Self::Text(text, _), "o") => Ok(Value::Path(text)),
            (Self::Text(text, _), "g") => Ok(Value::Signature(text)),
            (Self::Bytes(bytes), "ay") => Ok(Value::bytes(&bytes)),
            (Self::Number(text, _), kind) => number(&text, kind),
            (Self::Array(nodes, _), kind) => {
                let element = kind.strip_prefix('a').ok_or_else(mismatch)?.to_owned();
                let values = nodes.into_iter().map(|node| node.resolve(Some(&element)));
                Ok(Value::Array(
                    element.clone(),
                    values.collect::<Result<_, _>>()?,
                ))
            }
            _ => Err(mismatch()),
        }
    }
}

fn is_float(text: &str) -> bool {
    !text.contains("0x") && text.contains(['.', 'e', 'E'])
}

fn number(text: &str, kind: &str) -> Result<Value, String> {
    let invalid = || format!("{text:?} is no number of the type {kind:?}");
    if kind == "d" {
        let parsed: Option<f64> = text.parse().ok();
        return parsed
            .filter(|number| number.is_finite())
            .map(Value::F64)
            .ok_or_else(invalid);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return Err(invalid());
    }
    let magnitude = i128::from_str_radix(digits, radix).map_err(|_| invalid())?;
    let number = if negative { -magnitude } else { magnitude };
    let value = match kind {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::I16),
        "q" => number.try_into().map(Value::U16),
        "i" => number.try_into().map(Value::I32),
        "u" => number.try_into().map(Value::U32),
        "x" => number.try_into().map(Value::I64),
        "t" => number.try_into().map(Value::U64),
        _ => return Err(invalid()),
    };
    value.map_err(|_| invalid())
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_space();
        let eaten = self.rest.strip_prefix(wanted);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    /// Letters and digits, and what numbers and types have besides.
    fn word(&mut self) -> String {
        let part = |c: char| c.is_ascii_alphanumeric() || "@+-.".contains(c);
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err("arrays are nested too deep".into());
        }
        self.skip_space();
        match self.rest.chars().next() {
            None => Err("the value is missing".into()),
            Some('\'' | '"') => Ok(Node::Text(self.quoted()?, None)),
            Some('[') => self.array(None, depth),
            Some('b')
                if self.rest.starts_with(['b']) && self.rest[1..].starts_with(['\'', '"']) =>
            {
                self.rest = &self.rest[1..];
                let mut bytes = self.quoted()?.into_bytes();
                bytes.push(0);
                Ok(Node::Bytes(bytes))
            }
            Some('@') => {
                let kind = self.word();
                self.typed(kind.trim_start_matches('@'), depth)
            }
            Some(c) if c.is_ascii_digit() || c == '+' || c == '-' => {
                Ok(Node::Number(self.word(), None))
            }
            Some(_) => match self.word().as_str() {
                "true" => Ok(Node::Bool(true)),
                "false" => Ok(Node::Bool(false)),
                "boolean" => self.typed("b", depth),
                "byte" => self.typed("y", depth),
                "int16" => self.typed("n", depth),
                "uint16" => self.typed("q", depth),
                "int32" => self.typed("i", depth),
                "uint32" => self.typed("u", depth),
                "int64" => self.typed("x", depth),
                "uint64" => self.typed("t", depth),
                "double" => self.typed("d", depth),
                "string" => self.typed("s", depth),
                "objectpath" => self.typed("o", depth),
                "signature" => self.typed("g", depth),
                word => Err(format!("unrecognized value {word:?}{}", self.rest)),
            },
        }
    }

    /// What follows a type.
    fn typed(&mut self, kind: &str, depth: usize) -> Result<Node, String> {
        self.skip_space();
        if let Some(element) = kind.strip_prefix('a') {
            let simple = element.chars().all(|c| "aybnqiuxtdsog".contains(c));
            if !simple || !self.rest.starts_with('[') {
                return Err(format!("type {kind:?} is not supported"));
            }
            return self.array(Some(element.to_owned()), depth);
        }
        let letter = kind.chars().next().filter(|_| kind.len() == 1);
        match (self.node(depth + 1)?, letter) {
            (Node::Bool(value), Some('b')) => Ok(Node::Bool(value)),
            (Node::Number(text, None), Some(kind)) if "ynqiuxtd".contains(kind) => {
                Ok(Node::Number(text, Some(kind)))
            }
            (Node::Text(text, None), Some(kind)) if "sog".contains(kind) => {
                Ok(Node::Text(text, Some(kind)))
            }
            _ => Err(format!("the value is not of the type {kind:?}")),
        }
    }

    fn array(&mut self, element: Option<String>, depth: usize) -> Result<Node, String> {
        self.eat('[');
        let mut nodes = Vec::new();
        if self.eat(']') {
            return Ok(Node::Array(nodes, element));
        }
        loop {
            nodes.push(self.node(depth + 1)?);
            if self.eat(']') {
                return Ok(Node::Array(nodes, element));
            }
            if !self.eat(',') {
                return Err(format!("expected \",\" or \"]\" before {:?}", self.rest));
            }
        }
    }

    /// A text in quotes of either kind.
    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next() {
                None => return Err("unterminated string".into()),
                one if one == quote => break,
                Some('\\') => text.extend(escape(&mut chars)?),
                Some(c) => text.push(c),
            }
        }
        if text.contains('\0') {
            return Err("a string holds a NUL".into());
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

/// What stands after a backslash; nothing for a line break.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<Option<char>, String> {
    let digits = match chars.next() {
        None => return Err("unterminated string".into()),
        Some('u') => 4,
        Some('U') => 8,
        Some('\n') => return Ok(None),
        Some('a') => return Ok(Some('\x07')),
        Some('b') => return Ok(Some('\x08')),
        Some('f') => return Ok(Some('\x0c')),
        Some('n') => return Ok(Some('\n')),
        Some('r') => return Ok(Some('\r')),
        Some('t') => return Ok(Some('\t')),
        other => return Ok(other),
    };
    let hex: String = chars.by_ref().take(digits).collect();
    let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
    let code = code.filter(|_| hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    code.map(Some)
        .ok_or_else(|| format!("{hex:?} is no character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Value {
        Value::Array(
            "s".into(),
            texts.iter().map(|text| Value::str(*text)).collect(),
        )
    }

    #[test]
    fn values_have_the_types_that_gvariant_gives_them() {
        let ints = |numbers: &[i32]| {
            Value::Array("i".into(), numbers.iter().map(|n| Value::I32(*n)).collect())
        };
        let table = [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("1", Value::I32(1)),
            ("-7", Value::I32(-7)),
            ("0x10", Value::I32(16)),
            ("010", Value::I32(8)),
            ("1.0", Value::F64(1.0)),
            ("1e1", Value::F64(10.0)),
            ("double 2", Value::F64(2.0)),
            ("byte 255", Value::Byte(255)),
            ("int16 -5", Value::I16(-5)),
            ("uint16 5", Value::U16(5)),
            ("uint32 5", Value::U32(5)),
            ("@u 5", Value::U32(5)),
            ("int64 -5", Value::I64(-5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("'text'", Value::str("text")),
            ("\"a\\tb\\u00e4\"", Value::str("a\tbä")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("@g 'as'", Value::Signature("as".into())),
            ("b'ab'", Value::bytes(b"ab\0")),
            ("['a', \"b\"]", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            ("@as ['a']", strings(&["a"])),
            ("[1, 2]", ints(&[1, 2])),
            (
                "[1, 2.5]",
                Value::Array("d".into(), vec![Value::F64(1.0), Value::F64(2.5)]),
            ),
            (
                "[@o '/a', '/b']",
                Value::Array(
                    "o".into(),
                    vec![Value::Path("/a".into()), Value::Path("/b".into())],
                ),
            ),
            (
                "[[], [1]]",
                Value::Array("ai".into(), vec![ints(&[]), ints(&[1])]),
            ),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_value_are_refused() {
        for bad in [
            "",
            "text",
            "'open",
            "'it''",
            "1 2",
            "[",
            "[1",
            "[1 2]",
            "[1, 'a']",
            "[]",
            "uint32 -1",
            "byte 256",
            "int32 'a'",
            "uint32 uint64 5",
            "{'a': 1}",
            "<1>",
            "(1, 2)",
            "0x",
            "1x",
            "--1",
            "+-1",
            "0-5",
            "@a{sv} {}",
            "@as 5",
            "'\\uZZZZ'",
            "'\\u00'",
            "'\\ud800'",
            "\u{e9}",
            "b",
            "@",
            "uint64",
            "1e999",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}: {:?}", parse(bad));
        }
        assert!(parse(&"[".repeat(5000)).is_err());
    }

    #[test]
    fn seconds_become_microseconds() {
        let table = [
            (
                "TimeoutStopUSec",
                "uint64 5",
                "TimeoutStopUSec",
                Value::U64(5),
            ),
            (
                "TimeoutStopSec",
                "5",
                "TimeoutStopUSec",
                Value::U64(5_000_000),
            ),
            (
                "RuntimeMaxSec",
                "double 1.5",
                "RuntimeMaxUSec",
                Value::U64(1_500_000),
            ),
            (
                "RuntimeMaxSec",
                "uint64 18446744073709551615",
                "RuntimeMaxUSec",
                Value::U64(u64::MAX),
            ),
            (
                "CollectMode",
                "'inactive-or-failed'",
                "CollectMode",
                Value::str("inactive-or-failed"),
            ),
            ("FOOSec", "5", "FOOSec", Value::I32(5)),
        ];
        for (name, text, wanted, value) in table {
            assert_eq!(
                property(name, text),
                Ok((wanted.to_owned(), value)),
                "{name}={text}"
            );
        }
        for (name, text, why) in [
            ("TimeoutStopSec", "'5'", "value parse error: not a number"),
            ("TimeoutStopSec", "-5", "value parse error: not a number"),
            ("Ab", "5", "name incorrect: too short"),
            (
                "A.b",
                "5",
                "name incorrect: contains non-alphabetic character",
            ),
        ] {
            assert_eq!(property(name, text), Err(why.to_owned()));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_value_or_an_error(text in "[\\PC]{0,40}") {
            drop(parse(&text));
        }

        #[test]
        fn nearly_right_texts_are_a_value_or_an_error(text in "[-@as\\[\\]'b\\\\u0-9x., ]{0,24}") {
            if let Ok(value) = parse(&text) {
                let mut writer = super::super::value::Writer::default();
                writer.value(&value);
                let read = super::super::reader::Reader::new(&writer.bytes, false).values(&value.signature());
                proptest::prop_assert_eq!(read, Ok(vec![value]));
            }
        }

        #[test]
        fn numbers_keep_their_value(number: u64, text in "[^'\\\\\0]{0,20}") {
            proptest::prop_assert_eq!(parse(&format!("uint64 {number}")), Ok(Value::U64(number)));
            proptest::prop_assert_eq!(parse(&format!("'{text}'")), Ok(Value::Str(text)));
        }
    }
}
