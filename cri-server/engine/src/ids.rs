//! Ids of pods and containers, and the clock.

use std::fs::File;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

const SOURCE: &str = "/dev/urandom";

/// A new id: 64 hexadecimal digits, as every CRI tool expects them.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    File::open(SOURCE)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::Io {
            action: "read",
            path: SOURCE.into(),
            source,
        })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether `name` is an id that this engine gave.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Nanoseconds since 1970; never 0, which in CRI means "not yet".
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).max(1)
}

/// The one of `ids` that `prefix` is, or is the beginning of.
pub(crate) fn find<'a>(
    ids: impl Iterator<Item = &'a String>,
    prefix: &str,
) -> Result<Option<String>> {
    if prefix.is_empty() {
        return Ok(None);
    }
    let mut found: Vec<&String> = Vec::new();
    for id in ids {
        if id == prefix {
            return Ok(Some(id.clone()));
        }
        if id.starts_with(prefix) {
            found.push(id);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        several => Err(Error::AmbiguousId {
            prefix: prefix.to_owned(),
            count: several.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hexadecimal_digits_and_differ() {
        let (one, other) = (new_id().expect("id"), new_id().expect("id"));
        assert!(is_id(&one) && is_id(&other));
        assert_ne!(one, other);
        assert!(
            !is_id("shim.sock")
                && !is_id(&one[1..])
                && !is_id(&one.to_uppercase().replace('0', "G"))
        );
    }

    #[test]
    fn the_beginning_of_an_id_must_be_unique() {
        let ids = [
            "abc1".to_owned(),
            "abc2".to_owned(),
            "abc".to_owned(),
            "d".to_owned(),
        ];
        assert_eq!(
            find(ids.iter(), "abc1").expect("known"),
            Some("abc1".into())
        );
        assert_eq!(find(ids.iter(), "abc").expect("exact"), Some("abc".into()));
        assert!(matches!(
            find(ids.iter(), "ab"),
            Err(Error::AmbiguousId { count: 3, .. })
        ));
        assert_eq!(find(ids.iter(), "x").expect("unknown"), None);
        assert_eq!(find(ids.iter(), "").expect("empty"), None);
    }
}
