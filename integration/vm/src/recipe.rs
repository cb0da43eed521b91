//! What the image is made of. Any change here or in `guest/` makes a new image.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Where the packages come from; debootstrap verifies their signatures.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// What is wanted; debootstrap adds what these need, and the base system.
pub(crate) const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "systemd",
    "systemd-sysv",
    "dbus",
    "apparmor",
    "kmod",
    "busybox-static",
    "procps",
    "iproute2",
    "nftables",
    "iptables",
    "strace",
    "time",
    "uidmap",
    "runc",
    "crun",
    "criu",
    // What the suites of the CRI server take for a registry and its images.
    "docker-registry",
    "skopeo",
    "nginx",
];

/// What debootstrap adds and the guest has no use for: package management, the distribution's initramfs, udev (half
/// of a boot's time), and the interpreters of programs that nobody calls here. Names that begin so are left out.
pub(crate) const LEFT_OUT: &[&str] = &[
    "apt",
    "libapt-pkg",
    "dpkg",
    "debconf",
    "debian-archive-keyring",
    "gpgv",
    "perl-base",
    "python3",
    "libpython3",
    "media-types",
    "tzdata",
    "udev",
    "initramfs-tools",
    "klibc-utils",
    // Not those of newer kernels, linux-base-VERSION: they have the lists of modules.
    "linux-base_",
];

/// Paths that are not unpacked, as patterns of tar.
pub(crate) const NOT_UNPACKED: &[&str] = &[
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/bash-completion/*",
    "./usr/share/zsh/*",
    "./boot/System.map-*",
];

/// Modules that the initramfs loads: the root disk, and the ports that the agent speaks through.
pub(crate) const EARLY_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "ext4",
];

/// Units of a normal boot that stay; the others serve logins, real hardware and long lives.
pub(crate) const BOOT_UNITS: &[&str] =
    &["systemd-journald.service", "systemd-tmpfiles-setup.service"];

/// Files of the guest as they are.
pub(crate) const INITRAMFS_INIT: &str = include_str!("../guest/init");
pub(crate) const AGENT: &str = include_str!("../guest/agent");
pub(crate) const FILES: &[(&str, &str)] = &[
    (
        "etc/systemd/system/davit-vm.target",
        include_str!("../guest/davit-vm.target"),
    ),
    (
        "etc/systemd/system/davit-vm.service",
        include_str!("../guest/davit-vm.service"),
    ),
    (
        "etc/systemd/journald.conf.d/davit-vm.conf",
        "[Journal]\nStorage=volatile\n",
    ),
    ("etc/machine-id", "d0d0cafed0d0cafed0d0cafed0d0cafe\n"),
    ("etc/hostname", "davit-vm\n"),
    ("etc/hosts", "127.0.0.1 localhost davit-vm\n"),
    ("etc/subuid", "tester:100000:65536\n"),
    ("etc/subgid", "tester:100000:65536\n"),
];

/// Users beside those of Debian's base-passwd: the bus's, and one for tests without root.
pub(crate) const USERS: &str = "messagebus:x:900:900::/nonexistent:/usr/sbin/nologin\ntester:x:1000:1000::/home/tester:/bin/sh\n";
/// Their groups.
pub(crate) const GROUPS: &str = "messagebus:x:900:\ntester:x:1000:\n";

/// Bytes of the root disk; a sparse file.
pub(crate) const DISK_SIZE: &str = "4g";

/// Which Debian: its kernel, its systemd, its runc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12: Linux 6.1, systemd 252, the last with cgroup v1.
    Bookworm,
    /// Debian 13: Linux 6.12, systemd 257.
    Trixie,
    /// The next Debian, as it is today.
    Forky,
}

// === impl Suite ===

impl Suite {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Forky];

    /// As Debian's archive calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// Names the image: the same as long as the recipe is.
    pub(crate) fn key(self) -> String {
        let mut hasher = DefaultHasher::new();
        (
            MIRROR,
            PACKAGES,
            LEFT_OUT,
            NOT_UNPACKED,
            EARLY_MODULES,
            BOOT_UNITS,
        )
            .hash(&mut hasher);
        (INITRAMFS_INIT, AGENT, FILES, USERS, GROUPS, DISK_SIZE).hash(&mut hasher);
        include_str!("image.rs").hash(&mut hasher);
        format!("{}-{:016x}", self.name(), hasher.finish())
    }
}
