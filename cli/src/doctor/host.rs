//! Probes of the host around the kernel: privileges, cgroups, disk, links, files.

use std::fs;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use sys::cgroup::{Hierarchies, Mode, Version};

use super::Finding;
use super::Finding::{Absent, Present, Unknown};
use crate::daemon;
use crate::format::size;
use crate::node::Node;

/// What making any container takes.
const NEEDED: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
];

/// Below this a pull of an ordinary image may not fit.
const ROOM: u64 = 2_000_000_000;

pub(super) fn root(_: &Node) -> Finding {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        Present(String::new())
    } else {
        Absent(format!("this is user {uid}: run it as root"))
    }
}

pub(super) fn required_capabilities(_: &Node) -> Finding {
    held(|one| NEEDED.contains(&one))
}

pub(super) fn other_capabilities(_: &Node) -> Finding {
    held(|one| !NEEDED.contains(&one))
}

fn held(wanted: impl Fn(Capability) -> bool) -> Finding {
    let effective = match caps::read(None, CapSet::Effective) {
        Ok(effective) => effective,
        Err(error) => return Unknown(error.to_string()),
    };
    let mut missing: Vec<String> = missing(&effective)
        .filter(|one| wanted(*one))
        .map(|one| one.to_string())
        .collect();
    missing.sort();
    if missing.is_empty() {
        Present(String::new())
    } else {
        Absent(format!("not held: {}", missing.join(", ")))
    }
}

fn missing(effective: &CapsHashSet) -> impl Iterator<Item = Capability> {
    caps::all()
        .into_iter()
        .filter(|one| !effective.contains(one))
}

pub(super) fn cgroup_mode(_: &Node) -> Finding {
    match Hierarchies::detect() {
        Ok(found) => Present(mode_word(found.mode()).to_owned()),
        Err(error) => Absent(error.to_string()),
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::V1 => "v1",
        Mode::V2 => "v2",
        Mode::Hybrid => "hybrid (controllers on v1, v2 beside them)",
    }
}

pub(super) fn cgroup_controllers(_: &Node) -> Finding {
    let found = match Hierarchies::detect() {
        Ok(found) => found,
        Err(error) => return Absent(error.to_string()),
    };
    let controllers = found.controllers();
    let missing: Vec<&str> = ["memory", "cpu", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.contains(wanted))
        .collect();
    if missing.is_empty() {
        Present(String::new())
    } else {
        Absent(format!("no controller {}", missing.join(", ")))
    }
}

pub(super) fn cgroup_devices(_: &Node) -> Finding {
    match Hierarchies::detect() {
        Ok(found) if found.controllers().contains(&"devices") => Present("controller".to_owned()),
        Ok(found) if found.list().iter().any(|h| h.version() == Version::V2) => {
            Present("by BPF; shown to work by the first container".to_owned())
        }
        Ok(_) => Absent("neither the devices controller nor a cgroup2 mount".to_owned()),
        Err(error) => Absent(error.to_string()),
    }
}

pub(super) fn cgroup_freezer(_: &Node) -> Finding {
    match Hierarchies::detect() {
        Ok(found) if found.mode() == Mode::V2 || found.controllers().contains(&"freezer") => {
            Present(String::new())
        }
        Ok(_) => Absent("no controller freezer".to_owned()),
        Err(error) => Absent(error.to_string()),
    }
}

/// Mounts an overlay of three empty directories where the layers will be, detached: it goes with its descriptor.
pub(super) fn overlay(node: &Node) -> Finding {
    let base = existing_parent(&node.state_dir);
    let dir = base.join(format!(".davit-doctor-{}", std::process::id()));
    let made = ["lower", "upper", "work"]
        .iter()
        .try_for_each(|name| fs::create_dir_all(dir.join(name)));
    let finding = match made {
        Ok(()) => Finding::of(sys::mount::overlay(
            &[&dir.join("lower")],
            Some((&dir.join("upper"), &dir.join("work"))),
            &[],
        )),
        Err(_) if !nix::unistd::geteuid().is_root() => Unknown("only root can look".to_owned()),
        Err(error) => Finding::of_io::<()>(Err(error), &format!("create {}", dir.display())),
    };
    match fs::remove_dir_all(&dir) {
        Ok(()) => finding,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => finding,
        Err(error) => Unknown(format!(
            "remove {}: {}",
            dir.display(),
            crate::error::reason(&error)
        )),
    }
}

pub(super) fn disk(node: &Node) -> Finding {
    let dir = existing_parent(&node.state_dir);
    match nix::sys::statvfs::statvfs(&dir) {
        Ok(fs) => {
            let free = fs.blocks_available() * fs.fragment_size();
            let text = format!("{} free at {}", size(free), dir.display());
            if free < ROOM {
                Absent(text)
            } else {
                Present(text)
            }
        }
        Err(errno) => Unknown(format!("statvfs({}): {errno}", dir.display())),
    }
}

