//! Between protobuf and the engine's model. Requests are checked here only for what protobuf cannot say (a message that
//! must be there, an enum in range); what a value means is the engine's business. An error names the field.

pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod metrics;
pub(crate) mod pod;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod stats;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use tonic::Status;

/// A field of a request that cannot be used, by its path as the .proto file spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    field: String,
    problem: String,
}

pub(crate) type Converted<T> = Result<T, Invalid>;

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Status::invalid_argument(format!("{}: {}", invalid.field, invalid.problem))
    }
}

/// Puts the field around an inner field: `host_path` within `mounts[2]` is `mounts[2].host_path`.
pub(crate) trait Within<T> {
    fn within(self, outer: impl Display) -> Converted<T>;
}

impl<T> Within<T> for Converted<T> {
    fn within(self, outer: impl Display) -> Converted<T> {
        self.map_err(|inner| Invalid {
            field: format!("{outer}.{}", inner.field),
            problem: inner.problem,
        })
    }
}

/// A message that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Converted<T> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

/// A string that must not be empty.
pub(crate) fn filled(field: &str, value: String) -> Converted<String> {
    if value.is_empty() {
        Err(Invalid::new(field, "is empty"))
    } else {
        Ok(value)
    }
}

/// An enum value that this version of the interface knows.
pub(crate) fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Converted<E> {
    E::try_from(value).map_err(|_| Invalid::new(field, format!("unknown value {value}")))
}

/// Every element of a list, with its index in the error.
pub(crate) fn each<A, B>(
    field: &str,
    list: Vec<A>,
    convert: impl Fn(A) -> Converted<B>,
) -> Converted<Vec<B>> {
    list.into_iter()
        .enumerate()
        .map(|(n, one)| convert(one).within(format_args!("{field}[{n}]")))
        .collect()
}

/// A timeout in seconds; 0 is what the caller says it is.
pub(crate) fn seconds(field: &str, value: i64) -> Converted<Duration> {
    u64::try_from(value)
        .map(Duration::from_secs)
        .map_err(|_| Invalid::new(field, format!("{value} is negative")))
}

/// CRI's filters use the empty string for "any".
pub(crate) fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The verbose part of an answer: JSON text under `key`, as crictl and critest expect it.
pub(crate) fn info(key: &str, value: &serde_json::Value) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_string())])
}

#[cfg(test)]
mod tests;
