//! What the engine says about the node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Counts, Engine};
use crate::config::Reload;
use crate::error::Result;
use crate::images::blocking;
use crate::model::{Condition, HandlerInfo};
use crate::pod::Entry;
use crate::record::Phase;

impl Engine {
    /// The node's conditions: `RuntimeReady` and `NetworkReady`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        vec![self.runtime_condition(), self.node.network.condition()]
    }

    fn runtime_condition(&self) -> Condition {
        let binaries = [
            Some(self.node.config.shim.clone()),
            self.node.handlers.default_binary(),
        ];
        let missing = binaries.into_iter().flatten().find(|path| !path.is_file());
        let kind = "RuntimeReady".to_owned();
        match missing {
            None => Condition {
                kind,
                status: true,
                ..Condition::default()
            },
            Some(path) => Condition {
                kind,
                status: false,
                reason: "BinaryMissing".into(),
                message: format!("{} is not there", path.display()),
            },
        }
    }

    /// Who makes the containers' cgroups.
    #[must_use]
    pub fn cgroup_driver(&self) -> crate::CgroupDriver {
        self.node.config.cgroup_driver
    }

    /// Puts other runtime handlers in the place of the present ones. Containers that run go on with the runtime that made
    /// them; hosts directories need no reload, they are read at each pull.
    ///
    /// # Errors
    /// A handler's name, or a default that is none of them; then nothing has changed.
    pub async fn reload(&self, to: Reload) -> Result<()> {
        let node = Arc::clone(&self.node);
        blocking(move || {
            let run_dir = &node.config.run_dir;
            node.handlers
                .replace(&to.handlers, &to.default_handler, run_dir)?;
            // The first who asks what they can do need not wait for them.
            tokio::task::spawn_blocking(move || drop(node.handlers.info()));
            Ok(())
        })
        .await
    }

    /// How much there is. Never waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            shims_lost: self.node.shims_lost.load(Ordering::Relaxed),
            ..Counts::default()
        };
        for pod in self.node.pods() {
            let view = pod.view();
            match (&view.record, &view.not_ready) {
                (Ok(_), None) => counts.pods_ready += 1,
                _ => counts.pods_not_ready += 1,
            }
            for entry in view.containers.values() {
                let count = match entry {
                    Entry::Unknown(_) => &mut counts.containers_unknown,
                    Entry::Known(record) => match record.phase {
                        Phase::Creating | Phase::Created => &mut counts.containers_created,
                        Phase::Running { .. } => &mut counts.containers_running,
                        Phase::Exited(_) => &mut counts.containers_exited,
                    },
                };
                *count += 1;
            }
        }
        counts
    }

    /// The runtime handlers; the first is the default under the empty name.
    #[must_use]
    pub fn handlers(&self) -> Vec<HandlerInfo> {
        self.node.handlers.info()
    }

    /// The engine's configuration and state for people, as JSON (`stateDir` among it).
    #[must_use]
    pub fn info(&self) -> serde_json::Value {
        let config = &self.node.config;
        let (runtimes, default) = self.node.handlers.named();
        serde_json::json!({
            "stateDir": config.run_dir,
            "rootDir": config.state_dir,
            "shim": config.shim,
            "defaultRuntime": default,
            "runtimes": runtimes.iter().map(|(name, one)| (name.clone(), serde_json::json!({
                "path": one.path, "root": one.root, "args": one.args,
            }))).collect::<serde_json::Map<_, _>>(),
            "cniConfDir": config.network.conf_dir,
            "cniBinDirs": config.network.bin_dirs,
            "network": self.node.network.name(),
            "cgroups": format!("{:?}", self.node.hierarchies.mode()).to_lowercase(),
            "cgroupRoot": config.cgroup_root,
            "cgroupDriver": format!("{:?}", config.cgroup_driver).to_lowercase(),
            "pods": self.node.pods().len(),
        })
    }

    /// Takes note of the node's pod range. The network's own configuration decides; nothing is changed.
    ///
    /// # Errors
    /// None today.
    pub async fn update_pod_cidr(&self, cidr: &str) -> Result<()> {
        tracing::info!(
            cidr,
            "the pod range is the network configuration's; this one is only noted"
        );
        Ok(())
    }
}
