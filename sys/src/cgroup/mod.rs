//! Control groups on v1, v2 and hybrid hosts behind one type.
//!
//! A [`Cgroup`] is one group of processes: on v2 one directory, on v1 one directory in every hierarchy, on a hybrid
//! host both. A limit goes to whichever hierarchy has its controller.
//!
//! Order of use: [`Cgroup::create`], [`Cgroup::apply`] while it is empty, then the processes: on v2 by `clone3` into
//! [`Cgroup::dir_fd_v2`], on v1 (and beside v2 on hybrid hosts) by the new process itself with [`Cgroup::joiner`].
//! [`Cgroup::add_process`] moves a process that runs already, and costs an RCU grace period (6 to 14 ms) where the
//! other two cost nothing.

mod bpf;
mod convert;
mod detect;
mod devices;
mod error;
mod field;
mod file;
mod freeze;
mod io;
mod join;
mod journal;
mod kill;
mod node;
mod oom;
mod owner;
mod path;
mod rare;
mod remove;
mod resources;
mod stats;
pub mod systemd;
mod usage;
mod v1;
mod v2;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use convert::{shares_to_weight, swap_for_v2};
pub use detect::{Hierarchies, Hierarchy, Mode, Version};
pub use devices::{DeviceAccess, DevicePolicy, DeviceRule, DeviceType, default_device_rules};
pub use error::{Error, Hint, Result};
pub use join::Joiner;
pub use journal::{Failed, all_or_nothing};
pub use node::Created;
use node::Node;
pub use oom::{OomEvent, OomWatch};
pub use path::CgroupPath;
pub use resources::{
    BlockIo, Cpu, HugepageLimit, Memory, Network, RdmaLimit, Resources, Throttle, ThrottleKind,
    WeightDevice,
};
pub use stats::Stats;
pub use usage::{DeviceIo, Pressure, PressureLine, Usage, UsageDetail};

/// The limits that systemd writes into files by itself, of either version.
const LIMITS: [&str; 15] = [
    "memory.limit_in_bytes",
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "blkio.weight",
    "io.weight",
    "io.bfq.weight",
];

/// One group of processes, in every hierarchy of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    nodes: Vec<Node>,
}

impl Cgroup {
    /// The cgroup at `path`, which need not exist. A relative path counts from the caller's own cgroup; on v2 from
    /// that one's parent, because a cgroup with processes cannot hand controllers to its children (as runc does).
    #[must_use]
    pub fn new(hierarchies: &Hierarchies, path: &CgroupPath) -> Self {
        let dir = |h: &Hierarchy| {
            if path.is_absolute() {
                return h.mount.join(path.relative());
            }
            let own = h.dir_of(&h.own);
            let beside = own
                .parent()
                .filter(|up| h.version == Version::V2 && up.starts_with(&h.mount));
            beside.unwrap_or(&own).join(path.relative())
        };
        Self {
            nodes: hierarchies
                .list()
                .iter()
                .map(|h| Node::new(h, dir(h)))
                .collect(),
        }
    }

    /// No cgroup at all: nothing is made, entered, limited or removed. For containers that stay where their maker is.
    #[must_use]
    pub fn none() -> Self {
        Self { nodes: Vec::new() }
    }

    /// The cgroup that the caller is in.
    #[must_use]
    pub fn of_caller(hierarchies: &Hierarchies) -> Self {
        let node = |h: &Hierarchy| Node::new(h, h.dir_of(&h.own));
        Self {
            nodes: hierarchies.list().iter().map(node).collect(),
        }
    }

    /// Whether it is [`Cgroup::none`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The cgroup that a process is in, by /proc; its paths may differ between hierarchies.
    ///
    /// # Errors
    /// A process that is gone (`ENOENT`, `ESRCH`).
    pub fn of_process(hierarchies: &Hierarchies, pid: i32) -> Result<Self> {
        let text = file::read(Path::new(&format!("/proc/{pid}")), "cgroup")?;
        Ok(Self::from_proc_text(hierarchies, &text))
    }

    fn from_proc_text(hierarchies: &Hierarchies, text: &str) -> Self {
        let dir = |h: &Hierarchy| {
            let path = detect::own_path(text, |id, names| match h.version {
                Version::V2 => id == "0",
                Version::V1 => names
                    .split(',')
                    .any(|name| h.controllers.first().is_some_and(|first| first == name)),
            });
            h.dir_of(&path)
        };
        Self {
            nodes: hierarchies
                .list()
                .iter()
                .map(|h| Node::new(h, dir(h)))
                .collect(),
        }
    }

