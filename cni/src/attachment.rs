//! One container's end of a network: what is attached, where, and with which arguments.
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::Error;
use crate::names::{bad_container_id, bad_ifname};

/// What libcni calls `RuntimeConf`: the parameters of one ADD or DEL.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`: unique per pod.
    pub container_id: String,
    /// `CNI_NETNS`; None on DEL when the namespace is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`: the interface inside the namespace, `eth0` by convention.
    pub ifname: String,
    /// `CNI_ARGS`, in order: `IgnoreUnknown=1;K8S_POD_NAME=...`.
    pub args: Vec<(String, String)>,
    /// Values for the capabilities that plugins declare (`portMappings`, `bandwidth`, `ips`, `mac`, ...).
    pub capability_args: Map<String, Value>,
}

impl Attachment {
    /// An attachment of `container_id` as `eth0`, without namespace and arguments.
    #[must_use]
    pub fn new(container_id: impl Into<String>) -> Attachment {
        Attachment {
            container_id: container_id.into(),
            netns: None,
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            capability_args: Map::new(),
        }
    }

    /// The same attachment in the namespace pinned at `path`.
    #[must_use]
    pub fn in_netns(mut self, path: impl Into<PathBuf>) -> Attachment {
        self.netns = Some(path.into());
        self
    }

    /// The same attachment under another interface name.
    #[must_use]
    pub fn named(mut self, ifname: impl Into<String>) -> Attachment {
        self.ifname = ifname.into();
        self
    }

    /// The same attachment with one more `CNI_ARGS` pair.
    #[must_use]
    pub fn with_arg(mut self, key: impl Into<String>, value: impl Into<String>) -> Attachment {
        self.args.push((key.into(), value.into()));
        self
    }

    /// The same attachment with a value for a capability.
    #[must_use]
    pub fn with_capability(mut self, name: impl Into<String>, value: Value) -> Attachment {
        self.capability_args.insert(name.into(), value);
        self
    }

    /// `CNI_ARGS` as one string.
    pub(crate) fn cni_args(&self) -> String {
        let pairs: Vec<String> = self.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(";")
    }

    /// Checks the names before anything is run with them.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let invalid = |field, value: &str, reason| Error::InvalidAttachment {
            field,
            value: value.to_owned(),
            reason,
        };
        if let Some(reason) = bad_container_id(&self.container_id) {
            return Err(invalid("container id", &self.container_id, reason));
        }
        if let Some(reason) = bad_ifname(&self.ifname) {
            return Err(invalid("interface name", &self.ifname, reason));
        }
        for (key, value) in &self.args {
            // The separators cannot be escaped: such a pair would silently become others.
            if key.is_empty() || key.contains([';', '=', '\0']) {
                return Err(invalid(
                    "CNI_ARGS key",
                    key,
                    "must not be empty or contain `;`, `=` or NUL",
                ));
            }
            if value.contains([';', '\0']) {
                return Err(invalid(
                    "CNI_ARGS value",
                    value,
                    "must not contain `;` or NUL",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_joined_in_their_order() {
        let a = Attachment::new("c")
            .with_arg("IgnoreUnknown", "1")
            .with_arg("K8S_POD_NAME", "web");
        assert_eq!(a.cni_args(), "IgnoreUnknown=1;K8S_POD_NAME=web");
    }

    #[test]
    fn an_argument_that_would_become_two_is_refused() {
        let error = Attachment::new("c")
            .with_arg("A", "1;B=2")
            .validate()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "CNI_ARGS value \"1;B=2\": must not contain `;` or NUL"
        );
    }
}
