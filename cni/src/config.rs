//! Network configurations: `.conflist`, `.conf` and `.json` files as libcni reads them.
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::names::bad_network_name;
use crate::version::{SUPPORTED_VERSIONS, Version};
use crate::{Attachment, Error};

/// A network: a name and the chain of plugins that make it.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    name: String,
    version: Version,
    plugins: Vec<PluginConfig>,
    builtin: bool,
    /// The whole list as JSON, for the cache.
    raw: Value,
}

/// One plugin's part of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The name of the executable.
    pub plugin: String,
    /// Capabilities whose arguments the plugin wants in `runtimeConfig`.
    pub capabilities: Vec<String>,
    /// The plugin's configuration as written.
    pub raw: Map<String, Value>,
}

/// What a configuration directory holds.
#[derive(Debug)]
pub struct Scan {
    /// The first network that can be used, by file name.
    pub network: Option<(PathBuf, NetworkList)>,
    /// The files before it that cannot be used.
    pub skipped: Vec<Skipped>,
}

/// A configuration file that cannot be used.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// Marks the list of [`NetworkList::builtin`], so that its cached form is known again at DEL.
pub(crate) const BUILTIN_KEY: &str = "davitBuiltin";

// === impl NetworkList ===

impl NetworkList {
    /// Loads the first usable network of a directory, in the order of file names.
    ///
    /// `Ok(None)` means that the directory is missing or has no configuration file at all.
    ///
    /// # Errors
    /// The directory cannot be read, or has configuration files and none of them can be used: a broken
    /// configuration must not silently become another network.
    pub fn load_dir(conf_dir: &Path) -> Result<Option<NetworkList>, Error> {
        let scan = NetworkList::scan_dir(conf_dir)?;
        match scan.network {
            Some((_, network)) => Ok(Some(network)),
            None if scan.skipped.is_empty() => Ok(None),
            None => {
                let reasons: Vec<String> =
                    scan.skipped.iter().map(|s| s.error.to_string()).collect();
                Err(Error::NoUsableConfig {
                    dir: conf_dir.to_owned(),
                    reasons: reasons.join("; "),
                })
            }
        }
    }

    /// As [`NetworkList::load_dir`], and tells which file it was and which files were skipped and why.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn scan_dir(conf_dir: &Path) -> Result<Scan, Error> {
        let mut scan = Scan {
            network: None,
            skipped: Vec::new(),
        };
        for path in config_files(conf_dir)? {
            match NetworkList::load_file(&path) {
                Ok(network) => {
                    scan.network = Some((path, network));
                    break;
                }
                Err(error) => scan.skipped.push(Skipped { path, error }),
            }
        }
        Ok(scan)
    }

    /// Loads one file: a list from `.conflist`, a single plugin from anything else.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load_file(path: &Path) -> Result<NetworkList, Error> {
        let text = fs::read(path).map_err(Error::io("read", path))?;
        let at_fault = |reason| Error::Config {
            origin: format!("{path:?}"),
            reason,
        };
        let value = parse_json(&text).map_err(at_fault)?;
        if path.extension().is_some_and(|e| e == "conflist") {
            let mut list = RawList::from_value(value).map_err(at_fault)?;
            if !list.load_only_inlined {
                list.plugins.extend(plugin_files(path, &list.name)?);
            }
            list.finish().map_err(at_fault)
        } else {
            NetworkList::from_single(value).map_err(at_fault)
        }
    }

    /// Reads a list from JSON text, `{"name": .., "cniVersion": .., "plugins": [..]}`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<NetworkList, Error> {
        parse_json(text)
            .and_then(RawList::from_value)
            .and_then(RawList::finish)
            .map_err(|reason| Error::Config {
                origin: "(text)".to_owned(),
                reason,
            })
    }

    /// A single plugin's configuration becomes a list of one.
    fn from_single(value: Value) -> Result<NetworkList, String> {
        let object = value.as_object().ok_or("not a JSON object")?;
        let mut list = Map::new();
        for key in ["name", "cniVersion"] {
            if let Some(v) = object.get(key) {
                list.insert(key.to_owned(), v.clone());
            }
        }
        list.insert("plugins".to_owned(), Value::Array(vec![value]));
        RawList::from_value(Value::Object(list)).and_then(RawList::finish)
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the specification that its plugins are spoken to in.
    #[must_use]
    pub fn cni_version(&self) -> Version {
        self.version
    }

    /// Its plugins in the order of ADD.
    #[must_use]
    pub fn plugins(&self) -> &[PluginConfig] {
        &self.plugins
    }

    /// Whether it is the built-in network, whose plugins come from this project's own binary.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.builtin
    }

    /// The same network without plugins that have nothing to do for the attachment. Only the built-in network is
    /// shortened so: what other plugins do without their arguments, they know themselves.
    #[must_use]
    pub fn shortened_for(&self, attachment: &Attachment) -> NetworkList {
        if !self.builtin {
            return self.clone();
        }
        let mut short = self.clone();
        short.plugins.retain(|config| {
            config.plugin != "portmap" || attachment.capability_args.contains_key("portMappings")
        });
        if let Some(plugins) = short.raw.get_mut("plugins") {
            *plugins = short
                .plugins
                .iter()
                .map(|p| Value::Object(p.raw.clone()))
                .collect();
        }
        short
    }

    /// The capabilities that any of its plugins declares.
    #[must_use]
    pub fn capabilities(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self
            .plugins
            .iter()
            .flat_map(|p| p.capabilities.iter().map(String::as_str))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a flag of the list is set; the text was checked when it was read.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.raw
            .as_object()
            .is_some_and(|raw| read_bool(raw, key).unwrap_or(false))
    }

    pub(crate) fn raw(&self) -> &Value {
        &self.raw
    }

    /// A list of our own making. Names in it may be wrong, because they come from a person: the executor says so.
    pub(crate) fn assemble(
        name: &str,
        plugins: Vec<(&str, Value)>,
        extra: &[(&str, Value)],
    ) -> NetworkList {
        let plugins: Vec<PluginConfig> = plugins
            .into_iter()
            .map(|(plugin, config)| {
                let mut raw = match config {
                    Value::Object(raw) => raw,
                    _ => Map::new(),
                };
                raw.insert("type".to_owned(), plugin.into());
                let declared = raw.get("capabilities").and_then(Value::as_object);
                let capabilities = declared
                    .and_then(|map| enabled(map).ok())
                    .unwrap_or_default();
                PluginConfig {
                    plugin: plugin.to_owned(),
                    capabilities,
                    raw,
                }
            })
            .collect();
        let mut raw: Map<String, Value> = extra
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        raw.insert("name".to_owned(), name.into());
        let list = RawList {
            name: name.to_owned(),
            version: Version::NEWEST,
            load_only_inlined: true,
            plugins,
            raw,
        };
        list.assemble()
    }
}

