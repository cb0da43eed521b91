//! What a container uses, in the document that `events` prints: runc's names, its order, and its habit of leaving out
//! what is zero.
mod parse;
mod rdt;
mod read;

use std::collections::BTreeMap;

use serde::Serialize;

pub use parse::{BlkioEntry, NetworkInterface, Psi};
pub use read::read;

/// Every parser of this module on one text, for the fuzz target `cgroup_files`.
#[cfg(fuzzing)]
pub fn parse_everything(text: &str) {
    drop((parse::psi(text), parse::keyed(text), parse::numbers(text)));
    drop((parse::list(text), parse::per_cpu(text), parse::blkio(text)));
    drop((
        parse::io_stat(text),
        parse::page_size(text),
        parse::interfaces(text),
    ));
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: rdt::IntelRdt,
    network_interfaces: Option<Vec<NetworkInterface>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Cpu {
    #[serde(skip_serializing_if = "unset")]
    usage: CpuUsage,
    #[serde(skip_serializing_if = "unset")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "unset")]
    psi: Option<Psi>,
}

/// In nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "unset")]
    total: u64,
    #[serde(skip_serializing_if = "unset")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "unset")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "unset")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "unset")]
    periods: u64,
    #[serde(skip_serializing_if = "unset")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "unset")]
    throttled_time: u64,
}

/// Of cgroup v1 alone, as in runc.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "unset")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "unset")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "unset")]
    cache: u64,
    #[serde(skip_serializing_if = "unset")]
    usage: MemoryEntry,
    #[serde(skip_serializing_if = "unset")]
    swap: MemoryEntry,
    #[serde(skip_serializing_if = "unset")]
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "unset")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "unset")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "unset")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "unset")]
    usage: u64,
    #[serde(skip_serializing_if = "unset")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "unset")]
    current: u64,
    #[serde(skip_serializing_if = "unset")]
    limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "unset")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "unset")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "unset")]
    usage: u64,
    #[serde(skip_serializing_if = "unset")]
    max: u64,
    failcnt: u64,
}

/// Whether Go would leave it out.
fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
