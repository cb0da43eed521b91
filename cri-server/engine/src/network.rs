//! The pods' network, by CNI.

mod attachment;
mod builtin;
mod watch;

use std::path::Path;
use std::sync::Arc;

use cni::{Executor, NetworkList};

use crate::config::NetworkConfig;
use crate::error::{Error, Result};
use crate::model::Condition;
use crate::record::PodRecord;

/// The name of a pod's interface.
const INTERFACE: &str = "eth0";

/// How pods get their network.
pub(crate) struct Network {
    source: Arc<Source>,
    watch: watch::Watch,
}

/// Where networks come from and who runs them.
struct Source {
    executor: Executor,
    conf_dir: std::path::PathBuf,
    builtin: NetworkList,
}

impl Source {
    /// The network that new pods get: the first valid configuration, read each time, else the built-in one.
    fn current(&self) -> Result<NetworkList> {
        let found = NetworkList::load_dir(&self.conf_dir).map_err(|error| {
            failed(
                format!(
                    "load the network configuration in {}",
                    self.conf_dir.display()
                ),
                error,
            )
        })?;
        Ok(found.unwrap_or_else(|| self.builtin.clone()))
    }
}

impl Network {
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self> {
        let mut executor = Executor::new(config.bin_dirs.clone());
        executor.cache_dir.clone_from(&config.cache_dir);
        executor.timeout = config.timeout;
        executor.builtin_plugins.clone_from(&config.plugins);
        let source = Arc::new(Source {
            executor,
            conf_dir: config.conf_dir.clone(),
            builtin: NetworkList::builtin(&builtin::options(config)?),
        });
        Ok(Self {
            watch: watch::Watch::start(&source),
            source,
        })
    }

    /// Whether a pod would get a network now. The files are looked at each time; what the plugins said is the watch's
    /// last word, for asking them may take long.
    pub(crate) fn condition(&self) -> Condition {
        let not_ready = |reason: &str, message: String| Condition {
            kind: "NetworkReady".to_owned(),
            status: false,
            reason: reason.to_owned(),
            message,
        };
        match self.source.current() {
            Ok(network) => match self.watch.plugins_say(&network) {
                Ok(()) => Condition {
                    kind: "NetworkReady".to_owned(),
                    status: true,
                    ..Condition::default()
                },
                Err(message) => not_ready("NetworkPluginNotReady", message),
            },
            Err(error) => not_ready("NetworkConfigInvalid", error.report()),
        }
    }

    /// The name of the network that new pods get, for people.
    pub(crate) fn name(&self) -> String {
        self.source
            .current()
            .map_or_else(|error| error.report(), |network| network.name().to_owned())
    }

    /// Connects the pod whose network namespace is pinned at `netns`; the answer is its addresses.
    pub(crate) fn attach(&self, pod: &PodRecord, netns: &Path) -> Result<Vec<String>> {
        let network = self.source.current()?;
        let attachment = attachment::of(pod, netns, INTERFACE)?;
        for ignored in attachment::ignored(&attachment, &network) {
            tracing::warn!(
                pod.id = pod.id,
                "{ignored}: no plugin of network {:?} takes it, so it has no effect",
                network.name()
            );
        }
        let network = network.shortened_for(&attachment);
        let added = self.source.executor.add(&network, &attachment);
        let result = added.map_err(|error| {
            failed(
                format!("connect the pod to network {:?}", network.name()),
                error,
            )
        })?;
        let ips: Vec<String> = result
            .ips
            .iter()
            .map(|one| one.address.addr().to_string())
            .collect();
        if ips.is_empty() {
            return Err(Error::Internal(format!(
                "network {:?} gave the pod no address",
                network.name()
            )));
        }
        Ok(ips)
    }

    /// Disconnects a pod by what the cache remembers of its ADD; nothing remembered: nothing to do.
    pub(crate) fn detach(&self, pod_id: &str) -> Result<()> {
        self.source
            .executor
            .del_cached(pod_id, INTERFACE)
            .map_err(|error| failed("disconnect the pod from its network".into(), error))
    }

    /// Disconnects the pods of `pods_dir` that are there no more, as after a reboot. Other engines share the
    /// cache: only attachments whose namespace was pinned below `pods_dir` are ours.
    pub(crate) fn forget_all_but(&self, pods_dir: &Path, known: impl Fn(&str) -> bool) {
        let cached = match self.source.executor.cached_attachments(None) {
            Ok(cached) => cached,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the cache of network results does not read"
                );
                return;
            }
        };
        for one in cached {
            let ours = one
                .netns
                .as_deref()
                .is_some_and(|netns| netns.starts_with(pods_dir));
            if ours
                && !known(&one.container_id)
                && let Err(error) = self.detach(&one.container_id)
            {
                tracing::warn!(pod.id = one.container_id, "{}", error.report());
            }
        }
    }

    /// Has the plugins release what belongs to no attachment any more, as after a crash that lost the cache. For the
    /// time before the first pod: an attachment in the making would not be known.
    ///
    /// A network that another runtime uses as well is left alone.
    pub(crate) fn collect(&self, pods_dir: &Path) {
        let executor = &self.source.executor;
        let collected = executor.cached_attachments(None).and_then(|cached| {
            let Ok(network) = self.source.current() else {
                return Ok(());
            };
            let ours = |one: &cni::CachedAttachment| {
                one.netns
                    .as_deref()
                    .is_some_and(|netns| netns.starts_with(pods_dir))
            };
            if !network.is_builtin() && !cached.iter().all(ours) {
                return Ok(());
            }
            let valid: Vec<(String, String)> = cached
                .into_iter()
                .map(|one| (one.container_id, one.ifname))
                .collect();
            executor.gc(&network, &valid)
        });
        if let Err(error) = collected {
            tracing::warn!("{}", failed("clean up networks".into(), error).report());
        }
    }
}

fn failed(action: String, error: cni::Error) -> Error {
    Error::Network {
        action,
        source: Box::new(error),
    }
}
