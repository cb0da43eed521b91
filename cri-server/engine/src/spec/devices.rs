//! Device nodes: those that are asked for, and all of the host's for privileged containers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::Input;
use crate::error::{Error, Result};
use crate::model::Device;

/// Directories of `/dev` that are no devices of the host, or mounts of each container's own.
const SKIPPED: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "console",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];

/// Looks the request's devices up on the host. A directory stands for the devices in it.
pub(crate) fn resolve(devices: &[Device]) -> Result<Vec<(LinuxDevice, LinuxDeviceCgroup)>> {
    let mut all = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let field = format!("devices[{index}]");
        let access = permissions(&device.permissions, &field)?;
        let host = fs::canonicalize(&device.host_path).map_err(|source| Error::Io {
            action: "find the device",
            path: PathBuf::from(&device.host_path),
            source,
        })?;
        let target = match device.container_path.as_str() {
            "" => device.host_path.as_str(),
            path => path,
        };
        if host.is_dir() {
            all.extend(in_directory(&host, Path::new(target), access));
        } else {
            let node = node(&host, Path::new(target), access).ok_or_else(|| {
                Error::invalid(
                    format!("{field}.host_path"),
                    format!("{} is no device", host.display()),
                )
            })?;
            all.push(node);
        }
    }
    Ok(all)
}

/// Every device below `dev`, with every right.
pub(crate) fn of_host(dev: &Path) -> Vec<(LinuxDevice, LinuxDeviceCgroup)> {
    in_directory(dev, dev, "rwm")
}

/// The `linux.devices` of `config.json`.
pub(crate) fn nodes(input: &Input<'_>) -> Vec<LinuxDevice> {
    input.devices.iter().map(|(node, _)| node.clone()).collect()
}

/// The devices in a directory and below it; what cannot be read is none.
fn in_directory(host: &Path, target: &Path, access: &str) -> Vec<(LinuxDevice, LinuxDeviceCgroup)> {
    let Ok(entries) = fs::read_dir(host) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                all.extend(in_directory(&path, &target.join(&name), access));
            }
        } else if name != "console" && (kind.is_char_device() || kind.is_block_device()) {
            all.extend(node(&path, &target.join(&name), access));
        }
    }
    all
}

/// The device node `host`, and the rule that lets a container use it.
fn node(host: &Path, target: &Path, access: &str) -> Option<(LinuxDevice, LinuxDeviceCgroup)> {
    let meta = fs::metadata(host).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let numbers = (
        i64::try_from(major(meta.rdev())).ok()?,
        i64::try_from(minor(meta.rdev())).ok()?,
    );
    let mut device = LinuxDevice::default();
    device.set_path(target.to_owned());
    device.set_typ(kind);
    device.set_major(numbers.0);
    device.set_minor(numbers.1);
    device.set_file_mode(Some(meta.mode() & 0o7777));
    device.set_uid(Some(meta.uid()));
    device.set_gid(Some(meta.gid()));
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind));
    rule.set_major(Some(numbers.0));
    rule.set_minor(Some(numbers.1));
    rule.set_access(Some(access.to_owned()));
    Some((device, rule))
}

/// Of `r`, `w` and `m`; empty means all of them.
fn permissions<'a>(text: &'a str, field: &str) -> Result<&'a str> {
    if text.chars().any(|one| !"rwm".contains(one)) {
        return Err(Error::invalid(
            format!("{field}.permissions"),
            format!("{text:?}: only r, w and m are known"),
        ));
    }
    Ok(if text.is_empty() { "rwm" } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_looked_up_with_its_numbers_and_rights() {
        let asked = Device {
            container_path: "/dev/nil".into(),
            host_path: "/dev/null".into(),
            permissions: "rw".into(),
        };
        let found = resolve(&[asked]).expect("found");
        let (node, rule) = &found[0];
        assert_eq!(
            (node.path().as_path(), node.major(), node.minor()),
            (Path::new("/dev/nil"), 1, 3)
        );
        assert_eq!(rule.access().as_deref(), Some("rw"));
        assert!(rule.allow());
    }

    #[test]
    fn what_is_no_device_is_refused_by_its_field() {
        let asked = |host: &str, rights: &str| {
            resolve(&[Device {
                container_path: String::new(),
                host_path: host.into(),
                permissions: rights.into(),
            }])
            .expect_err("refused")
            .report()
        };
        assert!(
            asked("/etc/passwd", "r").contains("devices[0].host_path: /etc/passwd is no device")
        );
        assert!(asked("/dev/null", "rx").contains("devices[0].permissions"));
        assert!(asked("/dev/there-is-none", "r").contains("/dev/there-is-none"));
    }
}
