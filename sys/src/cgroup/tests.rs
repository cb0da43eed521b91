//! The managers on this host's real cgroups. Each test has a cgroup of its own and removes it whatever happens.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;

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
        let fixture = Self::new()?;
        if fixture.cgroup.v1_controller(controller).is_none() {
            return skip(&format!("no v1 hierarchy has the {controller} controller"));
        }
        Some(fixture)
    }

    fn file(&self, controller: &str, name: &str) -> String {
        file::read(&self.cgroup.controller(controller).unwrap().dir, name).unwrap()
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

fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("MUST_WORK").is_none(), "skipped: {why}");
    eprintln!("skipped: {why}");
    None
}

#[test]
fn a_cgroup_is_made_in_every_hierarchy_and_removed_from_every_one() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
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
}

#[test]
fn undo_removes_what_was_new_and_leaves_what_was_there() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
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
}

#[test]
fn a_process_is_found_in_the_cgroup_it_was_added_to() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let sleeper = fixture.sleeper();
    assert_eq!(fixture.cgroup.processes().unwrap(), [sleeper.pid()]);
    assert_eq!(
        Cgroup::of_process(&fixture.hierarchies, sleeper.pid())
            .unwrap()
            .paths(),
        fixture.cgroup.paths()
    );
}

#[test]
fn killing_reaches_frozen_processes_and_those_of_child_cgroups() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let mut sleepers = [fixture.sleeper(), fixture.sleeper()];
    let child = Cgroup {
        nodes: fixture
            .cgroup
            .nodes
            .iter()
            .map(|n| Node {
                dir: n.dir.join("child"),
                ..n.clone()
            })
            .collect(),
    };
    let _ = child.create().unwrap().dirs();
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
}

#[test]
fn removing_a_cgroup_with_a_process_names_the_process_and_keeps_it_alive() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
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
}

#[test]
fn removing_waits_for_a_dying_process_and_not_for_the_deadline() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let _sleeper = fixture.sleeper();
    fixture.cgroup.kill_all().unwrap();
    let start = Instant::now();
    fixture.cgroup.remove().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn thawed_processes_go_on() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let sleeper = fixture.sleeper();
    fixture.cgroup.freeze().unwrap();
    fixture.cgroup.thaw().unwrap();
    assert!(!fixture.cgroup.is_frozen().unwrap());
    assert_eq!(fixture.cgroup.processes().unwrap(), [sleeper.pid()]);
}

#[test]
fn limits_on_v1_are_what_the_kernel_shows() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    let resources = Resources {
        memory: Memory {
            limit: Some(64 << 20),
            reservation: Some(32 << 20),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(512),
            quota: Some(20_000),
            period: Some(50_000),
            cpus: Some("0".into()),
            ..Cpu::default()
        },
        pids_limit: Some(17),
        ..Resources::default()
    };
    fixture.cgroup.apply(&resources).unwrap();
    let shown = [
        fixture.file("memory", "memory.limit_in_bytes"),
        fixture.file("memory", "memory.soft_limit_in_bytes"),
        fixture.file("cpu", "cpu.shares"),
        fixture.file("cpu", "cpu.cfs_quota_us"),
        fixture.file("cpu", "cpu.cfs_period_us"),
        fixture.file("cpuset", "cpuset.cpus"),
        fixture.file("pids", "pids.max"),
    ];
    assert_eq!(
        shown,
        ["67108864", "33554432", "512", "20000", "50000", "0", "17"]
    );
}

#[test]
fn memory_and_swap_limits_on_v1_can_grow_and_shrink_together() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    if !fixture
        .cgroup
        .controller("memory")
        .unwrap()
        .dir
        .join("memory.memsw.limit_in_bytes")
        .exists()
    {
        return skip("the kernel does not account swap").unwrap_or(());
    }
    for (limit, swap) in [(64, 128), (256, 512), (32, 32), (16, 64), (128, 128)] {
        let memory = Memory {
            limit: Some(limit << 20),
            swap: Some(swap << 20),
            ..Memory::default()
        };
        fixture
            .cgroup
            .apply(&Resources {
                memory,
                ..Resources::default()
            })
            .unwrap();
        let shown = [
            fixture.file("memory", "memory.limit_in_bytes"),
            fixture.file("memory", "memory.memsw.limit_in_bytes"),
        ];
        assert_eq!(shown, [(limit << 20).to_string(), (swap << 20).to_string()]);
    }
    let memory = Memory {
        limit: Some(-1),
        ..Memory::default()
    };
    fixture
        .cgroup
        .apply(&Resources {
            memory,
            ..Resources::default()
        })
        .unwrap();
    assert_eq!(
        fixture.file("memory", "memory.memsw.limit_in_bytes"),
        "9223372036854771712"
    );
}

#[test]
fn a_swap_limit_below_the_memory_limit_is_explained_and_leaves_the_cgroup_as_it_was() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    let memory = Memory {
        limit: Some(64 << 20),
        swap: Some(32 << 20),
        ..Memory::default()
    };
    let error = fixture
        .cgroup
        .apply(&Resources {
            memory,
            ..Resources::default()
        })
        .unwrap_err();
    assert!(
        error.to_string().contains("below the memory limit"),
        "{error}"
    );
}

