//! New processes enter without being moved, and killing works with whatever the host has.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use super::*;
use crate::process::{self, Child as NewProcess, CloneArgs, Forked};

/// A process that is born into the cgroup and then waits to be killed.
fn born_inside(cgroup: &Cgroup) -> NewProcess {
    let joiner = cgroup.joiner().unwrap();
    let directory = cgroup.dir_fd_v2().unwrap();
    let (joined, joined_by_child) = nix::unistd::pipe().unwrap();
    let args = CloneArgs {
        cgroup: directory.as_ref().map(AsFd::as_fd),
        ..CloneArgs::default()
    };
    match process::clone3(&args).unwrap() {
        // The harness has threads: from here on the child makes system calls and nothing else.
        Forked::Child => {
            let told =
                joiner.join_self().is_ok() && nix::unistd::write(&joined_by_child, b"!").is_ok();
            loop {
                nix::unistd::pause();
                std::hint::black_box(told);
            }
        }
        Forked::Parent(child) => {
            drop(joined_by_child);
            let mut byte = [0];
            assert_eq!(
                nix::unistd::read(&joined, &mut byte),
                Ok(1),
                "the child joined"
            );
            child
        }
    }
}

#[test]
fn a_new_process_is_in_the_cgroup_of_every_hierarchy_before_it_does_anything() {
    on_every_host(|fixture| {
        let child = born_inside(&fixture.cgroup);
        let found = Cgroup::of_process(&fixture.hierarchies, child.pid.as_raw());
        process::kill(child.pid, Signal::SIGKILL).unwrap();
        process::wait(&child.pidfd).unwrap();
        assert_eq!(found.unwrap().paths(), fixture.cgroup.paths());
    });
}

#[test]
fn a_process_that_is_gone_cannot_be_added_and_the_error_says_which() {
    on_every_host(|fixture| {
        let mut sleeper = fixture.sleeper();
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        let error = fixture.cgroup.add_process(sleeper.pid()).unwrap_err();
        let value = format!(
            "cgroup.procs\", \"{}\"): no such process (ESRCH)",
            sleeper.pid()
        );
        assert!(error.to_string().contains(&value), "{error}");
    });
}

/// The same cgroup on a host that had only these hierarchies.
fn seen_by_a_host_with(cgroup: &Cgroup, controllers: &[&str]) -> Cgroup {
    let wanted = |node: &&Node| {
        controllers
            .iter()
            .any(|name| node.version == Version::V1 && node.has(name))
    };
    Cgroup {
        nodes: cgroup.nodes.iter().filter(wanted).cloned().collect(),
    }
}

#[test]
fn killing_works_on_v1_alone_and_without_a_freezer() {
    for controllers in [&["pids"][..], &["freezer", "memory"], &["name=systemd"]] {
        let Some(fixture) = Fixture::with_v1(controllers[0]) else {
            return;
        };
        let mut sleepers = [fixture.sleeper(), fixture.sleeper()];
        seen_by_a_host_with(&fixture.cgroup, controllers)
            .kill_all()
            .unwrap();
        for sleeper in &mut sleepers {
            let status = sleeper.0.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(9),
                "{controllers:?}"
            );
        }
    }
}

#[test]
fn the_root_of_the_hierarchies_is_never_killed_frozen_or_removed() {
    on_every_host(|fixture| {
        let list = fixture.hierarchies.list();
        let root = Cgroup {
            nodes: list
                .iter()
                .map(|h| Node::new(h, h.mount().to_owned()))
                .collect(),
        };
        for refused in [root.kill_all(), root.freeze(), root.remove()] {
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("is the root of every hierarchy")
            );
        }
    });
}

/// The variable that tells a second copy of this test program which cgroup to enter.
const INNER: &str = "DAVIT_TEST_CGROUP";

#[test]
fn a_process_does_not_kill_its_own_cgroup() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let node = &fixture.cgroup.nodes[0];
    let path = std::path::Path::new("/").join(node.dir.strip_prefix(&node.mount).unwrap());
    let inner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "cgroup::tests::joining::inside_of_its_own_cgroup",
        ])
        .env(INNER, path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inner.stdout);
    assert!(
        inner.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "the second copy of the test above"]
fn inside_of_its_own_cgroup() {
    let path = CgroupPath::new(std::env::var(INNER).unwrap()).unwrap();
    let cgroup = Cgroup::new(&Hierarchies::detect().unwrap(), &path);
    cgroup.add_process(nix::unistd::getpid().as_raw()).unwrap();
    assert!(
        cgroup
            .kill_all()
            .unwrap_err()
            .to_string()
            .contains("holds the caller itself")
    );
}