/// The state directory, or what will hold it.
fn existing_parent(dir: &Path) -> PathBuf {
    dir.ancestors()
        .find(|a| a.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Makes both kinds of link in a network namespace that lives as long as a thread.
pub(super) fn bridge_and_veth(_: &Node) -> Finding {
    in_new_netns(|| {
        let here = sys::netns::NetNs::current().map_err(|e| e.to_string())?;
        let mut rtnl = netlink::Rtnl::open().map_err(|e| e.to_string())?;
        rtnl.add_bridge(&netlink::Bridge {
            name: "probe0",
            mtu: None,
            mac: None,
        })
        .map_err(|e| e.to_string())?;
        let end = |name| netlink::VethEnd {
            name,
            ..netlink::VethEnd::default()
        };
        let veth = netlink::Veth {
            near: end("probe1"),
            far: end("probe2"),
            far_netns: std::os::fd::AsFd::as_fd(&here),
            near_up: false,
            master: None,
        };
        rtnl.add_veth(&veth).map_err(|e| e.to_string())
    })
}

pub(super) fn nftables(_: &Node) -> Finding {
    in_new_netns(probe_nftables)
}

fn in_new_netns(probe: impl FnOnce() -> Result<(), String> + Send + 'static) -> Finding {
    if !nix::unistd::geteuid().is_root() {
        return Unknown("only root can look".to_owned());
    }
    let thread = std::thread::spawn(move || {
        sys::namespace::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
        probe()
    });
    match thread.join() {
        Ok(outcome) => Finding::of(outcome),
        Err(_) => Unknown("the probe panicked".to_owned()),
    }
}

pub(super) fn ip_forward(_: &Node) -> Finding {
    let path = "/proc/sys/net/ipv4/ip_forward";
    match fs::read_to_string(path) {
        Ok(value) if value.trim() == "1" => Present("it is on".to_owned()),
        Ok(_) if !nix::unistd::geteuid().is_root() => {
            Unknown("it is off, and only root can say whether it can be switched on".to_owned())
        }
        // Opening is enough of a probe: a read-only /proc/sys refuses it, and nothing was changed.
        Ok(_) => match fs::OpenOptions::new().write(true).open(path) {
            Ok(_) => Present("it is off until the first pod".to_owned()),
            Err(error) => Absent(format!(
                "it is off, and open {path}: {}",
                crate::error::reason(&error)
            )),
        },
        Err(error) => Absent(format!("read {path}: {}", crate::error::reason(&error))),
    }
}

pub(super) fn binaries(_: &Node) -> Finding {
    let names = ["davit-cri", "davit-shim", "davit-oci", "davit-cni"];
    let missing: Vec<&str> = names
        .into_iter()
        .filter(|name| daemon::find(name).is_err())
        .collect();
    if missing.is_empty() {
        let dir = daemon::find(names[0])
            .ok()
            .and_then(|file| file.parent().map(|dir| dir.display().to_string()));
        return Present(format!("in {}", dir.unwrap_or_default()));
    }
    Absent(format!(
        "not beside davit, in /usr/local/bin or in PATH: {}",
        missing.join(", ")
    ))
}

pub(super) fn sample_image(_: &Node) -> Finding {
    found("davit-sample.tar")
}

pub(super) fn crictl(_: &Node) -> Finding {
    found("crictl")
}

fn found(name: &str) -> Finding {
    match daemon::find(name) {
        Ok(path) => Present(path.display().to_string()),
        Err(error) => Absent(error.to_string()),
    }
}

/// The rule that the bridge plugin makes, in a table that goes with its namespace.
fn probe_nftables() -> Result<(), String> {
    use netlink::nft::{Batch, Chain, ChainKind, Expr, Family, Hook, Nft, Table};
    let table = Table {
        family: Family::Inet,
        name: "probe",
    };
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.add_chain(
        table,
        &Chain {
            name: "out",
            base: Some((ChainKind::Nat, Hook::Postrouting, 100)),
        },
    );
    batch.add_rule(table, "out", &[Expr::Masquerade]);
    Nft::open()
        .and_then(|mut nft| nft.commit(&batch))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_is_not_held_is_missing() {
        let mut effective = caps::all();
        assert_eq!(missing(&effective).count(), 0);
        effective.remove(&Capability::CAP_SYS_RESOURCE);
        let missing: Vec<Capability> = missing(&effective).collect();
        assert_eq!(missing, [Capability::CAP_SYS_RESOURCE]);
    }

    #[test]
    fn a_state_directory_that_does_not_exist_yet_is_judged_by_what_will_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing_parent(&dir.path().join("a/b")), dir.path());
    }
}
