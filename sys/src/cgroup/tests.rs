//! The managers on this host's real cgroups. Each test has a cgroup of its own and removes it whatever happens.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;

mod device_rules;
mod joining;
mod limits;
mod properties;

/// A cgroup that is killed and removed with the test.
struct Fixture {
    cgroup: Cgroup,
    hierarchies: Hierarchies,
}

impl Fixture {
    /// `None`, with the reason printed, where this host lets us make no cgroups.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "/davit-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let hierarchies = Hierarchies::detect().unwrap();
        let cgroup = Cgroup::new(&hierarchies, &CgroupPath::new(name).unwrap());
        match cgroup.create() {
            Ok(_) => Some(Self {
                cgroup,
                hierarchies,
            }),
            Err(error) => skip(&error.to_string()),
        }
    }

    /// The same on a host whose v1 has `controller`.
    fn with_v1(controller: &str) -> Option<Self> {
        Self::new()?.whose(controller, Version::V1)
    }

    /// The same on a host whose v2 has `controller`.
    fn with_v2(controller: &str) -> Option<Self> {
        Self::new()?.whose(controller, Version::V2)
    }

    /// Limits on the other version have tests of their own, so that this is no skip.
    fn whose(self, controller: &str, version: Version) -> Option<Self> {
        if self
            .cgroup
            .controller(controller)
            .is_some_and(|node| node.version == version)
        {
            return Some(self);
        }
        eprintln!("{controller} is not on cgroup {version:?} on this host");
        None
    }

    fn file(&self, controller: &str, name: &str) -> String {
        file::read(&self.cgroup.controller(controller).unwrap().dir, name).unwrap()
    }

    /// A cgroup below it, which goes with it.
    fn child(&self) -> Cgroup {
        let below = |node: &Node| Node {
            dir: node.dir.join("child"),
            ..node.clone()
        };
        let child = Cgroup {
            nodes: self.cgroup.nodes.iter().map(below).collect(),
        };
        assert_eq!(child.create().unwrap().dirs().len(), child.nodes.len());
        child
    }

    fn sleeper(&self) -> Sleeper {
        let child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let sleeper = Sleeper(child);
        self.cgroup.add_process(sleeper.pid()).unwrap();
        sleeper
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A failing clean-up must not hide the assertion that failed before it.
        self.cgroup.kill_all().ok();
        if let Err(error) = self.cgroup.remove() {
            eprintln!("{error}");
        }
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may be dead already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs `test` here, and again on what every tool takes for a unified host: a thread whose private mount namespace has
/// cgroup2 at /sys/fs/cgroup (without controllers where v1 has them).
fn on_every_host(test: fn(&Fixture)) {
    let run = || {
        if let Some(fixture) = Fixture::new() {
            test(&fixture);
        }
    };
    run();
    on_unified_host(run);
}

fn on_unified_host(test: impl FnOnce() + Send) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    let unified = || -> nix::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
        mount(
            Some("cgroup2"),
            "/sys/fs/cgroup",
            Some("cgroup2"),
            MsFlags::empty(),
            none,
        )
    };
    let in_thread = || match unified() {
        Ok(()) => test(),
        Err(errno) => skip(&format!("no private mount of cgroup2: {errno}")).unwrap_or(()),
    };
    std::thread::scope(|scope| scope.spawn(in_thread).join()).unwrap();
}

fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("MUST_WORK").is_none(), "skipped: {why}");
    eprintln!("skipped: {why}");
    None
}

#[test]
fn a_cgroup_is_made_in_every_hierarchy_and_removed_from_every_one() {
    on_every_host(|fixture| {
        let paths = fixture.cgroup.paths();
        assert!(!paths.is_empty());
        assert!(paths.values().all(|dir| dir.is_dir()), "{paths:?}");
        assert_eq!(
            Cgroup::from_paths(&fixture.hierarchies, &paths),
            fixture.cgroup
        );
        fixture.cgroup.remove().unwrap();
        assert!(paths.values().all(|dir| !dir.exists()), "{paths:?}");
        fixture.cgroup.remove().unwrap();
    });
}

