//! What a process that `exec` adds has as the container's own process has it, unless it says something else.
use super::ExecutionPlan;
use crate::spec::{CpuAffinity, IoPriority, Process, Scheduler};

/// The part of the configuration that outlives `create`, for `exec`.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExecDefaults {
    /// Always as the container has it: nothing of a process speaks of it.
    pub execution: ExecutionPlan,
    /// `process.apparmorProfile`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// `process.selinuxLabel`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// `process.scheduler`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// `process.ioPriority`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// `process.execCPUAffinity`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<CpuAffinity>,
}

impl ExecDefaults {
    /// Keeps what `exec` will need.
    pub fn new(process: &Process, execution: ExecutionPlan) -> Self {
        Self {
            execution,
            apparmor_profile: process.apparmor_profile.clone(),
            selinux_label: process.selinux_label.clone(),
            scheduler: process.scheduler.clone(),
            io_priority: process.io_priority.clone(),
            affinity: process.exec_cpu_affinity.clone(),
        }
    }

    /// Fills in what `process` leaves open.
    pub fn complete(&self, process: &mut Process) {
        for (value, default) in [
            (&mut process.apparmor_profile, &self.apparmor_profile),
            (&mut process.selinux_label, &self.selinux_label),
        ] {
            if value.is_empty() {
                value.clone_from(default);
            }
        }
        process.scheduler = process.scheduler.take().or_else(|| self.scheduler.clone());
        process.io_priority = process
            .io_priority
            .take()
            .or_else(|| self.io_priority.clone());
        process
            .exec_cpu_affinity
            .take_if(|one| *one == CpuAffinity::default());
        process.exec_cpu_affinity = process
            .exec_cpu_affinity
            .take()
            .or_else(|| self.affinity.clone());
    }
}
