//! What a cgroup uses, for monitoring: [`Cgroup::usage`] is what is asked every few seconds, [`Cgroup::usage_detail`] the
//! rest. Every number is `None` where the host does not count it, so neither can fail.

use std::path::Path;

use super::file::find_key;
use super::{Cgroup, Version, file};

mod parse;

pub use parse::{DeviceIo, Pressure, PressureLine};

/// v1 counts user and system time in these (USER_HZ, the same on every Linux that Rust runs on).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Limits from here on mean "none": v1 says so with the largest multiple of the page size, v2 with `max`.
const UNLIMITED: u64 = 1 << 62;

/// What is cheap to read and asked often.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Nanoseconds of CPU time.
    pub cpu_ns: Option<u64>,
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// Memory without the page cache that could be dropped at once.
    pub working_set: Option<u64>,
    /// Bytes of anonymous memory.
    pub rss: Option<u64>,
    /// The limit of memory; `None` where there is none.
    pub memory_limit: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that had to read.
    pub major_page_faults: Option<u64>,
    /// Bytes in swap.
    pub swap: Option<u64>,
    /// The limit of swap alone; `None` where there is none.
    pub swap_limit: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Waiting for CPU, v2 only, as the next two.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for disks.
    pub io_pressure: Option<Pressure>,
}

/// What else is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageDetail {
    /// Nanoseconds of CPU time in user space.
    pub cpu_user_ns: Option<u64>,
    /// Nanoseconds of CPU time in the kernel.
    pub cpu_system_ns: Option<u64>,
    /// Periods of the CPU quota.
    pub cpu_periods: Option<u64>,
    /// Periods in which it was used up.
    pub cpu_throttled_periods: Option<u64>,
    /// Nanoseconds spent waiting for the next period.
    pub cpu_throttled_ns: Option<u64>,
    /// Bytes of page cache.
    pub cache: Option<u64>,
    /// Bytes of memory of the kernel.
    pub kernel_memory: Option<u64>,
    /// Bytes of files mapped into memory.
    pub mapped_file: Option<u64>,
    /// Bytes of page cache in use.
    pub active_file: Option<u64>,
    /// Bytes of page cache that could be dropped.
    pub inactive_file: Option<u64>,
    /// The most that memory was.
    pub max_memory: Option<u64>,
    /// How often the limit of memory was met.
    pub memory_fails: Option<u64>,
    /// The limit of processes and threads; `None` where there is none.
    pub tasks_limit: Option<u64>,
    /// What went to and from each block device.
    pub io: Vec<DeviceIo>,
    /// Huge pages: their size as in `2MB`, bytes used, and the most that was used where the host knows.
    pub hugepages: Vec<(String, u64, Option<u64>)>,
}

impl Cgroup {
    /// What is asked every few seconds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            cpu_ns: self.stats().cpu_usage_ns,
            tasks: self
                .place("pids")
                .and_then(|(dir, _)| number(dir, "pids.current")),
            cpu_pressure: self.pressure("cpu.pressure"),
            memory_pressure: self.pressure("memory.pressure"),
            io_pressure: self.pressure("io.pressure"),
            ..Usage::default()
        };
        match self.place("memory") {
            Some((dir, Version::V1)) => memory_v1(dir, &mut usage),
            Some((dir, Version::V2)) => memory_v2(dir, &mut usage),
            None => {}
        }
        usage
    }

    /// What [`Cgroup::usage`] leaves out.
    #[must_use]
    pub fn usage_detail(&self) -> UsageDetail {
        let mut detail = UsageDetail {
            tasks_limit: self
                .place("pids")
                .and_then(|(dir, _)| limit(dir, "pids.max")),
            io: self.device_io(),
            hugepages: self.huge_pages(),
            ..UsageDetail::default()
        };
        self.cpu_detail(&mut detail);
        self.memory_detail(&mut detail);
        detail
    }

    fn pressure(&self, name: &str) -> Option<Pressure> {
        let (dir, _) = self.place("")?;
        parse::pressure(&file::read(dir, name).ok()?)
    }

    fn cpu_detail(&self, detail: &mut UsageDetail) {
        if let Some((dir, Version::V1)) = self.place("cpuacct") {
            let stat = file::read(dir, "cpuacct.stat").unwrap_or_default();
            let ticks = |key| find_key(&stat, key).map(|n| n.saturating_mul(NANOSECONDS_PER_TICK));
            (detail.cpu_user_ns, detail.cpu_system_ns) = (ticks("user"), ticks("system"));
        }
        let (dir, unit, throttled) = match (self.place("cpu"), self.place("")) {
            (Some((dir, Version::V1)), _) => (dir, 1, "throttled_time"),
            // v2 has the file in every cgroup, with or without the controller.
            (Some((dir, Version::V2)), _) | (None, Some((dir, _))) => (dir, 1000, "throttled_usec"),
            (None, None) => return,
        };
        let stat = file::read(dir, "cpu.stat").unwrap_or_default();
        let time = |key| find_key(&stat, key).map(|n| n.saturating_mul(unit));
        detail.cpu_periods = find_key(&stat, "nr_periods");
        detail.cpu_throttled_periods = find_key(&stat, "nr_throttled");
        detail.cpu_throttled_ns = time(throttled);
        detail.cpu_user_ns = detail.cpu_user_ns.or_else(|| time("user_usec"));
        detail.cpu_system_ns = detail.cpu_system_ns.or_else(|| time("system_usec"));
    }

    fn memory_detail(&self, detail: &mut UsageDetail) {
        let Some((dir, version)) = self.place("memory") else {
            return;
        };
        let stat = file::read(dir, "memory.stat").unwrap_or_default();
        let key = |v1, v2| find_key(&stat, if version == Version::V1 { v1 } else { v2 });
        detail.cache = key("total_cache", "file");
        detail.mapped_file = key("total_mapped_file", "file_mapped");
        detail.active_file = key("total_active_file", "active_file");
        detail.inactive_file = key("total_inactive_file", "inactive_file");
        if version == Version::V1 {
            detail.kernel_memory = number(dir, "memory.kmem.usage_in_bytes");
            detail.max_memory = number(dir, "memory.max_usage_in_bytes");
            detail.memory_fails = number(dir, "memory.failcnt");
        } else {
            detail.kernel_memory = find_key(&stat, "kernel");
            detail.max_memory = number(dir, "memory.peak");
            let events = file::read(dir, "memory.events").unwrap_or_default();
            detail.memory_fails = find_key(&events, "max");
        }
    }

    fn device_io(&self) -> Vec<DeviceIo> {
        if let Some((dir, Version::V1)) = self.place("blkio") {
            let name = |what| format!("blkio.throttle.{what}_recursive");
            let text = |what| file::read(dir, &name(what)).unwrap_or_default();
            return parse::blkio(&text("io_service_bytes"), &text("io_serviced"));
        }
        let Some((dir, _)) = self.place("") else {
            return Vec::new();
        };
        parse::io_stat(&file::read(dir, "io.stat").unwrap_or_default())
    }

    fn huge_pages(&self) -> Vec<(String, u64, Option<u64>)> {
        let Some((dir, version)) = self.place("hugetlb") else {
            return Vec::new();
        };
        let (usage, max) = match version {
            Version::V1 => (".usage_in_bytes", ".max_usage_in_bytes"),
            Version::V2 => (".current", ".peak"),
        };
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let sizes = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(usage)?;
            (!size.contains('.')).then(|| size.to_owned())
        });
        let mut found: Vec<_> = sizes
            .filter_map(|size| {
                let of = |what| number(dir, &format!("hugetlb.{size}{what}"));
                Some((of(usage)?, of(max))).map(|(used, most)| (size, used, most))
            })
            .collect();
        found.sort();
        found
    }
}