#[test]
fn undo_removes_what_was_new_and_leaves_what_was_there() {
    on_every_host(|fixture| {
        let parent = fixture.cgroup.nodes[0]
            .dir
            .strip_prefix(&fixture.cgroup.nodes[0].mount)
            .unwrap();
        let deep = CgroupPath::new(std::path::Path::new("/").join(parent))
            .unwrap()
            .join("a/b")
            .unwrap();
        let created = Cgroup::new(&fixture.hierarchies, &deep).create().unwrap();
        assert_eq!(created.dirs().len(), 2 * fixture.cgroup.nodes.len());
        created.undo().unwrap();
        assert!(
            fixture
                .cgroup
                .nodes
                .iter()
                .all(|node| node.dir.is_dir() && node.tree().unwrap().len() == 1)
        );
    });
}

#[test]
fn a_process_is_found_in_the_cgroup_it_was_added_to() {
    on_every_host(|fixture| {
        let sleeper = fixture.sleeper();
        assert_eq!(fixture.cgroup.processes().unwrap(), [sleeper.pid()]);
        assert_eq!(
            Cgroup::of_process(&fixture.hierarchies, sleeper.pid())
                .unwrap()
                .paths(),
            fixture.cgroup.paths()
        );
    });
}

#[test]
fn killing_reaches_frozen_processes_and_those_of_child_cgroups() {
    on_every_host(|fixture| {
        let mut sleepers = [fixture.sleeper(), fixture.sleeper()];
        let child = fixture.child();
        child.add_process(sleepers[1].pid()).unwrap();
        fixture.cgroup.freeze().unwrap();
        assert!(fixture.cgroup.is_frozen().unwrap());

        fixture.cgroup.kill_all().unwrap();

        for sleeper in &mut sleepers {
            let status = sleeper.0.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(9)
            );
        }
        fixture.cgroup.remove().unwrap();
        assert!(!fixture.cgroup.exists());
        fixture.cgroup.kill_all().unwrap();
    });
}

#[test]
fn removing_a_cgroup_with_a_process_names_the_process_and_keeps_it_alive() {
    on_every_host(|fixture| {
        let mut sleeper = fixture.sleeper();
        let error = fixture
            .cgroup
            .remove_within(Duration::from_millis(20))
            .unwrap_err();
        assert!(
            matches!(&error, Error::Timeout { processes, .. } if processes == &[sleeper.pid()]),
            "{error}"
        );
        assert!(sleeper.0.try_wait().unwrap().is_none());
    });
}

#[test]
fn removing_waits_for_a_dying_process_and_not_for_the_deadline() {
    on_every_host(|fixture| {
        let _sleeper = fixture.sleeper();
        fixture.cgroup.kill_all().unwrap();
        let start = Instant::now();
        fixture.cgroup.remove().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    });
}

#[test]
fn thawed_processes_go_on() {
    on_every_host(|fixture| {
        let sleeper = fixture.sleeper();
        fixture.cgroup.freeze().unwrap();
        fixture.cgroup.thaw().unwrap();
        assert!(!fixture.cgroup.is_frozen().unwrap());
        assert_eq!(fixture.cgroup.processes().unwrap(), [sleeper.pid()]);
    });
}

#[test]
fn a_fresh_cgroup_counts_no_oom_kill_and_some_usage() {
    on_every_host(|fixture| {
        let _sleeper = fixture.sleeper();
        assert_eq!(fixture.cgroup.oom_kills(), Ok(0));
        let stats = fixture.cgroup.stats();
        assert!(stats.cpu_usage_ns.is_some());
        if fixture.cgroup.controller("pids").is_some() {
            assert_eq!(stats.pids_current, Some(1));
        }
    });
}
