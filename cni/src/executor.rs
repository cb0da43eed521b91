//! The runtime's side of the protocol: ADD and DEL of a whole list of plugins.
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sys::netns::NetNs;

use crate::cache::Cache;
use crate::invoke::{Answer, Invocation};
use crate::names::bad_network_name;
use crate::version::Version;
use crate::{AddResult, Attachment, CachedAttachment, Error, NetworkList, PluginConfig};

/// Runs CNI plugins.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Where plugins are looked for, in order; handed to them as `CNI_PATH`.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are remembered between ADD and DEL: `<cache_dir>/results`, shared with every libcni runtime.
    pub cache_dir: PathBuf,
    /// How long one plugin may take for one verb.
    pub timeout: Duration,
    /// The multi-call binary of this project's own plugins: runs the built-in network, and stands in for a
    /// plugin of its own that no directory has.
    pub builtin_plugins: Option<PathBuf>,
}

/// What a plugin answers to VERSION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersions {
    /// The versions of the specification that it supports.
    pub supported: Vec<String>,
}

/// One verb on one attachment, and what its plugins have in common.
struct Call<'a> {
    network: &'a NetworkList,
    attachment: &'a Attachment,
    command: &'static str,
    netns: String,
}

impl Executor {
    /// Where libcni keeps results.
    pub const DEFAULT_CACHE_DIR: &str = "/var/lib/cni";

    /// An executor with the default cache directory and two minutes per plugin.
    #[must_use]
    pub fn new(bin_dirs: Vec<PathBuf>) -> Executor {
        Executor {
            bin_dirs,
            cache_dir: Executor::DEFAULT_CACHE_DIR.into(),
            timeout: Duration::from_secs(120),
            builtin_plugins: None,
        }
    }

    /// The same executor with the multi-call binary at `path`.
    #[must_use]
    pub fn with_builtin(mut self, path: impl Into<PathBuf>) -> Executor {
        self.builtin_plugins = Some(path.into());
        self
    }

    /// Attaches: runs ADD of each plugin in order, each with the result of the one before.
    ///
    /// The intent is written to the cache before the first plugin runs, so that [`Executor::del_cached`] can undo
    /// an ADD that a crash interrupted.
    ///
    /// # Errors
    /// The first plugin that fails ends the chain. Whatever was made stays: the caller calls [`Executor::del`].
    pub fn add(&self, network: &NetworkList, attachment: &Attachment) -> Result<AddResult, Error> {
        check_names(network, attachment)?;
        let Some(netns) = &attachment.netns else {
            return Err(Error::InvalidAttachment {
                field: "network namespace",
                value: String::new(),
                reason: "is needed to attach",
            });
        };
        NetNs::open(netns)?;
        // Half a network because the second plugin is missing helps nobody.
        self.check_installed(network)?;
        let cache = Cache::in_dir(&self.cache_dir);
        cache.put(network, attachment, None)?;
        let call = Call {
            network,
            attachment,
            command: "ADD",
            netns: netns.to_string_lossy().into_owned(),
        };
        let mut result = AddResult::default();
        for config in network.plugins() {
            let previous = (!result.raw.is_null()).then_some(&result.raw);
            let (invocation, answer) = self.run(&call, config, previous)?;
            result = serde_json::from_slice(&answer.stdout)
                .map_err(|e| format!("not JSON: {e}"))
                .and_then(|value: Value| AddResult::parse(value, network.cni_version()))
                .map_err(|reason| invocation.bad_answer(reason, &answer.stdout, answer.stderr))?;
        }
        cache.put(network, attachment, Some(&result.raw))?;
        Ok(result)
    }

