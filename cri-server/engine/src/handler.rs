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

    /// All runtimes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &shim::protocol::Runtime> {
        self.by_name.values()
    }

    /// What a front-end tells about them: the default under the empty name first. Blocks the first time.
    pub(crate) fn info(&self) -> Vec<HandlerInfo> {
        let features = self.features.get_or_init(|| {
            let asked = |(name, runtime): (&String, _)| (name.clone(), ask_features(runtime));
            self.by_name.iter().map(asked).collect()
        });
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
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Features {
        #[serde(default)]
        mount_options: Vec<String>,
    }
    let output = Command::new(&runtime.path)
        .args(&runtime.args)
        .arg("features")
        .stdin(Stdio::null())
        .output();
    let features = output
        .ok()
        .and_then(|output| serde_json::from_slice::<Features>(&output.stdout).ok());
    HandlerFeatures {
        recursive_read_only_mounts: features
            .is_some_and(|one| one.mount_options.iter().any(|option| option == "rro")),
        // Not supported by the engine yet, whatever the runtime can do.
        user_namespaces: false,
    }
}