    /// The cgroup that [`Cgroup::paths`] described, for a later process that finds it in a state file. A hierarchy
    /// that is no longer mounted is left out.
    #[must_use]
    pub fn from_paths(hierarchies: &Hierarchies, paths: &BTreeMap<String, PathBuf>) -> Self {
        let node = |h: &Hierarchy| {
            let key = match h.version {
                Version::V2 => "",
                Version::V1 => h.controllers.first()?.as_str(),
            };
            Some(Node::new(h, paths.get(key)?.clone()))
        };
        Self {
            nodes: hierarchies.list().iter().filter_map(node).collect(),
        }
    }

    /// The directory of each controller, named hierarchies as `name=systemd`, and the v2 directory as `""`: the keys
    /// that runc's state file uses.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let v1 = self.v1_nodes().flat_map(|n| {
            n.controllers
                .iter()
                .map(|name| (name.clone(), n.dir.clone()))
        });
        v1.chain(self.v2().map(|n| (String::new(), n.dir.clone())))
            .collect()
    }

    /// Makes the directories, on v2 enabling every controller on the way down, on v1 filling the cpuset.
    ///
    /// # Errors
    /// The first directory that cannot be made, after removing what was.
    pub fn create(&self) -> Result<Created> {
        let mut created = Created::default();
        for node in &self.nodes {
            if let Err(error) = node.make(&mut created) {
                // The error that matters is the one that stopped us; what cannot be undone is empty.
                created.undo().ok();
                return Err(error);
            }
        }
        Ok(created)
    }

    /// Whether its directories are all among these, in every hierarchy.
    #[must_use]
    pub fn is_all_in(&self, dirs: &[PathBuf]) -> bool {
        self.nodes.iter().all(|node| dirs.contains(&node.dir))
    }

    /// As [`Cgroup::create`] in those hierarchies that let the caller; the others are left out of the cgroup from here on.
    ///
    /// # Errors
    /// The first directory that cannot be made for another reason, after removing what was.
    pub fn create_permitted(&mut self) -> Result<Created> {
        let mut created = Created::default();
        let mut made = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..) {
            let mut own = Created::default();
            match node.make(&mut own) {
                Ok(()) => {
                    created.append(own);
                    made.push(node);
                }
                Err(error) => {
                    own.undo().ok();
                    if !error.is_refusal() {
                        created.undo().ok();
                        return Err(error);
                    }
                }
            }
        }
        self.nodes = made;
        Ok(created)
    }

    /// Whether the cgroup is there in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.nodes.iter().any(|node| node.dir.is_dir())
    }

    /// Sets every limit that is set in `resources` and leaves the others.
    ///
    /// # Errors
    /// The first limit that cannot be set; those before it are.
    pub fn apply(&self, resources: &Resources) -> Result<()> {
        self.apply_limits(resources)?;
        match &resources.devices {
            Some(rules) => self.apply_devices(rules),
            None => Ok(()),
        }
    }

    /// What is written for [`Cgroup::apply`] by others, who do not say so.
    fn note_limits(&self) {
        for node in &self.nodes {
            journal::note_all(&node.dir, &LIMITS);
        }
    }

    /// As [`Cgroup::apply`], but for the device rules.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn apply_limits(&self, resources: &Resources) -> Result<()> {
        self.apply_cpu(&resources.cpu)?;
        self.apply_memory(&resources.memory)?;
        self.apply_pids(resources.pids_limit)?;
        self.apply_block_io(&resources.block_io)?;
        self.apply_rare(resources)?;
        self.apply_unified(&resources.unified)
    }

    /// Enforces device rules, in order, after which come the defaults of every container.
    ///
    /// # Errors
    /// A kernel without device control, a rule that v1 cannot express, or one that a parent denies.
    pub fn apply_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        let policy = DevicePolicy::for_container(rules);
        match (self.v1_controller("devices"), self.v2()) {
            (Some(node), _) => devices::V1List::from_policy(&policy)?.write(&node.dir),
            (None, Some(node)) => bpf::enforce(&node.dir, &policy),
            (None, None) => Err(Error::NoController {
                controller: "devices",
                path: None,
            }),
        }
    }

    fn apply_memory(&self, memory: &Memory) -> Result<()> {
        if *memory == Memory::default() {
            return Ok(());
        }
        let applied = self.required("memory").and_then(|node| match node.version {
            Version::V1 => v1::apply_memory(&node.dir, memory),
            Version::V2 => v2::apply_memory(&node.dir, memory),
        });
        match applied {
            // Without the controller nothing limits.
            Err(Error::NoController { .. }) if memory.lifts_only() => Ok(()),
            applied => applied,
        }
    }

    fn apply_cpu(&self, cpu: &Cpu) -> Result<()> {
        let time = Cpu {
            cpus: None,
            mems: None,
            ..cpu.clone()
        };
        if time != Cpu::default() {
            let node = self.required("cpu")?;
            match node.version {
                Version::V1 => v1::apply_cpu(&node.dir, &time)?,
                Version::V2 => v2::apply_cpu(&node.dir, &time)?,
            }
        }
        if cpu.cpus.is_none() && cpu.mems.is_none() {
            return Ok(());
        }
        let node = self.required("cpuset")?;
        match node.version {
            Version::V1 => v1::apply_cpuset(&node.dir, cpu),
            Version::V2 => v2::apply_cpuset(&node.dir, cpu),
        }
    }

    fn apply_pids(&self, limit: Option<i64>) -> Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let written = self.required("pids").and_then(|node| {
            let written = file::write(&node.dir, "pids.max", &convert::or_max(limit));
            written.map_err(|e| v2::no_controller(e, "pids"))
        });
        match written {
            // Without the controller nothing limits.
            Err(Error::NoController { .. }) if limit < 0 => Ok(()),
            written => written,
        }
    }

    fn apply_block_io(&self, block_io: &BlockIo) -> Result<()> {
        if *block_io == BlockIo::default() {
            return Ok(());
        }
        if let Some(node) = self.v1_controller("blkio") {
            return io::apply_v1(&node.dir, block_io);
        }
        let node = self.required("io")?;
        io::apply_v2(&node.dir, block_io).map_err(|e| v2::no_controller(e, "io"))
    }

    fn apply_rare(&self, resources: &Resources) -> Result<()> {
        if !resources.hugepages.is_empty() {
            let node = self.required("hugetlb")?;
            rare::apply_hugepages(&node.dir, node.version, &resources.hugepages)?;
        }
        if !resources.rdma.is_empty() {
            rare::apply_rdma(&self.required("rdma")?.dir, &resources.rdma)?;
        }
        self.apply_network(&resources.network)
    }

    /// v2 has nothing of the kind; as with other runtimes, what a bundle for both says is of no effect there.
    fn apply_network(&self, network: &Network) -> Result<()> {
        if self.v1_nodes().next().is_none() {
            return Ok(());
        }
        if network.class_id.is_some() {
            rare::apply_class(&self.required("net_cls")?.dir, network)?;
        }
        if !network.priorities.is_empty() {
            rare::apply_priorities(&self.required("net_prio")?.dir, network)?;
        }
        Ok(())
    }

    fn apply_unified(&self, files: &[(String, String)]) -> Result<()> {
        let Some((first, _)) = files.first() else {
            return Ok(());
        };
        if self.v1_nodes().next().is_some() {
            return Err(Error::InvalidValue {
                setting: format!("unified {first:?}"),
                why: "this host has cgroup v1".into(),
            });
        }
        self.v2().map_or(Err(Error::NotMounted), |node| {
            v2::apply_unified(&node.dir, files)
        })
    }
}

// === which directory ===

impl Cgroup {
    fn v1_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.version == Version::V1)
    }

    fn v1_controller(&self, name: &str) -> Option<&Node> {
        self.v1_nodes().find(|node| node.has(name))
    }

    fn v2(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.version == Version::V2)
    }

    /// The directory whose hierarchy has this controller.
    fn controller(&self, name: &str) -> Option<&Node> {
        self.v1_controller(name)
            .or_else(|| self.v2().filter(|node| node.has(name)))
    }

    fn required(&self, controller: &'static str) -> Result<&Node> {
        let missing = || Error::NoController {
            controller,
            path: self.v2().map(|node| node.dir.clone()),
        };
        self.controller(controller).ok_or_else(missing)
    }
}
