//! The pods' network, by CNI.

mod attachment;

use std::path::{Path, PathBuf};

use cni::{BuiltinOptions, Executor, NetworkList};

use crate::config::NetworkConfig;
use crate::error::{Error, Result};
use crate::model::Condition;
use crate::record::PodRecord;

/// The name of a pod's interface.
const INTERFACE: &str = "eth0";

/// How pods get their network.
pub(crate) struct Network {
    executor: Executor,
    conf_dir: PathBuf,
    builtin: NetworkList,
}

impl Network {
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self> {
        let mut options = BuiltinOptions {
            bridge_name: config.bridge.clone(),
            ..BuiltinOptions::default()
        };
        if options.bridge_name != BuiltinOptions::default().bridge_name {
            // Another bridge is another network: its addresses and rules are its own.
            options.name.clone_from(&options.bridge_name);
        }
        if let Some(subnet) = &config.subnet {
            options.subnet = subnet.parse().map_err(|error| {
                Error::invalid("network.subnet", format!("{subnet:?}: {error}"))
            })?;
        }
        if let Some(dir) = &config.data_dir {
            options.data_dir.clone_from(dir);
        }
        let mut executor = Executor::new(config.bin_dirs.clone());
        executor.cache_dir.clone_from(&config.cache_dir);
        executor.timeout = config.timeout;
        executor.builtin_plugins.clone_from(&config.plugins);
        Ok(Self {
            executor,
            conf_dir: config.conf_dir.clone(),
            builtin: NetworkList::builtin(&options),
        })
    }

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

    /// Whether a pod would get a network now.
    pub(crate) fn condition(&self) -> Condition {
        let kind = "NetworkReady".to_owned();
        match self.current() {
            Ok(_) => Condition {
                kind,
                status: true,
                ..Condition::default()
            },
            Err(error) => Condition {
                kind,
                status: false,
                reason: "NetworkConfigInvalid".into(),
                message: error.report(),
            },
        }
    }

    /// The name of the network that new pods get, for people.
    pub(crate) fn name(&self) -> String {
        self.current()
            .map_or_else(|error| error.report(), |network| network.name().to_owned())
    }

    /// Connects the pod whose network namespace is pinned at `netns`; the answer is its addresses.
    pub(crate) fn attach(&self, pod: &PodRecord, netns: &Path) -> Result<Vec<String>> {
        let network = self.current()?;
        let attachment = attachment::of(pod, netns, INTERFACE)?;
        for ignored in attachment::ignored(&attachment, &network) {
            tracing::warn!(
                pod.id = pod.id,
                "{ignored}: no plugin of network {:?} takes it, so it has no effect",
                network.name()
            );
        }
        let result = self.executor.add(&network, &attachment).map_err(|error| {
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
        self.executor
            .del_cached(pod_id, INTERFACE)
            .map_err(|error| failed("disconnect the pod from its network".into(), error))
    }

    /// Disconnects the pods of `pods_dir` that are there no more, as after a reboot. Other engines share the
    /// cache: only attachments whose namespace was pinned below `pods_dir` are ours.
    pub(crate) fn forget_all_but(&self, pods_dir: &Path, known: impl Fn(&str) -> bool) {
        let cached = match self.executor.cached_attachments(None) {
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
}

fn failed(action: String, error: cni::Error) -> Error {
    Error::Network {
        action,
        source: Box::new(error),
    }
}
