//! What the host allows: looked up once, when the engine opens.

use std::fs;

use oci_spec::runtime::{Capability, LinuxDevice, LinuxDeviceCgroup};
use sys::cgroup::{Hierarchies, Mode};

use super::{capabilities, devices};
use crate::error::{Error, Result};

/// Facts about the host that a container's configuration depends on.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Whether only cgroup v2 is there.
    pub(crate) unified: bool,
    /// Whether huge pages can be limited.
    pub(crate) hugetlb: bool,
    /// The capabilities that the engine has and can give.
    pub(crate) capabilities: Vec<Capability>,
    /// The engine's own `oom_score_adj`; without `CAP_SYS_RESOURCE` a container cannot get a lower one.
    pub(crate) oom_score_adj: i64,
    /// The engine's hard limit of open files.
    pub(crate) nofile_hard: u64,
    /// Whether AppArmor is enabled.
    pub(crate) apparmor: bool,
    /// Whether SELinux is enabled.
    pub(crate) selinux: bool,
}

impl Host {
    /// Asks the kernel.
    pub(crate) fn detect(hierarchies: &Hierarchies) -> Result<Self> {
        let status = read("/proc/self/status")?;
        let limits = read("/proc/self/limits")?;
        let oom = read("/proc/self/oom_score_adj")?;
        let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Ok(Self {
            unified: hierarchies.mode() == Mode::V2,
            hugetlb: hierarchies.controllers().contains(&"hugetlb"),
            capabilities: capabilities::effective(&status),
            oom_score_adj: oom.trim().parse().unwrap_or(0),
            nofile_hard: hard_limit(&limits, "Max open files").unwrap_or(1024),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            apparmor: apparmor.is_ok_and(|text| text.trim() == "Y"),
        })
    }

    /// Whether the engine has `capability`.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Every device node of the host, for privileged containers. Read each time: devices come and go.
    pub(crate) fn devices() -> Vec<(LinuxDevice, LinuxDeviceCgroup)> {
        devices::of_host(std::path::Path::new("/dev"))
    }
}

fn read(path: &'static str) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// The hard limit `name` of `/proc/self/limits`.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with(name))?;
    let mut words = line[name.len()..].split_whitespace();
    match words.nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::hard_limit;

    #[test]
    fn the_hard_limit_is_the_second_number_of_its_line() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(hard_limit(text, "Max open files"), Some(524_288));
        assert_eq!(hard_limit(text, "Max locked memory"), Some(u64::MAX));
        assert_eq!(hard_limit(text, "Max nothing"), None);
    }
}
