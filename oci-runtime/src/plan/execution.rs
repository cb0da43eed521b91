//! `linux.personality` and `linux.memoryPolicy`: what every process of a container has, also those that `exec` adds.
use super::{Problems, numbers};
use crate::spec;

/// How the processes of a container run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecutionPlan {
    /// `linux.personality`: the domain with its flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`: mode with flags, nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<(u32, Vec<usize>)>,
}

/// No kernel is built for more memory nodes.
const MAX_NODES: usize = 1024;

/// The modes of `linux.memoryPolicy` and whether they need nodes; `None`: they may have some. See `set_mempolicy(2)`.
const MODES: [(&str, u32, Option<bool>); 7] = [
    ("MPOL_DEFAULT", 0, Some(false)),
    ("MPOL_PREFERRED", 1, None),
    ("MPOL_BIND", 2, Some(true)),
    ("MPOL_INTERLEAVE", 3, Some(true)),
    ("MPOL_LOCAL", 4, Some(false)),
    ("MPOL_PREFERRED_MANY", 5, Some(true)),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Some(true)),
];

const STATIC_NODES: u32 = 1 << 15;
const RELATIVE_NODES: u32 = 1 << 14;

/// The flags of `linux.memoryPolicy`.
const MODE_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", STATIC_NODES),
];

/// The names that `features` lists.
pub fn memory_policy_modes() -> impl Iterator<Item = &'static str> {
    MODES.iter().map(|(name, ..)| *name)
}

/// The names that `features` lists.
pub fn memory_policy_flags() -> impl Iterator<Item = &'static str> {
    MODE_FLAGS.iter().map(|(name, _)| *name)
}

impl ExecutionPlan {
    /// Decides.
    pub fn new(linux: &spec::Linux, problems: &mut Problems) -> Self {
        Self {
            personality: linux
                .personality
                .as_ref()
                .and_then(|one| personality(one, problems)),
            memory_policy: linux
                .memory_policy
                .as_ref()
                .and_then(|one| memory_policy(one, problems)),
        }
    }
}

fn memory_policy(spec: &spec::MemoryPolicy, problems: &mut Problems) -> Option<(u32, Vec<usize>)> {
    let Some((name, mode, takes_nodes)) = MODES.iter().find(|(name, ..)| *name == spec.mode) else {
        let reason = format!("invalid memory policy mode {:?}", spec.mode);
        problems.push("linux.memoryPolicy.mode", reason);
        return None;
    };
    let nodes = numbers::parse(&spec.nodes, MAX_NODES)
        .map_err(|reason| problems.push("linux.memoryPolicy.nodes", reason))
        .ok()?;
    let fits = takes_nodes.is_none_or(|needed| needed != nodes.is_empty());
    let reason = match takes_nodes {
        Some(true) => format!("{name} requires at least one node but got 0"),
        _ => format!("{name} requires 0 nodes but got {}", nodes.len()),
    };
    problems.require(fits, "linux.memoryPolicy.nodes", &reason);
    let mut flags = 0;
    for flag in &spec.flags {
        match MODE_FLAGS.iter().find(|(name, _)| name == flag) {
            Some((_, bit)) => flags |= bit,
            None => problems.push(
                "linux.memoryPolicy.flags",
                format!("invalid memory policy flag {flag:?}"),
            ),
        }
    }
    problems.require(
        flags & (STATIC_NODES | RELATIVE_NODES) != STATIC_NODES | RELATIVE_NODES,
        "linux.memoryPolicy.flags",
        "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
    );
    Some((mode | flags, nodes))
}

/// The flags of `personality(2)`. The spec defines none yet; these are what its next version can only mean.
const PERSONALITY_FLAGS: [(&str, u32); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];

fn personality(spec: &spec::Personality, problems: &mut Problems) -> Option<u32> {
    let mut value = match spec.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => {
            problems.push(
                "linux.personality.domain",
                format!("unknown execution domain {other:?}"),
            );
            return None;
        }
    };
    for flag in &spec.flags {
        match PERSONALITY_FLAGS.iter().find(|(name, _)| name == flag) {
            Some((_, bit)) => value |= bit,
            None => problems.push(
                "linux.personality.flags",
                format!("unknown personality flag {flag:?}"),
            ),
        }
    }
    Some(value)
}