#[test]
fn quota_and_period_on_v1_can_be_updated_alone_and_against_the_old_other() {
    let Some(fixture) = Fixture::with_v1("cpu") else {
        return;
    };
    let apply = |quota, period| {
        let cpu = Cpu {
            quota,
            period,
            ..Cpu::default()
        };
        fixture
            .cgroup
            .apply(&Resources {
                cpu,
                ..Resources::default()
            })
            .unwrap();
        (
            fixture.file("cpu", "cpu.cfs_quota_us"),
            fixture.file("cpu", "cpu.cfs_period_us"),
        )
    };
    assert_eq!(
        apply(Some(50_000), Some(100_000)),
        ("50000".into(), "100000".into())
    );
    assert_eq!(apply(Some(20_000), None), ("20000".into(), "100000".into()));
    assert_eq!(
        apply(None, Some(200_000)),
        ("20000".into(), "200000".into())
    );
    assert_eq!(apply(Some(-1), None), ("-1".into(), "200000".into()));
}

#[test]
fn shares_outside_the_kernels_range_are_an_error_and_not_clamped_silently() {
    let Some(fixture) = Fixture::with_v1("cpu") else {
        return;
    };
    let cpu = Cpu {
        shares: Some(1 << 30),
        ..Cpu::default()
    };
    let error = fixture
        .cgroup
        .apply(&Resources {
            cpu,
            ..Resources::default()
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cpu.shares 1073741824: the most that the kernel allows is 262144"
    );
}

#[test]
fn a_pids_limit_that_is_negative_is_no_limit_and_zero_is_one() {
    let Some(fixture) = Fixture::with_v1("pids") else {
        return;
    };
    for (limit, shown) in [(5, "5"), (-1, "max"), (0, "0")] {
        fixture
            .cgroup
            .apply(&Resources {
                pids_limit: Some(limit),
                ..Resources::default()
            })
            .unwrap();
        assert_eq!(fixture.file("pids", "pids.max"), shown);
    }
}

#[test]
fn the_devices_list_on_v1_is_the_rules_after_the_defaults_of_every_container() {
    let Some(fixture) = Fixture::with_v1("devices") else {
        return;
    };
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: DeviceAccess::parse(access).unwrap(),
    };
    let rules = [
        rule(false, DeviceType::All, None, None, "rwm"),
        rule(true, DeviceType::Char, Some(10), Some(229), "rw"),
        rule(true, DeviceType::Block, Some(7), None, "r"),
    ];
    fixture.cgroup.apply_devices(&rules).unwrap();
    let list = fixture.file("devices", "devices.list");
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    let expected = [
        "b *:* m",
        "b 7:* r",
        "c *:* m",
        "c 10:200 rwm",
        "c 10:229 rw",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:1 rwm",
        "c 5:2 rwm",
    ];
    assert_eq!(lines, expected);
    // A second time, as an update does, over the first list.
    fixture
        .cgroup
        .apply_devices(&[rule(true, DeviceType::All, None, None, "rwm")])
        .unwrap();
    assert_eq!(fixture.file("devices", "devices.list"), "a *:* rwm");
}

#[test]
fn unified_files_on_a_host_with_v1_are_an_error() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    let unified = vec![("memory.high".to_owned(), "1".to_owned())];
    let error = fixture
        .cgroup
        .apply(&Resources {
            unified,
            ..Resources::default()
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unified \"memory.high\": this host has cgroup v1"
    );
}

#[test]
fn a_fresh_cgroup_counts_no_oom_kill_and_some_usage() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let _sleeper = fixture.sleeper();
    assert_eq!(fixture.cgroup.oom_kills(), Ok(0));
    let stats = fixture.cgroup.stats();
    assert!(stats.cpu_usage_ns.is_some());
    if fixture.cgroup.controller("pids").is_some() {
        assert_eq!(stats.pids_current, Some(1));
    }
}

#[test]
fn an_oom_kill_is_counted_also_in_a_child_cgroup() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    let memory = Memory {
        limit: Some(4 << 20),
        ..Memory::default()
    };
    fixture
        .cgroup
        .apply(&Resources {
            memory,
            ..Resources::default()
        })
        .unwrap();
    let child = Cgroup {
        nodes: fixture
            .cgroup
            .nodes
            .iter()
            .map(|n| Node {
                dir: n.dir.join("child"),
                ..n.clone()
            })
            .collect(),
    };
    let _ = child.create().unwrap().dirs();
    // The shell waits for its stdin until it is inside, and then keeps 32 MiB.
    let mut shell = Command::new("sh")
        .args(["-c", "read go; head -c 33554432 /dev/zero | tail"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .add_process(i32::try_from(shell.id()).unwrap())
        .unwrap();
    drop(shell.stdin.take());
    let status = shell.wait().unwrap();
    assert!(!status.success());
    assert!(fixture.cgroup.oom_kills().unwrap() >= 1);
    assert_eq!(child.oom_kills(), fixture.cgroup.oom_kills());
}
