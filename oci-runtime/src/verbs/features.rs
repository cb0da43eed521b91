//! `features`: <https://github.com/opencontainers/runtime-spec/blob/main/features.md>.
use serde_json::json;

use crate::cli::print;
use crate::error::{Error, Result};

/// Mount options that this runtime acts upon.
const MOUNT_OPTIONS: &str = "acl async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec idmap iversion \
    lazytime loud mand noacl noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
    nostrictatime nosuid nosymfollow private rasync ratime rbind rdev rdiratime rdirsync relatime \
    remount rexec ridmap rmand rnoatime rnodev rnodiratime rnoexec rnomand rnorelatime rnostrictatime \
    rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
    rsync runbindable rw shared silent slave src-nofollow strictatime suid symfollow sync tmpcopyup \
    unbindable";

/// `features`
///
/// # Errors
/// stdout cannot be written.
pub fn run() -> Result<u8> {
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS.split_whitespace().collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": sys::creds::CAPABILITY_NAMES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false},
            "seccomp": {"enabled": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false}
        },
        "annotations": {"dev.davit.oci.version": env!("CARGO_PKG_VERSION")}
    });
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&document, &mut serializer)
        .map_err(|error| Error::new(error.to_string()))?;
    print(&(String::from_utf8_lossy(&text).into_owned() + "\n"))?;
    Ok(0)
}
