//! The error object that a plugin prints, with the specification's codes.
use std::fmt;

use serde_json::{Value, json};

use crate::PluginError;

/// Why a plugin could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub(crate) PluginError);

/// Our own codes start where the specification's end.
const REFUSED: u64 = 100;
const NO_ADDRESS: u64 = 101;

impl Failure {
    fn new(code: u64, msg: impl Into<String>) -> Failure {
        Failure(PluginError {
            code,
            msg: msg.into(),
            details: String::new(),
        })
    }

    /// The configuration's version is not spoken here.
    pub(crate) fn version(msg: impl Into<String>) -> Failure {
        Failure::new(1, msg)
    }

    /// A field of the configuration that this plugin does not do; names it with its value.
    pub(crate) fn unsupported(key: &str, value: &dyn fmt::Display, why: &str) -> Failure {
        Failure::new(2, format!("unsupported field {key:?}: {value}: {why}"))
    }

    /// A `CNI_*` variable is missing or wrong.
    pub(crate) fn environment(msg: impl Into<String>) -> Failure {
        Failure::new(4, msg)
    }

    /// A file could not be read or written.
    pub(crate) fn io(op: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::new(5, format!("{op} {path:?}: {error}"))
    }

    /// The configuration is not JSON of the right shape.
    pub(crate) fn decoding(msg: impl Into<String>) -> Failure {
        Failure::new(6, msg)
    }

    /// The configuration's values make no sense.
    pub(crate) fn config(msg: impl Into<String>) -> Failure {
        Failure::new(7, msg)
    }

    /// The namespace is not one that a container could have.
    pub(crate) fn namespace(msg: impl Into<String>) -> Failure {
        Failure::new(8, msg)
    }

    /// The kernel, or another plugin, refused.
    pub(crate) fn refused(msg: impl Into<String>) -> Failure {
        Failure::new(REFUSED, msg)
    }

    /// No address to give.
    pub(crate) fn no_address(msg: impl Into<String>) -> Failure {
        Failure::new(NO_ADDRESS, msg)
    }

    /// Adds what cleaning up after the failure could not do.
    pub(crate) fn and(mut self, undo: impl fmt::Display) -> Failure {
        if !self.0.details.is_empty() {
            self.0.details.push_str("; ");
        }
        self.0.details.push_str(&undo.to_string());
        self
    }

    pub(crate) fn to_value(&self) -> Value {
        let Failure(PluginError { code, msg, details }) = self;
        let mut value =
            json!({"cniVersion": crate::Version::NEWEST.to_string(), "code": code, "msg": msg});
        if !details.is_empty() {
            value["details"] = details.as_str().into();
        }
        value
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Failure {}

impl From<netlink::Error> for Failure {
    fn from(error: netlink::Error) -> Failure {
        Failure::refused(error.to_string())
    }
}

impl From<sys::Error> for Failure {
    fn from(error: sys::Error) -> Failure {
        Failure::refused(error.to_string())
    }
}

impl From<crate::Error> for Failure {
    /// Another plugin's error object stays what it is: its code means the same to our caller.
    fn from(error: crate::Error) -> Failure {
        match error {
            crate::Error::Plugin {
                plugin,
                command,
                error,
                ..
            } => Failure(PluginError {
                msg: format!("{plugin} {command}: {}", error.msg),
                ..error
            }),
            other => Failure::refused(other.to_string()),
        }
    }
}
