//! Runtime handlers: which OCI runtime a pod's containers run with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{HandlerFeatures, HandlerInfo};

/// The handlers of an engine; their names are checked and their roots known.
#[derive(Debug)]
pub(crate) struct Handlers {
    by_name: BTreeMap<String, shim::protocol::Runtime>,
    default: String,
    /// What each can do; asked when somebody wants to know.
    features: OnceLock<BTreeMap<String, HandlerFeatures>>,
}

impl Handlers {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for (name, handler) in &config.handlers {
            if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
                return Err(Error::invalid(
                    "runtimes",
                    format!("{name:?} is no name of a handler"),
                ));
            }
            let root = handler
                .root
                .clone()
                .unwrap_or_else(|| config.run_dir.join("oci").join(name));
            let runtime = shim::protocol::Runtime {
                path: handler.path.clone(),
                root: Some(root),
                args: handler.args.clone(),
            };
            by_name.insert(name.clone(), runtime);
        }
        if !by_name.contains_key(&config.default_handler) {
            return Err(Error::invalid(
                "default_runtime",
                format!("{:?} is not among the runtimes", config.default_handler),
            ));
        }
        Ok(Self {
            by_name,
            default: config.default_handler.clone(),
            features: OnceLock::new(),
        })
    }

    /// The runtime that `name` stands for; empty is the default.
    pub(crate) fn get(&self, name: &str) -> Result<&shim::protocol::Runtime> {
        let key = if name.is_empty() { &self.default } else { name };
        self.by_name.get(key).ok_or_else(|| Error::UnknownHandler {
            name: name.to_owned(),
            known: self
                .by_name
                .keys()
                .map(|known| format!("{known:?}"))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// What the runtime that `name` stands for can do. Blocks the first time.
    pub(crate) fn features(&self, name: &str) -> HandlerFeatures {
        let key = if name.is_empty() { &self.default } else { name };
        self.all_features().get(key).copied().unwrap_or_default()
    }

    fn all_features(&self) -> &BTreeMap<String, HandlerFeatures> {
        self.features.get_or_init(|| {
            let asked = |(name, runtime): (&String, _)| (name.clone(), ask_features(runtime));
            self.by_name.iter().map(asked).collect()
        })
    }

    /// All runtimes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &shim::protocol::Runtime> {
        self.by_name.values()
    }

    /// What a front-end tells about them: the default under the empty name first. Blocks the first time.
    pub(crate) fn info(&self) -> Vec<HandlerInfo> {
        let features = self.all_features();
        let one = |name: &str, key: &str| HandlerInfo {
            name: name.to_owned(),
            features: features.get(key).copied().unwrap_or_default(),
        };
        std::iter::once(one("", &self.default))
            .chain(self.by_name.keys().map(|name| one(name, name)))
            .collect()
    }

    /// Whether the default runtime's binary is there.
    pub(crate) fn default_binary(&self) -> Option<&Path> {
        self.by_name
            .get(&self.default)
            .map(|runtime| runtime.path.as_path())
    }

    /// Where the runtimes keep their state.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.by_name
            .values()
            .filter_map(|runtime| runtime.root.as_ref())
    }
}

/// `<runtime> features`
/// (<https://github.com/opencontainers/runtime-spec/blob/main/features.md>). A runtime that does not know the
/// command can do nothing special.
fn ask_features(runtime: &shim::protocol::Runtime) -> HandlerFeatures {
    let output = Command::new(&runtime.path)
        .args(&runtime.args)
        .arg("features")
        .stdin(Stdio::null())
        .output();
    let features = output.ok().map(|output| Features::parse(&output.stdout));
    features.unwrap_or_default().summary()
}

/// What we read of the document; a field that is absent is something that the runtime cannot do.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Features {
    mount_options: Vec<String>,
    linux: LinuxFeatures,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LinuxFeatures {
    namespaces: Vec<String>,
    mount_extensions: MountExtensions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MountExtensions {
    idmap: Idmap,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Idmap {
    enabled: Option<bool>,
}

// === impl Features ===

impl Features {
    fn parse(document: &[u8]) -> Self {
        serde_json::from_slice(document).unwrap_or_default()
    }

    fn summary(&self) -> HandlerFeatures {
        let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
        HandlerFeatures {
            recursive_read_only_mounts: has(&self.mount_options, "rro"),
            // A pod's volumes and root file system are id-mapped: a runtime needs both.
            user_namespaces: has(&self.linux.namespaces, "user")
                && self.linux.mount_extensions.idmap.enabled == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_what_the_runtime_says_and_nothing_else() {
        let of = |text: &str| {
            let found = Features::parse(text.as_bytes()).summary();
            (found.recursive_read_only_mounts, found.user_namespaces)
        };
        let whole = r#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{
            "namespaces":["mount","user"],"mountExtensions":{"idmap":{"enabled":true}}}}"#;
        assert_eq!(of(whole), (true, true));
        let of_runc_1_1 = r#"{"mountOptions":["rro"],"linux":{"namespaces":["user"]}}"#;
        assert_eq!(of(of_runc_1_1), (true, false));
        let disabled =
            r#"{"linux":{"namespaces":["user"],"mountExtensions":{"idmap":{"enabled":false}}}}"#;
        assert_eq!(of(disabled), (false, false));
        assert_eq!(of("unknown command features"), (false, false));
    }
}
