//! Limits, as the kernel shows them and as it enforces them.

use super::*;

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
    let Some(fixture) = Fixture::new() else {
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
fn an_oom_kill_is_counted_also_in_a_child_cgroup() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    if fixture.cgroup.controller("memory").is_none() {
        return skip("this host has no memory controller").unwrap_or(());
    }
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
    let child = fixture.child();
    // The shell waits for its stdin until it is inside, and then keeps 32 MiB.
    let mut shell = Command::new("sh")
        .args(["-c", "read go; head -c 33554432 /dev/zero | tail"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
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

#[test]
fn a_limit_on_a_unified_host_without_the_controller_names_the_controller() {
    on_unified_host(|| {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        if fixture.cgroup.controller("memory").is_some() {
            // Nothing to be avoided: a v2 host is like that.
            eprintln!("skipped: this unified host has a memory controller");
            return;
        }
        let memory = Memory {
            limit: Some(1 << 30),
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
            error.to_string().starts_with(
                "the memory controller is not available to \"/sys/fs/cgroup/davit-test"
            ),
            "{error}"
        );
    });
}

/// A process of the cgroup that holds 16 MiB until its input, which comes with it, is dropped.
fn hog(fixture: &Fixture) -> (Sleeper, std::process::ChildStdin) {
    use std::io::{BufRead, BufReader, Write};
    let script = "read go; { head -c 16777216 /dev/zero; echo filled >&2; read end; } | tail -c 16777216 >/dev/null";
    let mut shell = Command::new("sh");
    let shell = shell
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut shell = Sleeper(shell.spawn().unwrap());
    fixture.cgroup.add_process(shell.pid()).unwrap();
    let mut input = shell.0.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let mut line = String::new();
    BufReader::new(shell.0.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "filled\n");
    (shell, input)
}

/// Applies a limit of 1 MiB to a cgroup that uses 16, which must fail and say what is used.
fn refused_limit(fixture: &Fixture, check_before_update: bool) -> String {
    let (_shell, _input) = hog(fixture);
    let memory = Memory {
        limit: Some(1 << 20),
        check_before_update,
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
        matches!(error.hint(), Some(Hint::LimitBelowUsage { usage }) if *usage > 8 << 20),
        "{error}"
    );
    error.to_string()
}

#[test]
fn a_memory_limit_below_the_usage_on_v1_says_what_is_used() {
    let Some(fixture) = Fixture::with_v1("memory") else {
        return;
    };
    let text = refused_limit(&fixture, false);
    let call = "memory.limit_in_bytes\", \"1048576\"): device or resource busy (EBUSY); hint: the cgroup uses";
    assert!(text.contains(call), "{text}");
}

#[test]
fn limits_on_v2_are_what_the_kernel_shows() {
    let Some(fixture) = Fixture::with_v2("memory") else {
        return;
    };
    let resources = Resources {
        memory: Memory {
            limit: Some(64 << 20),
            swap: Some(96 << 20),
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
        unified: vec![("memory.high".into(), "50331648".into())],
        ..Resources::default()
    };
    fixture.cgroup.apply(&resources).unwrap();
    let shown = [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.high",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "pids.max",
    ];
    let shown = shown.map(|name| file::read(&fixture.cgroup.v2().unwrap().dir, name).unwrap());
    assert_eq!(
        shown,
        [
            "67108864",
            "33554432",
            "33554432",
            "50331648",
            "59",
            "20000 50000",
            "0",
            "17"
        ]
    );
}

#[test]
fn updates_on_v2_keep_what_they_do_not_name_and_unlimited_lifts_swap_as_well() {
    let Some(fixture) = Fixture::with_v2("memory") else {
        return;
    };
    let dir = &fixture.cgroup.v2().unwrap().dir;
    let memory = |limit, swap| {
        let memory = Memory {
            limit,
            swap,
            ..Memory::default()
        };
        fixture
            .cgroup
            .apply(&Resources {
                memory,
                ..Resources::default()
            })
            .unwrap();
        ["memory.max", "memory.swap.max"].map(|name| file::read(dir, name).unwrap())
    };
    assert_eq!(memory(Some(64 << 20), Some(64 << 20)), ["67108864", "0"]);
    assert_eq!(
        memory(None, Some(80 << 20)),
        ["67108864", "16777216"],
        "against the limit that is there"
    );
    assert_eq!(memory(Some(32 << 20), None), ["33554432", "16777216"]);
    assert_eq!(memory(Some(-1), None), ["max", "max"]);
    let cpu = |quota, period, burst| {
        let cpu = Cpu {
            quota,
            period,
            burst,
            ..Cpu::default()
        };
        fixture
            .cgroup
            .apply(&Resources {
                cpu,
                ..Resources::default()
            })
            .unwrap();
        ["cpu.max", "cpu.max.burst"].map(|name| file::read(dir, name).unwrap())
    };
    assert_eq!(
        cpu(Some(20_000), Some(50_000), Some(10_000)),
        ["20000 50000", "10000"]
    );
    assert_eq!(
        cpu(Some(60_000), None, Some(50_000)),
        ["60000 50000", "50000"],
        "a burst above the old quota"
    );
    assert_eq!(cpu(None, Some(100_000), None), ["60000 100000", "50000"]);
    assert_eq!(cpu(Some(-1), None, Some(0)), ["max 100000", "0"]);
}

#[test]
fn a_memory_limit_below_the_usage_on_v2_is_refused_where_that_is_asked_for() {
    let Some(fixture) = Fixture::with_v2("memory") else {
        return;
    };
    let text = refused_limit(&fixture, true);
    assert!(
        text.contains("memory.max\", \"1048576\"): device or resource busy (EBUSY)"),
        "{text}"
    );
}

#[test]
fn an_idle_cgroup_takes_no_weight_and_a_busy_one_again_does() {
    for fixture in [Fixture::with_v2("cpu"), Fixture::with_v1("cpu")]
        .into_iter()
        .flatten()
    {
        let (file, weight) = if fixture.cgroup.v1_controller("cpu").is_some() {
            ("cpu.shares", "512")
        } else {
            ("cpu.weight", "59")
        };
        let apply = |idle, shares| {
            let cpu = Cpu {
                idle: Some(idle),
                shares: Some(shares),
                ..Cpu::default()
            };
            fixture
                .cgroup
                .apply(&Resources {
                    cpu,
                    ..Resources::default()
                })
                .unwrap();
            (fixture.file("cpu", "cpu.idle"), fixture.file("cpu", file))
        };
        assert_eq!(apply(1, 512).0, "1");
        assert_eq!(apply(0, 512), ("0".to_owned(), weight.to_owned()));
    }
}

#[test]
fn lifting_a_limit_needs_no_controller() {
    on_every_host(|fixture| {
        let memory = Memory {
            limit: Some(-1),
            swap: Some(-1),
            reservation: Some(0),
            ..Memory::default()
        };
        fixture
            .cgroup
            .apply(&Resources {
                memory,
                pids_limit: Some(-1),
                ..Resources::default()
            })
            .unwrap();
    });
}
