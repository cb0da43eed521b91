//! What a cgroup uses.

use super::{Cgroup, Result, Version, file};

/// Usage; `None` where the host has no controller that counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory, page cache included.
    pub memory_usage: Option<u64>,
    /// Bytes of page cache that could be dropped at once; usage without it is the working set.
    pub memory_inactive_file: Option<u64>,
    /// Nanoseconds of CPU time.
    pub cpu_usage_ns: Option<u64>,
    /// Processes and threads.
    pub pids_current: Option<u64>,
}

impl Cgroup {
    /// Reads what the cgroup uses. A file that is missing or gone is `None`, so this cannot fail.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            memory_usage: self.number("memory", "memory.usage_in_bytes", "memory.current"),
            memory_inactive_file: self.key(
                "memory",
                ("memory.stat", "total_inactive_file"),
                ("memory.stat", "inactive_file"),
            ),
            cpu_usage_ns: self.cpu_usage(),
            pids_current: self.number("pids", "pids.current", "pids.current"),
        }
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> Option<u64> {
        let node = self.controller(controller)?;
        file::read_number(&node.dir, if node.version == Version::V1 { v1 } else { v2 }).ok()
    }

    fn key(&self, controller: &str, v1: (&str, &str), v2: (&str, &str)) -> Option<u64> {
        let node = self.controller(controller)?;
        let (name, key) = if node.version == Version::V1 { v1 } else { v2 };
        file::read_key(&node.dir, name, key).ok()?
    }

    fn cpu_usage(&self) -> Option<u64> {
        match self.v1_controller("cpuacct") {
            Some(node) => file::read_number(&node.dir, "cpuacct.usage").ok(),
            // v2 counts CPU time in every cgroup, with or without the controller.
            None => file::read_key(&self.v2()?.dir, "cpu.stat", "usage_usec")
                .ok()?
                .map(|us| us.saturating_mul(1000)),
        }
    }

    /// How many processes the kernel killed in this cgroup, and below it, for want of memory.
    /// 0 where the host has no memory controller, which then kills nobody.
    ///
    /// # Errors
    /// A cgroup that is gone, or a file that cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(node) = self.controller("memory") else {
            return Ok(0);
        };
        if node.version == Version::V2 {
            return match file::read_key(&node.dir, "memory.events", "oom_kill") {
                Err(_) if node.dir.is_dir() => Ok(0),
                found => found.map(Option::unwrap_or_default),
            };
        }
        // v1 counts in the victim's own cgroup only.
        let mut sum =
            file::read_key(&node.dir, "memory.oom_control", "oom_kill")?.unwrap_or_default();
        for child in node.tree()?.iter().filter(|dir| **dir != node.dir) {
            // A child that is gone took its count along.
            sum += file::read_key(child, "memory.oom_control", "oom_kill")
                .ok()
                .flatten()
                .unwrap_or_default();
        }
        Ok(sum)
    }
}
