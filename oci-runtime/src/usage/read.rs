//! From the files of the cgroup to [`Stats`]. A file that is missing leaves its numbers at zero: which are there
//! depends on the kernel, on its version of cgroups, and on what is delegated.
use std::path::Path;

use sys::cgroup::{Cgroup, Version};

use super::parse;
use super::{
    Blkio, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Psi, Stats, Throttling,
};
use crate::state::State;

/// v1 counts CPU time in these (USER_HZ, the same on every Linux that Rust runs on).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Reads everything.
pub fn read(state: &State, cgroup: &Cgroup) -> Stats {
    let own_network = state.namespaces & nix::libc::CLONE_NEWNET != 0;
    Stats {
        cpu: cpu(cgroup),
        cpuset: cpuset(cgroup),
        memory: memory(cgroup),
        pids: pids(cgroup),
        blkio: blkio(cgroup),
        hugetlb: hugetlb(cgroup),
        intel_rdt: super::rdt::read(state.rdt.as_ref()),
        network_interfaces: own_network
            .then(|| std::fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).ok())
            .flatten()
            .and_then(|text| parse::interfaces(&text)),
    }
}

fn text(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name)).ok()
}

/// A number; `max` is the largest.
fn number(dir: &Path, name: &str) -> Option<u64> {
    match text(dir, name)?.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn or_zero(dir: &Path, name: &str) -> u64 {
    number(dir, name).unwrap_or(0)
}

/// Where v1 has this controller.
fn v1<'a>(cgroup: &'a Cgroup, controller: &str) -> Option<&'a Path> {
    let (dir, version) = cgroup.place(controller)?;
    (version == Version::V1).then_some(dir)
}

/// The v2 cgroup, whatever its controllers.
fn v2(cgroup: &Cgroup) -> Option<&Path> {
    cgroup.place("").map(|(dir, _)| dir)
}

fn psi(cgroup: &Cgroup, name: &str) -> Option<Psi> {
    v2(cgroup)
        .and_then(|dir| text(dir, name))
        .map(|text| parse::psi(&text))
}

fn cpu(cgroup: &Cgroup) -> Cpu {
    let mut cpu = Cpu {
        psi: psi(cgroup, "cpu.pressure"),
        ..Cpu::default()
    };
    if let Some(dir) = v1(cgroup, "cpuacct") {
        let stat = parse::keyed(&text(dir, "cpuacct.stat").unwrap_or_default());
        let ticks = |key: &str| {
            let ticks = stat.get(key).copied().unwrap_or(0);
            ticks.saturating_mul(NANOSECONDS_PER_TICK)
        };
        let all = text(dir, "cpuacct.usage_all").unwrap_or_default();
        let (percpu_user, percpu_kernel) = parse::per_cpu(&all);
        cpu.usage = CpuUsage {
            total: or_zero(dir, "cpuacct.usage"),
            percpu: parse::numbers(&text(dir, "cpuacct.usage_percpu").unwrap_or_default()),
            percpu_kernel,
            percpu_user,
            kernel: ticks("system"),
            user: ticks("user"),
        };
    }
    let (dir, unit, throttled) = match (v1(cgroup, "cpu"), v2(cgroup)) {
        (Some(dir), _) => (dir, 1, "throttled_time"),
        (None, Some(dir)) => (dir, 1000, "throttled_usec"),
        (None, None) => return cpu,
    };
    let stat = parse::keyed(&text(dir, "cpu.stat").unwrap_or_default());
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    let time = |key: &str| value(key).saturating_mul(unit);
    cpu.throttling = Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: time(throttled),
    };
    if v1(cgroup, "cpuacct").is_none() {
        cpu.usage = CpuUsage {
            total: time("usage_usec"),
            kernel: time("system_usec"),
            user: time("user_usec"),
            ..CpuUsage::default()
        };
    }
    cpu
}

fn cpuset(cgroup: &Cgroup) -> Cpuset {
    let Some(dir) = v1(cgroup, "cpuset") else {
        return Cpuset::default();
    };
    let flag = |name: &str| or_zero(dir, &format!("cpuset.{name}"));
    let list = |name: &str| parse::list(text(dir, name).unwrap_or_default().trim());
    let level = text(dir, "cpuset.sched_relax_domain_level").unwrap_or_default();
    Cpuset {
        cpus: list("cpuset.cpus"),
        cpu_exclusive: flag("cpu_exclusive"),
        mems: list("cpuset.mems"),
        mem_hardwall: flag("mem_hardwall"),
        mem_exclusive: flag("mem_exclusive"),
        memory_migrate: flag("memory_migrate"),
        memory_spread_page: flag("memory_spread_page"),
        memory_spread_slab: flag("memory_spread_slab"),
        memory_pressure: flag("memory_pressure"),
        sched_load_balance: flag("sched_load_balance"),
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    }
}

fn memory(cgroup: &Cgroup) -> Memory {
    let psi = psi(cgroup, "memory.pressure");
    let Some((dir, version)) = cgroup.place("memory") else {
        return Memory {
            psi,
            ..Memory::default()
        };
    };
    let raw = parse::keyed(&text(dir, "memory.stat").unwrap_or_default());
    let cache = |key: &str| raw.get(key).copied().unwrap_or(0);
    if version == Version::V2 {
        let (usage, swap) = memory_v2(dir);
        return Memory {
            cache: cache("file"),
            usage,
            swap,
            psi,
            raw,
            ..Memory::default()
        };
    }
    Memory {
        cache: cache("cache"),
        usage: memory_v1(dir, "memory"),
        swap: memory_v1(dir, "memory.memsw"),
        kernel: memory_v1(dir, "memory.kmem"),
        kernel_tcp: memory_v1(dir, "memory.kmem.tcp"),
        psi,
        raw,
    }
}

