//! `features`: <https://github.com/opencontainers/runtime-spec/blob/main/features.md>.
use serde_json::json;
use sys::seccomp::FilterFlags;

use crate::cli::print;
use crate::error::{Error, Result};
use crate::plan::execution;
use crate::seccomp;

/// Mount options that this runtime acts upon.
const MOUNT_OPTIONS: &str = "acl async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec idmap iversion \
    lazytime loud mand noacl noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
    nostrictatime nosuid nosymfollow private rasync ratime rbind rdev rdiratime rdirsync relatime \
    remount rexec ridmap rmand rnoatime rnodev rnodiratime rnoexec rnomand rnorelatime rnostrictatime \
    rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
    rsync runbindable rw shared silent slave src-nofollow strictatime suid symfollow sync tmpcopyup \
    unbindable";

/// `linux.seccomp`: all that the compiler knows, and of the flags those that this kernel knows as well.
fn seccomp_features() -> serde_json::Value {
    let mut archs: Vec<_> = seccomp::arch::ARCHS.iter().map(|arch| arch.name).collect();
    archs.sort_unstable();
    let supported = |(_, flag): &&(&str, FilterFlags)| {
        // Without a listener the kernel refuses this one, known or not.
        let listener = match *flag {
            FilterFlags::WAIT_KILLABLE_RECV => FilterFlags::NEW_LISTENER,
            _ => FilterFlags::empty(),
        };
        sys::seccomp::knows_flags(*flag | listener)
    };
    json!({
        "enabled": true,
        "actions": seccomp::action::NAMES.map(|(name, _)| name),
        "operators": seccomp::OPERATORS.map(|(name, _)| name),
        "archs": archs,
        "knownFlags": seccomp::FLAGS.map(|(name, _)| name),
        "supportedFlags": seccomp::FLAGS.iter().filter(supported).map(|(name, _)| *name).collect::<Vec<_>>(),
    })
}
/// The version of runc whose command line and configuration this runtime has.
const MOST_LIKE_RUNC: &str = "1.5.0";

/// Annotations that change what the runtime does, for callers that pass on those of others.
const UNSAFE_ANNOTATIONS: &[&str] = &[
    "org.criu.config",
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.mount_context_type",
];

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
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": seccomp_features(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": execution::memory_policy_modes().collect::<Vec<_>>(),
                "flags": execution::memory_policy_flags().collect::<Vec<_>>()
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {
            "dev.davit.oci.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.version": MOST_LIKE_RUNC
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS
    });
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&document, &mut serializer)
        .map_err(|error| Error::new(error.to_string()))?;
    print(&(String::from_utf8_lossy(&text).into_owned() + "\n"))?;
    Ok(0)
}