// === impl PluginConfig ===

impl PluginConfig {
    fn from_value(value: Value) -> Result<PluginConfig, String> {
        let Value::Object(raw) = value else {
            return Err("not a JSON object".to_owned());
        };
        let plugin = match raw.get("type") {
            None => return Err("key \"type\" is missing".to_owned()),
            Some(Value::String(name)) if name.is_empty() => {
                return Err("key \"type\" is empty".to_owned());
            }
            // It is joined to the plugin directories: a path would run anything.
            Some(Value::String(name)) if name.contains(['/', '\0']) => {
                return Err(format!("type {name:?} contains `/`"));
            }
            Some(Value::String(name)) if name == "." || name == ".." => {
                return Err(format!("type {name:?} is not a file name"));
            }
            Some(Value::String(name)) => name.clone(),
            Some(other) => return Err(format!("key \"type\" is not a string: {other}")),
        };
        let capabilities = match raw.get("capabilities") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(map)) => enabled(map)?,
            Some(other) => return Err(format!("key \"capabilities\" is not an object: {other}")),
        };
        Ok(PluginConfig {
            plugin,
            capabilities,
            raw,
        })
    }
}

fn enabled(capabilities: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for (name, value) in capabilities {
        match value {
            Value::Bool(true) => names.push(name.clone()),
            Value::Bool(false) => {}
            other => {
                return Err(format!(
                    "capability {name:?} is neither true nor false: {other}"
                ));
            }
        }
    }
    Ok(names)
}

/// A list before its plugin files were added.
struct RawList {
    name: String,
    version: Version,
    load_only_inlined: bool,
    plugins: Vec<PluginConfig>,
    raw: Map<String, Value>,
}

