//! Runtime handlers: which OCI runtime a pod's containers run with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use shim::protocol::Runtime;

use crate::command;
use crate::config::{Config, Handler};
use crate::error::{Error, Result};
use crate::model::{HandlerFeatures, HandlerInfo};

/// How long a runtime may take to say what it can do.
const FEATURES: Duration = Duration::from_secs(5);

/// The handlers of an engine; their names are checked and their roots known. They can be replaced while pods run.
#[derive(Debug)]
pub(crate) struct Handlers(RwLock<Arc<Table>>);

#[derive(Debug)]
struct Table {
    by_name: BTreeMap<String, Runtime>,
    default: String,
    /// What each can do; asked when somebody wants to know.
    features: OnceLock<BTreeMap<String, HandlerFeatures>>,
}

impl Handlers {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let table = Table::new(&config.handlers, &config.default_handler, &config.run_dir)?;
        Ok(Self(RwLock::new(Arc::new(table))))
    }

    /// Puts others in their place. Pods keep the handler that they were made with by its name; what runs goes on.
    pub(crate) fn replace(
        &self,
        handlers: &BTreeMap<String, Handler>,
        default: &str,
        run_dir: &Path,
    ) -> Result<()> {
        let table = Table::new(handlers, default, run_dir)?;
        for root in table.roots() {
            crate::node::make_dir(root)?;
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(())
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The runtime that `name` stands for; empty is the default.
    pub(crate) fn get(&self, name: &str) -> Result<Runtime> {
        let table = self.table();
        let key = if name.is_empty() {
            &table.default
        } else {
            name
        };
        let found = table.by_name.get(key).cloned();
        found.ok_or_else(|| Error::UnknownHandler {
            name: name.to_owned(),
            known: table
                .by_name
                .keys()
                .map(|known| format!("{known:?}"))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// What the runtime that `name` stands for can do. Blocks the first time.
    pub(crate) fn features(&self, name: &str) -> HandlerFeatures {
        let table = self.table();
        let key = if name.is_empty() {
            &table.default
        } else {
            name
        };
        table.features().get(key).copied().unwrap_or_default()
    }

    /// All runtimes.
    pub(crate) fn all(&self) -> Vec<Runtime> {
        self.table().by_name.values().cloned().collect()
    }

    /// All runtimes by name, and the name of the default one.
    pub(crate) fn named(&self) -> (BTreeMap<String, Runtime>, String) {
        let table = self.table();
        (table.by_name.clone(), table.default.clone())
    }

    /// What a front-end tells about them: the default under the empty name first. Blocks the first time.
    pub(crate) fn info(&self) -> Vec<HandlerInfo> {
        let table = self.table();
        let features = table.features();
        let one = |name: &str, key: &str| HandlerInfo {
            name: name.to_owned(),
            features: features.get(key).copied().unwrap_or_default(),
        };
        std::iter::once(one("", &table.default))
            .chain(table.by_name.keys().map(|name| one(name, name)))
            .collect()
    }

    /// The default runtime's binary.
    pub(crate) fn default_binary(&self) -> Option<PathBuf> {
        let table = self.table();
        let runtime = table.by_name.get(&table.default);
        runtime.map(|runtime| runtime.path.clone())
    }

    /// Where the runtimes keep their state.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        self.table().roots().cloned().collect()
    }
}

impl Table {
    fn new(handlers: &BTreeMap<String, Handler>, default: &str, run_dir: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for (name, handler) in handlers {
            if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
                return Err(Error::invalid(
                    "runtimes",
                    format!("{name:?} is no name of a handler"),
                ));
            }
            let root = handler.root.clone();
            let runtime = Runtime {
                path: handler.path.clone(),
                root: Some(root.unwrap_or_else(|| run_dir.join("oci").join(name))),
                args: handler.args.clone(),
            };
            by_name.insert(name.clone(), runtime);
        }
        if !by_name.contains_key(default) {
            return Err(Error::invalid(
                "default_runtime",
                format!("{default:?} is not among the runtimes"),
            ));
        }
        Ok(Self {
            by_name,
            default: default.to_owned(),
            features: OnceLock::new(),
        })
    }

    fn features(&self) -> &BTreeMap<String, HandlerFeatures> {
        self.features.get_or_init(|| {
            let asked = |(name, runtime): (&String, _)| (name.clone(), ask_features(runtime));
            self.by_name.iter().map(asked).collect()
        })
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.by_name
            .values()
            .filter_map(|runtime| runtime.root.as_ref())
    }
}

/// `<runtime> features`
/// (<https://github.com/opencontainers/runtime-spec/blob/main/features.md>). A runtime that does not know the
/// command can do nothing special.
fn ask_features(runtime: &Runtime) -> HandlerFeatures {
    let mut ask = Command::new(&runtime.path);
    ask.args(&runtime.args).arg("features");
    let output = command::output(&mut ask, FEATURES)
        .inspect_err(|error| tracing::warn!("{} features: {error}", runtime.path.display()));
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
