//! The device nodes of the container.
use std::path::PathBuf;

use nix::sys::stat::SFlag;

use super::Problems;
use super::mounts::clean_absolute;
use crate::spec;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// Where, absolute and without `..`.
    pub path: PathBuf,
    /// What kind of node.
    pub kind: SFlag,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Permissions.
    pub mode: u32,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
}

/// The devices that every container has, <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>.
const DEFAULT: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Decides on the nodes: the default ones, and those of the spec, which win.
pub fn plan(devices: &[spec::Device], problems: &mut Problems) -> Vec<DevicePlan> {
    let default = |(path, major, minor): (&str, u64, u64)| DevicePlan {
        path: PathBuf::from(path),
        kind: SFlag::S_IFCHR,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let mut plan: Vec<DevicePlan> = DEFAULT.into_iter().map(default).collect();
    for (index, device) in devices.iter().enumerate() {
        let Some(one) = one(device, &format!("linux.devices[{index}]"), problems) else {
            continue;
        };
        match plan.iter_mut().find(|known| known.path == one.path) {
            Some(known) => *known = one,
            None => plan.push(one),
        }
    }
    plan
}

fn one(device: &spec::Device, field: &str, problems: &mut Problems) -> Option<DevicePlan> {
    let kind = match device.kind.as_str() {
        "c" | "u" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        other => {
            problems.push(
                format!("{field}.type"),
                format!("invalid device type {other:?}"),
            );
            return None;
        }
    };
    if !device.path.starts_with('/') || device.path.contains('\0') {
        problems.push(
            format!("{field}.path"),
            format!("{:?} is not an absolute path", device.path),
        );
        return None;
    }
    // The kernel has 12 bits for the major and 20 for the minor number.
    let number = |value: i64, limit: u64| u64::try_from(value).ok().filter(|value| *value < limit);
    let numbers = if kind == SFlag::S_IFIFO {
        Some((0, 0))
    } else {
        number(device.major, 1 << 12).zip(number(device.minor, 1 << 20))
    };
    let Some((major, minor)) = numbers else {
        problems.push(
            field,
            format!("no such device number {}:{}", device.major, device.minor),
        );
        return None;
    };
    // Callers pass the whole st_mode; only the permissions are ours to set.
    let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    Some(DevicePlan {
        path: clean_absolute(device.path.as_ref()),
        kind,
        major,
        minor,
        mode,
        uid,
        gid,
    })
}