    /// Detaches: runs DEL of each plugin in reverse order with the cached result, then forgets it.
    ///
    /// Idempotent. A namespace that is gone is told to the plugins as an empty `CNI_NETNS`.
    ///
    /// # Errors
    /// The first plugin that fails; the cache entry stays for another try.
    pub fn del(&self, network: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        check_names(network, attachment)?;
        let cache = Cache::in_dir(&self.cache_dir);
        let (name, id, ifname) = (network.name(), &attachment.container_id, &attachment.ifname);
        // Cached results reach DEL since 0.4.0; one of another version is brought to the configuration's.
        let previous = (network.cni_version() >= Version::V0_4_0)
            .then(|| cache.get(name, id, ifname))
            .flatten()
            .and_then(|cached| AddResult::parse(cached.result?, network.cni_version()).ok())
            .map(|result| result.raw);
        let netns = match &attachment.netns {
            Some(path) if !is_gone(path)? => path.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        let call = Call {
            network,
            attachment,
            command: "DEL",
            netns,
        };
        for config in network.plugins().iter().rev() {
            self.run(&call, config, previous.as_ref())?;
        }
        cache.remove(name, id, ifname)
    }

    /// Detaches by what the cache remembers: the configuration at the time of the ADD, its namespace and
    /// arguments. Nothing remembered means nothing to do.
    ///
    /// # Errors
    /// As [`Executor::del`]; every network that has the attachment is tried before the first error is given.
    pub fn del_cached(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        let mut first_error = Ok(());
        for cached in self.cached_attachments(Some(container_id))? {
            if cached.ifname != ifname {
                continue;
            }
            let deleted = NetworkList::parse(&cached.config)
                .and_then(|network| self.del(&network, &cached.attachment()));
            first_error = first_error.and(deleted);
        }
        first_error
    }

    /// What the cache remembers of one attachment.
    ///
    /// # Errors
    /// The cache directory cannot be read.
    pub fn cached(
        &self,
        container_id: &str,
        ifname: &str,
    ) -> Result<Option<CachedAttachment>, Error> {
        Ok(self
            .cached_attachments(Some(container_id))?
            .into_iter()
            .find(|c| c.ifname == ifname))
    }

    /// Everything the cache remembers, of one container or of all.
    ///
    /// # Errors
    /// The cache directory cannot be read.
    pub fn cached_attachments(
        &self,
        container_id: Option<&str>,
    ) -> Result<Vec<CachedAttachment>, Error> {
        Cache::in_dir(&self.cache_dir).all(container_id)
    }

    /// Asks each plugin whether the attachment is still as its ADD made it (CHECK), with the cached result.
    ///
    /// A list that says `disableCheck` is not asked.
    ///
    /// # Errors
    /// The first plugin that finds something else; no cached result; a list older than 0.4.0, which has no such verb.
    pub fn check(&self, network: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        check_names(network, attachment)?;
        let cannot = |reason: &str| Error::Config {
            origin: format!("{:?}", network.name()),
            reason: reason.to_owned(),
        };
        if network.cni_version() < Version::V0_4_0 {
            return Err(cannot("cniVersion before 0.4.0 has no CHECK"));
        }
        if network.flag("disableCheck") {
            return Ok(());
        }
        let (name, id, ifname) = (network.name(), &attachment.container_id, &attachment.ifname);
        let previous = Cache::in_dir(&self.cache_dir)
            .get(name, id, ifname)
            .and_then(|cached| AddResult::parse(cached.result?, network.cni_version()).ok())
            .ok_or_else(|| cannot("CHECK needs the result of an ADD, and none is cached"))?;
        let call = Call {
            network,
            attachment,
            command: "CHECK",
            netns: attachment
                .netns
                .as_deref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
        };
        for config in network.plugins() {
            self.run(&call, config, Some(&previous.raw))?;
        }
        Ok(())
    }

    /// Detaches what the cache remembers of the network and `valid` does not know, and has the plugins of a network
    /// of version 1.1.0 or later release whatever else belongs to no attachment of `valid` (GC).
    ///
    /// `valid` are pairs of container id and interface. A list that says `disableGC` is left alone.
    ///
    /// # Errors
    /// The first failure; everything is tried before it is given.
    pub fn gc(&self, network: &NetworkList, valid: &[(String, String)]) -> Result<(), Error> {
        if network.flag("disableGC") {
            return Ok(());
        }
        let mut first_error = Ok(());
        for cached in self.cached_attachments(None)? {
            let known = valid
                .iter()
                .any(|(id, ifname)| *id == cached.container_id && *ifname == cached.ifname);
            if cached.network != network.name() || known {
                continue;
            }
            let deleted = NetworkList::parse(&cached.config)
                .and_then(|then| self.del(&then, &cached.attachment()));
            first_error = first_error.and(deleted);
        }
        if network.cni_version() < Version::V1_1_0 {
            return first_error;
        }
        let list: Vec<Value> = valid
            .iter()
            .map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}))
            .collect();
        for config in network.plugins() {
            let extra = [("cni.dev/valid-attachments", Value::Array(list.clone()))];
            let asked = self.ask(network, config, "GC", &extra);
            first_error = first_error.and(asked);
        }
        first_error
    }

    /// Asks a plugin which versions of the specification it supports.
    ///
    /// # Errors
    /// The plugin is missing or does not answer.
    pub fn version(&self, plugin: &str) -> Result<PluginVersions, Error> {
        let path = self
            .find_in_dirs(plugin)
            .ok_or_else(|| self.missing("", plugin))?;
        self.ask_versions(plugin, path)
    }

    /// Whether the network could be attached to now: every plugin is there and supports the list's version.
    ///
    /// # Errors
    /// Names the first plugin that is missing or too old.
    pub fn check_ready(&self, network: &NetworkList) -> Result<(), Error> {
        for config in network.plugins() {
            let path = self.find(network, &config.plugin)?;
            let versions = self.ask_versions(&config.plugin, path)?;
            let wanted = network.cni_version().to_string();
            if !versions.supported.contains(&wanted) {
                let reason = format!(
                    "plugin {:?} supports only cniVersion {}, not {wanted}",
                    config.plugin,
                    versions.supported.join(", ")
                );
                return Err(Error::Config {
                    origin: format!("{:?}", network.name()),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Whether every plugin of the network is installed; runs none of them.
    ///
    /// # Errors
    /// Names the first plugin that is missing.
    pub fn check_installed(&self, network: &NetworkList) -> Result<(), Error> {
        network
            .plugins()
            .iter()
            .try_for_each(|config| self.find(network, &config.plugin).map(drop))
    }

    /// Asks every plugin of a network of version 1.1.0 or later whether it could attach a container now (STATUS).
    /// Older versions have no such question, and count as ready.
    ///
    /// # Errors
    /// The first plugin that is missing, or says that it is not ready.
    pub fn status(&self, network: &NetworkList) -> Result<(), Error> {
        if network.cni_version() < Version::V1_1_0 {
            return self.check_installed(network);
        }
        for config in network.plugins() {
            self.ask(network, config, "STATUS", &[])?;
        }
        Ok(())
    }

    /// A verb that is about no container.
    fn ask(
        &self,
        network: &NetworkList,
        config: &PluginConfig,
        command: &'static str,
        extra: &[(&str, Value)],
    ) -> Result<(), Error> {
        let mut object = config.raw.clone();
        let version = network.cni_version().to_string();
        object.insert("name".to_owned(), network.name().into());
        object.insert("cniVersion".to_owned(), version.into());
        for (key, value) in extra {
            object.insert((*key).to_owned(), value.clone());
        }
        let invocation = Invocation {
            plugin: &config.plugin,
            path: self.find(network, &config.plugin)?,
            command,
            env: vec![("CNI_PATH", self.cni_path(network))],
            stdin: Value::Object(object).to_string().into_bytes(),
            own_group: true,
            timeout: self.timeout,
        };
        invocation.run().map(drop)
    }

    fn run<'a>(
        &self,
        call: &Call<'a>,
        config: &'a PluginConfig,
        previous: Option<&Value>,
    ) -> Result<(Invocation<'a>, Answer), Error> {
        let invocation = Invocation {
            plugin: &config.plugin,
            path: self.find(call.network, &config.plugin)?,
            command: call.command,
            env: vec![
                ("CNI_CONTAINERID", call.attachment.container_id.clone()),
                ("CNI_NETNS", call.netns.clone()),
                ("CNI_IFNAME", call.attachment.ifname.clone()),
                ("CNI_ARGS", call.attachment.cni_args()),
                ("CNI_PATH", self.cni_path(call.network)),
            ],
            stdin: call.plugin_input(config, previous).to_string().into_bytes(),
            own_group: true,
            timeout: self.timeout,
        };
        let answer = invocation.run()?;
        Ok((invocation, answer))
    }

    fn ask_versions(&self, plugin: &str, path: PathBuf) -> Result<PluginVersions, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            supported_versions: Vec<String>,
        }
        let invocation = Invocation {
            plugin,
            path,
            command: "VERSION",
            // Old plugins want all variables even for this verb; libcni gives them the same fillers.
            env: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
                .map(|name| (name, "dummy".to_owned()))
                .to_vec(),
            stdin: json!({"cniVersion": Version::NEWEST.to_string()})
                .to_string()
                .into_bytes(),
            own_group: true,
            timeout: self.timeout,
        };
        let answer = invocation.run()?;
        let wire: Wire = serde_json::from_slice(&answer.stdout)
            .map_err(|e| invocation.bad_answer(e.to_string(), &answer.stdout, answer.stderr))?;
        Ok(PluginVersions {
            supported: wire.supported_versions,
        })
    }

    /// The executable of a plugin: for the built-in network always ours, else the first in the directories.
    fn find(&self, network: &NetworkList, plugin: &str) -> Result<PathBuf, Error> {
        match &self.builtin_plugins {
            Some(ours) if network.is_builtin() => Ok(ours.clone()),
            None if network.is_builtin() => Err(Error::MissingPlugin {
                network: network.name().to_owned(),
                plugin: plugin.to_owned(),
                searched: "this installation, which has no davit-cni".to_owned(),
            }),
            _ => self
                .find_in_dirs(plugin)
                .ok_or_else(|| self.missing(network.name(), plugin)),
        }
    }

    fn find_in_dirs(&self, plugin: &str) -> Option<PathBuf> {
        let installed = self
            .bin_dirs
            .iter()
            .map(|dir| dir.join(plugin))
            .find(|path| path.is_file());
        installed.or_else(|| {
            self.builtin_plugins
                .clone()
                .filter(|_| crate::plugin::NAMES.contains(&plugin))
        })
    }

    fn missing(&self, network: &str, plugin: &str) -> Error {
        let dirs: Vec<String> = self
            .bin_dirs
            .iter()
            .map(|d| d.display().to_string())
            .collect();
        let searched = if dirs.is_empty() {
            "no directory (none is configured)".to_owned()
        } else {
            dirs.join(", ")
        };
        Error::MissingPlugin {
            network: network.to_owned(),
            plugin: plugin.to_owned(),
            searched,
        }
    }

    /// Where the plugins find theirs. The built-in network's stay among themselves.
    fn cni_path(&self, network: &NetworkList) -> String {
        let ours = self.builtin_plugins.as_deref().and_then(Path::parent);
        let dirs: Vec<String> = match ours {
            Some(ours) if network.is_builtin() || self.bin_dirs.is_empty() => {
                vec![ours.display().to_string()]
            }
            _ => self
                .bin_dirs
                .iter()
                .map(|d| d.display().to_string())
                .collect(),
        };
        dirs.join(":")
    }
}

/// Everything that becomes part of a path or of a plugin's environment.
fn check_names(network: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
    if let Some(reason) = bad_network_name(network.name()) {
        return Err(Error::Config {
            origin: format!("{:?}", network.name()),
            reason: format!("its name {reason}"),
        });
    }
    attachment.validate()
}

/// Whether the namespace's file is missing, or is the ordinary file that an unmounted pin leaves.
fn is_gone(netns: &Path) -> Result<bool, Error> {
    match NetNs::open(netns) {
        Ok(_) => Ok(false),
        Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

impl Call<'_> {
    /// The plugin's configuration with what the runtime adds: the list's name and version, the previous result,
    /// and the values of those capabilities that the plugin declares.
    fn plugin_input(&self, config: &PluginConfig, previous: Option<&Value>) -> Value {
        let mut object = config.raw.clone();
        object.insert("name".to_owned(), self.network.name().into());
        object.insert(
            "cniVersion".to_owned(),
            self.network.cni_version().to_string().into(),
        );
        if let Some(previous) = previous {
            object.insert("prevResult".to_owned(), previous.clone());
        }
        let wanted: Map<String, Value> = config
            .capabilities
            .iter()
            .filter_map(|name| {
                Some((
                    name.clone(),
                    self.attachment.capability_args.get(name)?.clone(),
                ))
            })
            .collect();
        if !wanted.is_empty() {
            object.insert("runtimeConfig".to_owned(), Value::Object(wanted));
        }
        Value::Object(object)
    }
}