fn memory_v1(dir: &Path, name: &str) -> MemoryEntry {
    let value = |file: &str| or_zero(dir, &format!("{name}.{file}"));
    MemoryEntry {
        limit: value("limit_in_bytes"),
        usage: value("usage_in_bytes"),
        max: value("max_usage_in_bytes"),
        failcnt: value("failcnt"),
    }
}

/// Memory, and as on v1 memory and swap together, whose maximum nobody knows.
fn memory_v2(dir: &Path) -> (MemoryEntry, MemoryEntry) {
    let entry = |name: &str| MemoryEntry {
        limit: or_zero(dir, &format!("{name}.max")),
        usage: or_zero(dir, &format!("{name}.current")),
        max: or_zero(dir, &format!("{name}.peak")),
        failcnt: 0,
    };
    let (usage, swap) = (entry("memory"), entry("memory.swap"));
    let both = MemoryEntry {
        limit: usage.limit.saturating_add(swap.limit),
        usage: usage.usage.saturating_add(swap.usage),
        ..MemoryEntry::default()
    };
    (usage, both)
}

fn pids(cgroup: &Cgroup) -> Pids {
    let counted = cgroup
        .place("pids")
        .and_then(|(dir, _)| Some((number(dir, "pids.current")?, or_zero(dir, "pids.max"))));
    match counted {
        // "No limit" is 0.
        Some((current, limit)) => Pids {
            current,
            limit: if limit == u64::MAX { 0 } else { limit },
        },
        None => Pids {
            current: u64::try_from(cgroup.processes().unwrap_or_default().len()).unwrap_or(0),
            limit: 0,
        },
    }
}

fn blkio(cgroup: &Cgroup) -> Blkio {
    let mut blkio = Blkio {
        psi: psi(cgroup, "io.pressure"),
        ..Blkio::default()
    };
    let Some(dir) = v1(cgroup, "blkio") else {
        let stat = v2(cgroup).and_then(|dir| text(dir, "io.stat"));
        let (bytes, operations) = parse::io_stat(&stat.unwrap_or_default());
        blkio.io_service_bytes_recursive = bytes;
        blkio.io_serviced_recursive = operations;
        return blkio;
    };
    // Of the schedulers' files those that count more come first; a kernel has one set or another.
    for prefix in ["blkio.bfq.", "blkio."] {
        let entries =
            |name: &str| text(dir, &format!("{prefix}{name}")).map(|text| parse::blkio(&text));
        let of = |name: &str| entries(name).unwrap_or_default();
        let detailed = entries("sectors_recursive").filter(|all| !all.is_empty());
        let served = entries("io_serviced_recursive").filter(|all| !all.is_empty());
        if let Some(sectors) = detailed {
            blkio.sectors_recursive = sectors;
            blkio.io_service_time_recursive = of("io_service_time_recursive");
            blkio.io_wait_time_recursive = of("io_wait_time_recursive");
            blkio.io_merged_recursive = of("io_merged_recursive");
            blkio.io_queue_recursive = of("io_queued_recursive");
            blkio.io_time_recursive = of("time_recursive");
        }
        if let Some(served) = served {
            blkio.io_serviced_recursive = served;
            blkio.io_service_bytes_recursive = of("io_service_bytes_recursive");
            return blkio;
        }
    }
    for suffix in ["_recursive", ""] {
        let entries = |name: &str| text(dir, &format!("blkio.throttle.{name}{suffix}"));
        if let Some(served) = entries("io_serviced") {
            let bytes = entries("io_service_bytes").unwrap_or_default();
            blkio.io_serviced_recursive = parse::blkio(&served);
            blkio.io_service_bytes_recursive = parse::blkio(&bytes);
            return blkio;
        }
    }
    blkio
}

fn hugetlb(cgroup: &Cgroup) -> std::collections::BTreeMap<String, Hugetlb> {
    let (Some((dir, version)), Ok(sizes)) = (
        cgroup.place("hugetlb"),
        std::fs::read_dir("/sys/kernel/mm/hugepages"),
    ) else {
        return std::collections::BTreeMap::new();
    };
    sizes
        .flatten()
        .filter_map(|entry| parse::page_size(entry.file_name().to_str()?))
        .filter_map(|size| Some((size.clone(), huge_pages(dir, version, &size)?)))
        .collect()
}

/// Reservations where the kernel counts them, else use.
fn huge_pages(dir: &Path, version: Version, size: &str) -> Option<Hugetlb> {
    let of = |name: &str| {
        let reserved = number(dir, &format!("hugetlb.{size}.rsvd.{name}"));
        reserved.or_else(|| number(dir, &format!("hugetlb.{size}.{name}")))
    };
    if version == Version::V1 {
        return Some(Hugetlb {
            usage: of("usage_in_bytes")?,
            max: of("max_usage_in_bytes").unwrap_or(0),
            failcnt: of("failcnt").unwrap_or(0),
        });
    }
    let events = text(dir, &format!("hugetlb.{size}.events")).unwrap_or_default();
    Some(Hugetlb {
        usage: of("current")?,
        max: 0,
        failcnt: parse::keyed(&events).get("max").copied().unwrap_or(0),
    })
}