fn memory_v1(dir: &Path, usage: &mut Usage) {
    let stat = file::read(dir, "memory.stat").unwrap_or_default();
    usage.memory = number(dir, "memory.usage_in_bytes");
    usage.working_set = working_set(usage.memory, find_key(&stat, "total_inactive_file"));
    usage.rss = find_key(&stat, "total_rss");
    usage.page_faults = find_key(&stat, "total_pgfault");
    usage.major_page_faults = find_key(&stat, "total_pgmajfault");
    usage.memory_limit = limit(dir, "memory.limit_in_bytes");
    usage.swap = find_key(&stat, "total_swap");
    // Memory and swap together are limited.
    usage.swap_limit = limit(dir, "memory.memsw.limit_in_bytes")
        .zip(usage.memory_limit)
        .map(|(both, memory)| both.saturating_sub(memory));
}

fn memory_v2(dir: &Path, usage: &mut Usage) {
    let stat = file::read(dir, "memory.stat").unwrap_or_default();
    usage.memory = number(dir, "memory.current");
    usage.working_set = working_set(usage.memory, find_key(&stat, "inactive_file"));
    usage.rss = find_key(&stat, "anon");
    usage.page_faults = find_key(&stat, "pgfault");
    usage.major_page_faults = find_key(&stat, "pgmajfault");
    usage.memory_limit = limit(dir, "memory.max");
    usage.swap = number(dir, "memory.swap.current");
    usage.swap_limit = limit(dir, "memory.swap.max");
}

/// As every tool counts it: what could be dropped at once does not count.
fn working_set(usage: Option<u64>, inactive_file: Option<u64>) -> Option<u64> {
    usage.map(|usage| usage.saturating_sub(inactive_file.unwrap_or(0)))
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    file::read_number(dir, name).ok()
}

fn limit(dir: &Path, name: &str) -> Option<u64> {
    number(dir, name).filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn memory_of_v1_counts_what_is_below_and_knows_no_limit() {
        let dir = dir(&[
            ("memory.usage_in_bytes", "1000\n"),
            (
                "memory.stat",
                "rss 1\ninactive_file 2\ntotal_rss 300\ntotal_inactive_file 400\ntotal_pgfault 7\n",
            ),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let mut usage = Usage::default();
        memory_v1(dir.path(), &mut usage);
        assert_eq!((usage.memory, usage.working_set), (Some(1000), Some(600)));
        assert_eq!((usage.rss, usage.page_faults), (Some(300), Some(7)));
        assert_eq!((usage.memory_limit, usage.swap_limit), (None, None));
    }

    #[test]
    fn memory_of_v2_knows_swap_by_itself() {
        let dir = dir(&[
            ("memory.current", "1000\n"),
            (
                "memory.stat",
                "anon 300\ninactive_file 1400\npgmajfault 2\n",
            ),
            ("memory.max", "4096\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "max\n"),
        ]);
        let mut usage = Usage::default();
        memory_v2(dir.path(), &mut usage);
        assert_eq!((usage.memory, usage.working_set), (Some(1000), Some(0)));
        assert_eq!((usage.rss, usage.memory_limit), (Some(300), Some(4096)));
        assert_eq!((usage.swap, usage.swap_limit), (Some(5), None));
    }

    #[test]
    fn a_cgroup_that_is_gone_uses_nothing_that_is_known() {
        let none = Cgroup::none();
        assert_eq!(none.usage(), Usage::default());
        assert_eq!(none.usage_detail(), UsageDetail::default());
    }
}