impl RawList {
    fn from_value(value: Value) -> Result<RawList, String> {
        let Value::Object(raw) = value else {
            return Err("not a JSON object".to_owned());
        };
        let name = match raw.get("name") {
            None => return Err("key \"name\" is missing".to_owned()),
            Some(Value::String(name)) => name.clone(),
            Some(other) => return Err(format!("key \"name\" is not a string: {other}")),
        };
        if let Some(reason) = bad_network_name(&name) {
            return Err(format!("network name {name:?}: {reason}"));
        }
        let version = choose_version(&raw)?;
        let load_only_inlined = read_bool(&raw, "loadOnlyInlinedPlugins")?;
        for key in ["disableCheck", "disableGC"] {
            read_bool(&raw, key)?;
        }
        let plugins = match raw.get("plugins") {
            None if load_only_inlined => {
                return Err(
                    "\"loadOnlyInlinedPlugins\" is true and there is no key \"plugins\"".to_owned(),
                );
            }
            None => Vec::new(),
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err("key \"plugins\" is empty".to_owned());
            }
            Some(Value::Array(plugins)) => read_plugins(plugins)?,
            Some(other) => return Err(format!("key \"plugins\" is not a list: {other}")),
        };
        Ok(RawList {
            name,
            version,
            load_only_inlined,
            plugins,
            raw,
        })
    }

    fn finish(self) -> Result<NetworkList, String> {
        if self.plugins.is_empty() {
            return Err("no plugins".to_owned());
        }
        Ok(self.assemble())
    }

    fn assemble(self) -> NetworkList {
        let mut raw = self.raw;
        // The cached form stands alone: plugins from files are inlined in it.
        raw.insert("cniVersion".to_owned(), self.version.to_string().into());
        raw.insert(
            "plugins".to_owned(),
            self.plugins
                .iter()
                .map(|p| Value::Object(p.raw.clone()))
                .collect(),
        );
        raw.insert("loadOnlyInlinedPlugins".to_owned(), true.into());
        let builtin = raw.get(BUILTIN_KEY) == Some(&Value::Bool(true));
        NetworkList {
            name: self.name,
            version: self.version,
            plugins: self.plugins,
            builtin,
            raw: Value::Object(raw),
        }
    }
}

fn read_plugins(plugins: &[Value]) -> Result<Vec<PluginConfig>, String> {
    plugins
        .iter()
        .enumerate()
        .map(|(i, p)| PluginConfig::from_value(p.clone()).map_err(|e| format!("plugins[{i}]: {e}")))
        .collect()
}

/// The newest supported one of `cniVersions` and `cniVersion`; `cniVersion` alone must be supported.
fn choose_version(raw: &Map<String, Value>) -> Result<Version, String> {
    let mut candidates = Vec::new();
    match raw.get("cniVersions") {
        None => {}
        Some(Value::Array(list)) => {
            for (i, entry) in list.iter().enumerate() {
                candidates.push(read_version(entry).map_err(|e| format!("cniVersions[{i}]: {e}"))?);
            }
        }
        Some(other) => return Err(format!("key \"cniVersions\" is not a list: {other}")),
    }
    match raw.get("cniVersion") {
        None if candidates.is_empty() => {
            return Err(format!(
                "key \"cniVersion\" is missing; one of {} is needed",
                SUPPORTED_VERSIONS.join(", ")
            ));
        }
        None => {}
        Some(entry) => {
            candidates.push(read_version(entry).map_err(|e| format!("cniVersion: {e}"))?)
        }
    }
    candidates
        .iter()
        .copied()
        .filter(|v| v.is_supported())
        .max()
        .ok_or_else(|| {
            let asked: Vec<String> = candidates.iter().map(Version::to_string).collect();
            format!(
                "cniVersion {} is not supported; supported: {}",
                asked.join(", "),
                SUPPORTED_VERSIONS.join(", ")
            )
        })
}

fn read_version(value: &Value) -> Result<Version, String> {
    let text = value
        .as_str()
        .ok_or_else(|| format!("not a string: {value}"))?;
    Version::parse(text).ok_or_else(|| format!("{text:?} is not a version"))
}

/// A flag, as JSON or (as libcni also takes it) as text.
fn read_bool(raw: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match raw.get(key) {
        None => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(Value::String(s)) if s.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(s)) if s.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!("key {key:?} is neither true nor false: {other}")),
    }
}

/// JSON text; an empty file says so instead of `EOF while parsing a value`.
fn parse_json(text: &[u8]) -> Result<Value, String> {
    if text.trim_ascii().is_empty() {
        return Err("the file is empty".to_owned());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Value::deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())?;
    Ok(value)
}

fn config_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    files_with(dir, &["conflist", "conf", "json"])
}

/// `<dir>/<network>/*.conf` beside a list (libcni 1.3): more plugins for it.
fn plugin_files(list: &Path, network: &str) -> Result<Vec<PluginConfig>, Error> {
    let dir = list.with_file_name(network);
    let mut plugins = Vec::new();
    for path in files_with(&dir, &["conf"])? {
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let plugin = parse_json(&text).and_then(PluginConfig::from_value);
        plugins.push(plugin.map_err(|reason| Error::Config {
            origin: format!("{path:?}"),
            reason,
        })?);
    }
    Ok(plugins)
}

/// The files of a directory with one of the extensions, by name; nothing if the directory does not exist.
fn files_with(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Error::io("read directory", dir)(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read directory", dir))?.path();
        let wanted = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| extensions.contains(&e));
        if wanted && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
