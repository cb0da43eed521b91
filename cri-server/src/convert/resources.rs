//! Limits: the same fields on both sides.

use engine::model::{HugepageLimit, Resources};
use proto::runtime::v1;

pub(crate) fn from(from: v1::LinuxContainerResources) -> Resources {
    let hugepage = |h: v1::HugepageLimit| HugepageLimit {
        page_size: h.page_size,
        limit: h.limit,
    };
    Resources {
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit_in_bytes: from.memory_limit_in_bytes,
        oom_score_adj: from.oom_score_adj,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        hugepage_limits: from.hugepage_limits.into_iter().map(hugepage).collect(),
        unified: from.unified,
        memory_swap_limit_in_bytes: from.memory_swap_limit_in_bytes,
    }
}

pub(crate) fn into(from: Resources) -> v1::LinuxContainerResources {
    let hugepage = |h: HugepageLimit| v1::HugepageLimit {
        page_size: h.page_size,
        limit: h.limit,
    };
    v1::LinuxContainerResources {
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit_in_bytes: from.memory_limit_in_bytes,
        oom_score_adj: from.oom_score_adj,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        hugepage_limits: from.hugepage_limits.into_iter().map(hugepage).collect(),
        unified: from.unified,
        memory_swap_limit_in_bytes: from.memory_swap_limit_in_bytes,
    }
}
