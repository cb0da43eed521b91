//! `spec`: a `config.json` to start from, byte for byte what runc writes.
use std::path::Path;

use crate::cli::flags::Parsed;
use crate::error::{Error, Result};

/// `spec`
///
/// # Errors
/// There is one already.
pub fn run(parsed: &Parsed) -> Result<u8> {
    let path = Path::new(parsed.get("bundle").unwrap_or(".")).join("config.json");
    let text = document(parsed.is_on("rootless"), unified());
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).open(&path);
    match file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new("file config.json exists. Remove it first"))
        }
        Err(error) => Err(sys::Error::from_io(&error, format!("write({path:?})")).into()),
    }
}

/// Whether this host has cgroup v2 alone: then a cgroup namespace is of use.
fn unified() -> bool {
    nix::sys::statfs::statfs("/sys/fs/cgroup")
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

/// The document: the template with what depends on the host and on `--rootless`.
fn document(rootless: bool, unified: bool) -> String {
    let kinds = ["pid", "network", "ipc", "uts", "mount"]
        .into_iter()
        .filter(|kind| !rootless || *kind != "network")
        .chain(unified.then_some("cgroup"))
        .chain(rootless.then_some("user"));
    let namespaces: Vec<String> = kinds
        .map(|kind| format!("\n\t\t\t{{\n\t\t\t\t\"type\": \"{kind}\"\n\t\t\t}}"))
        .collect();
    let (sys, terminal_group, resources, maps) = if rootless {
        (SYS_OF_HOST, "", "", maps())
    } else {
        (SYS, ",\n\t\t\t\t\"gid=5\"", RESOURCES, String::new())
    };
    TEMPLATE
        .replace("@VERSION", super::SPEC_VERSION)
        .replace("@GID", terminal_group)
        .replace("@SYS", sys)
        .replace("@MAPS", &maps)
        .replace("@RESOURCES", resources)
        .replace("@NAMESPACES", &namespaces.join(","))
}

/// The caller as the container's root.
fn maps() -> String {
    let map = |field: &str, id: u32| {
        format!(
            "\n\t\t\"{field}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],"
        )
    };
    map("uidMappings", nix::unistd::geteuid().as_raw())
        + &map("gidMappings", nix::unistd::getegid().as_raw())
}

const SYS: &str = r#"		{
			"destination": "/sys",
			"type": "sysfs",
			"source": "sysfs",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},"#;

const SYS_OF_HOST: &str = r#"		{
			"destination": "/sys",
			"type": "none",
			"source": "/sys",
			"options": [
				"rbind",
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},"#;

const RESOURCES: &str = r#"
		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},"#;

const TEMPLATE: &str = r#"{
	"ociVersion": "@VERSION",
	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "runc",
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620"@GID
			]
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
@SYS
		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],
	"linux": {@MAPS@RESOURCES
		"namespaces": [@NAMESPACES
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn each_document_is_one_that_this_runtime_takes() {
        for (rootless, unified) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = document(rootless, unified);
            assert!(!text.contains('@'), "{text}");
            let spec: crate::spec::Spec = serde_json::from_str(&text).unwrap();
            Plan::new("x", Path::new("/bundle"), &spec).unwrap();
        }
    }
}
