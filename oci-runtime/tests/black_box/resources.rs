//! `linux.resources`, property by property: what the kernel's files hold afterwards. On a host with only cgroup v2 the
//! same tests look into the files of v2.
use serde_json::{Value, json};

use crate::harness::{Container, Runtime, cgroups_named};

/// Whether the host has cgroup v2 alone.
fn is_v2() -> bool {
    sys::cgroup::Hierarchies::detect().unwrap().mode() == sys::cgroup::Mode::V2
}

/// Whether the host has this controller, on v1 or v2; says so where not.
fn has(v1: &str, v2: &str) -> bool {
    let hierarchies = sys::cgroup::Hierarchies::detect().unwrap();
    let name = if is_v2() { v2 } else { v1 };
    let found = hierarchies.controllers().contains(&name);
    if !found {
        eprintln!("skipped: this host has no {name} controller");
    }
    found
}

/// What a file of the container's cgroup holds, by its name on v1 and on v2.
fn value(container: &Container, v1: &str, v2: &str) -> String {
    let name = if is_v2() { v2 } else { v1 };
    let dirs = cgroups_named(&container.id);
    let dir = dirs.iter().find(|dir| dir.join(name).exists());
    let dir = dir.unwrap_or_else(|| panic!("no cgroup with {name}: {dirs:?}"));
    let text = std::fs::read_to_string(dir.join(name)).unwrap();
    text.trim().to_owned()
}

fn sleeping(runtime: Runtime, resources: &Value) -> Container {
    let container = Container::new(runtime, "sleep 1000").with(|config| {
        for (key, value) in resources.as_object().unwrap() {
            config["linux"]["resources"][key] = value.clone();
        }
    });
    container.start();
    container
}

/// Creating this fails; what it says.
fn refused(resources: &Value) -> String {
    let container = Container::new(Runtime::Davit, "true").with(|config| {
        for (key, value) in resources.as_object().unwrap() {
            config["linux"]["resources"][key] = value.clone();
        }
    });
    container.write_config();
    let (code, _, stderr) = container.call(&["create", &container.id]);
    assert_eq!(code, Some(1), "{stderr}");
    container.assert_nothing_left();
    stderr
}

/// A block device of the host, if it has any.
fn block_device() -> Option<(u64, u64)> {
    let entry = std::fs::read_dir("/sys/block").ok()?.flatten().next()?;
    let text = std::fs::read_to_string(entry.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn memory_limits_reach_their_files() {
    for runtime in Runtime::all() {
        let memory = json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20, "swappiness": 7, "kernel": 1 << 20,
            "useHierarchy": true, "checkBeforeUpdate": true});
        let container = sleeping(runtime, &json!({ "memory": memory }));
        let shown = |v1, v2| value(&container, v1, v2);
        assert_eq!(
            shown("memory.limit_in_bytes", "memory.max"),
            "67108864",
            "{runtime:?}"
        );
        assert_eq!(
            shown("memory.soft_limit_in_bytes", "memory.low"),
            "33554432",
            "{runtime:?}"
        );
        if is_v2() {
            assert_eq!(
                shown("", "memory.swap.max"),
                "33554432",
                "{runtime:?}: the sum without the memory"
            );
        } else {
            assert_eq!(
                shown("memory.memsw.limit_in_bytes", ""),
                "100663296",
                "{runtime:?}"
            );
            assert_eq!(shown("memory.swappiness", ""), "7", "{runtime:?}");
            assert_eq!(shown("memory.use_hierarchy", ""), "1", "{runtime:?}");
        }
    }
}

#[test]
fn without_its_oom_killer_a_cgroup_waits() {
    if is_v2() {
        return eprintln!("skipped: cgroup v2 cannot disable the OOM killer");
    }
    for runtime in Runtime::all() {
        let container = sleeping(
            runtime,
            &json!({"memory": {"limit": 32 << 20, "disableOOMKiller": true}}),
        );
        let control = value(&container, "memory.oom_control", "");
        assert!(
            control.starts_with("oom_kill_disable 1"),
            "{runtime:?}: {control}"
        );
    }
}

#[test]
fn cpu_limits_reach_their_files() {
    for runtime in Runtime::all() {
        let cpu =
            json!({"shares": 2048, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0"});
        let container = sleeping(runtime, &json!({ "cpu": cpu }));
        let shown = |v1, v2| value(&container, v1, v2);
        if is_v2() {
            assert_eq!(shown("", "cpu.max"), "30000 60000", "{runtime:?}");
        } else {
            assert_eq!(shown("cpu.cfs_quota_us", ""), "30000", "{runtime:?}");
            assert_eq!(shown("cpu.cfs_period_us", ""), "60000", "{runtime:?}");
        }
        if runtime == Runtime::Davit || !is_v2() {
            // An older runc has another formula for v2.
            assert_eq!(
                shown("cpu.shares", "cpu.weight"),
                if is_v2() { "174" } else { "2048" },
                "{runtime:?}"
            );
        }
        assert_eq!(shown("cpuset.cpus", "cpuset.cpus"), "0", "{runtime:?}");
        assert_eq!(shown("cpuset.mems", "cpuset.mems"), "0", "{runtime:?}");
    }
}

/// Newer than the runc that distributions have.
#[test]
fn cpu_burst_and_idle_reach_their_files() {
    for runtime in Runtime::ours() {
        let container = sleeping(
            runtime,
            &json!({"cpu": {"quota": 30_000, "period": 60_000, "burst": 10_000}}),
        );
        assert_eq!(
            value(&container, "cpu.cfs_burst_us", "cpu.max.burst"),
            "10000"
        );
        let container = sleeping(runtime, &json!({"cpu": {"idle": 1, "shares": 512}}));
        assert_eq!(value(&container, "cpu.idle", "cpu.idle"), "1");
        container.must(&["update", "--cpu-idle", "0", &container.id]);
        assert_eq!(value(&container, "cpu.idle", "cpu.idle"), "0");
    }
}

#[test]
fn real_time_is_for_v1_alone() {
    if is_v2() {
        let said = refused(&json!({"cpu": {"realtimePeriod": 1_000_000}}));
        assert!(
            said.contains("cpu.realtimePeriod") && said.contains("cgroup v2 has no real-time"),
            "{said}"
        );
        return;
    }
    for runtime in Runtime::all() {
        let container = sleeping(runtime, &json!({"cpu": {"realtimePeriod": 900_000}}));
        assert_eq!(
            value(&container, "cpu.rt_period_us", ""),
            "900000",
            "{runtime:?}"
        );
        container.must(&["update", "--cpu-rt-period", "800000", &container.id]);
        assert_eq!(
            value(&container, "cpu.rt_period_us", ""),
            "800000",
            "{runtime:?}"
        );
    }
}

#[test]
fn throttles_and_weights_of_block_devices_reach_their_files() {
    let Some((major, minor)) = block_device().filter(|_| has("blkio", "io")) else {
        return eprintln!("skipped: no block device or no controller for it");
    };
    let disk = |key: &str, value: u64| json!([{"major": major, "minor": minor, key: value}]);
    for runtime in Runtime::all() {
        let block_io = json!({
            "weight": 300, "throttleReadBpsDevice": disk("rate", 1 << 20), "throttleWriteBpsDevice": disk("rate", 2 << 20),
            "throttleReadIOPSDevice": disk("rate", 30), "throttleWriteIOPSDevice": disk("rate", 40)
        });
        let container = sleeping(runtime, &json!({ "blockIO": block_io }));
        if is_v2() {
            let max = value(&container, "", "io.max");
            assert_eq!(
                max,
                format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=30 wiops=40"),
                "{runtime:?}"
            );
        } else {
            let shown =
                |name: &str| value(&container, &format!("blkio.throttle.{name}_device"), "");
            assert_eq!(
                shown("read_bps"),
                format!("{major}:{minor} 1048576"),
                "{runtime:?}"
            );
            assert_eq!(
                shown("write_bps"),
                format!("{major}:{minor} 2097152"),
                "{runtime:?}"
            );
            assert_eq!(
                shown("read_iops"),
                format!("{major}:{minor} 30"),
                "{runtime:?}"
            );
            assert_eq!(
                shown("write_iops"),
                format!("{major}:{minor} 40"),
                "{runtime:?}"
            );
            assert_eq!(
                value(&container, "blkio.bfq.weight", ""),
                "300",
                "{runtime:?}"
            );
        }
        container.must(&["update", "--blkio-weight", "500", &container.id]);
        if !is_v2() {
            assert_eq!(
                value(&container, "blkio.bfq.weight", ""),
                "500",
                "{runtime:?}"
            );
        }
    }
}

#[test]
fn huge_pages_are_limited_where_the_host_can() {
    let hierarchies = sys::cgroup::Hierarchies::detect().unwrap();
    if !hierarchies.controllers().contains(&"hugetlb") {
        return eprintln!("skipped: this host has no hugetlb controller");
    }
    for runtime in Runtime::ours() {
        let container = sleeping(
            runtime,
            &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}),
        );
        let dirs = cgroups_named(&container.id);
        let shown = |v1: &str, v2: &str| {
            let files = dirs.iter().flat_map(|dir| [dir.join(v1), dir.join(v2)]);
            let file = files.into_iter().find(|file| file.exists()).unwrap();
            std::fs::read_to_string(file).unwrap().trim().to_owned()
        };
        assert_eq!(
            shown("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
            "4194304"
        );
        assert_eq!(
            shown("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"),
            "4194304"
        );
    }
}

#[test]
fn a_limit_that_this_host_cannot_set_names_the_property_and_the_file() {
    if Runtime::ours().is_empty() {
        return;
    }
    let table = [
        (
            json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}),
            "linux.resources.hugepageLimits",
            "hugetlb",
        ),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            "linux.resources.rdma",
            "rdma",
        ),
        (
            json!({"cpu": {"cpus": "4096"}}),
            "linux.resources.cpu.cpus",
            "cpuset.cpus",
        ),
        (
            json!({"blockIO": {"leafWeight": 300}}),
            "linux.resources",
            "blockIO.leafWeight",
        ),
        (
            json!({"memory": {"limit": 64 << 20, "swap": 32 << 20}}),
            "linux.resources",
            "below the memory limit",
        ),
    ];
    for (resources, field, file) in table {
        let said = refused(&resources);
        let leaf = file == "blockIO.leafWeight" && said.contains("blkio.leaf_weight");
        assert!(said.contains(field), "{resources}: {said}");
        assert!(said.contains(file) || leaf, "{resources}: {said}");
    }
}

#[test]
fn files_of_v2_are_written_as_they_are_and_only_by_their_names() {
    if Runtime::ours().is_empty() {
        return;
    }
    let said = refused(&json!({"unified": {"a/b": "1"}}));
    assert!(
        said.contains("linux.resources.unified") && said.contains("\"a/b\""),
        "{said}"
    );
    if !is_v2() {
        let said = refused(&json!({"unified": {"memory.high": "1048576"}}));
        assert!(
            said.contains("linux.resources.unified") || said.contains("this host has cgroup v1"),
            "{said}"
        );
        return;
    }
    let container = sleeping(
        Runtime::Davit,
        &json!({"unified": {"memory.high": "67108864", "cgroup.max.depth": "3"}}),
    );
    assert_eq!(value(&container, "", "memory.high"), "67108864");
    assert_eq!(value(&container, "", "cgroup.max.depth"), "3");
    let said = refused(&json!({"unified": {"nothing.max": "1"}}));
    assert!(
        said.contains("linux.resources.unified: \"nothing.max\"")
            && said.contains("controller \"nothing\" not available"),
        "{said}"
    );
    let said = refused(&json!({"unified": {"memory.nothing": "1"}}));
    assert!(
        said.contains("linux.resources.unified: \"memory.nothing\"") && said.contains("ENOENT"),
        "{said}"
    );
}

#[test]
fn every_flag_of_update_reaches_its_file() {
    for runtime in Runtime::all() {
        let container = sleeping(
            runtime,
            &json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}}),
        );
        let table = [
            ("cpu-share", "512", "cpu.shares", "cpu.weight", "512", "59"),
            ("cpuset-cpus", "0", "cpuset.cpus", "cpuset.cpus", "0", "0"),
            ("cpuset-mems", "0", "cpuset.mems", "cpuset.mems", "0", "0"),
            (
                "memory-reservation",
                "16m",
                "memory.soft_limit_in_bytes",
                "memory.low",
                "16777216",
                "16777216",
            ),
            (
                "memory",
                "48m",
                "memory.limit_in_bytes",
                "memory.max",
                "50331648",
                "50331648",
            ),
            ("pids-limit", "21", "pids.max", "pids.max", "21", "21"),
            ("pids-limit", "-1", "pids.max", "pids.max", "max", "max"),
        ];
        for (flag, given, v1, v2, on_v1, on_v2) in table {
            if runtime == Runtime::Runc && flag == "cpu-share" && is_v2() {
                continue;
            }
            container.must(&["update", &format!("--{flag}"), given, &container.id]);
            let wanted = if is_v2() { on_v2 } else { on_v1 };
            assert_eq!(
                value(&container, v1, v2),
                wanted,
                "{runtime:?} --{flag} {given}"
            );
        }
        container.must(&[
            "update",
            "--memory",
            "128m",
            "--memory-swap",
            "256m",
            &container.id,
        ]);
        let swap = if is_v2() { "134217728" } else { "268435456" };
        assert_eq!(
            value(&container, "memory.memsw.limit_in_bytes", "memory.swap.max"),
            swap,
            "{runtime:?}"
        );
        container.must(&["update", "--memory=32m", "--memory-swap=32m", &container.id]);
        assert_eq!(
            value(&container, "memory.limit_in_bytes", "memory.max"),
            "33554432",
            "{runtime:?}"
        );
        container.must(&["update", "--memory", "-1", &container.id]);
        let unlimited = if is_v2() {
            "max"
        } else {
            "9223372036854771712"
        };
        assert_eq!(
            value(&container, "memory.limit_in_bytes", "memory.max"),
            unlimited,
            "{runtime:?}"
        );
        assert_eq!(
            value(&container, "memory.memsw.limit_in_bytes", "memory.swap.max"),
            unlimited,
            "{runtime:?}"
        );
    }
}

#[test]
fn quota_and_period_can_be_updated_alone_and_together_in_any_direction() {
    for runtime in Runtime::all() {
        let container = sleeping(
            runtime,
            &json!({"cpu": {"quota": 50_000, "period": 100_000}}),
        );
        let both = || {
            if is_v2() {
                value(&container, "", "cpu.max")
            } else {
                format!(
                    "{} {}",
                    value(&container, "cpu.cfs_quota_us", ""),
                    value(&container, "cpu.cfs_period_us", "")
                )
            }
        };
        container.must(&["update", "--cpu-quota", "20000", &container.id]);
        assert_eq!(both(), "20000 100000", "{runtime:?}");
        container.must(&["update", "--cpu-period", "200000", &container.id]);
        assert_eq!(both(), "20000 200000", "{runtime:?}");
        container.must(&[
            "update",
            "--cpu-period",
            "10000",
            "--cpu-quota",
            "5000",
            &container.id,
        ]);
        assert_eq!(both(), "5000 10000", "{runtime:?}");
        container.must(&[
            "update",
            "--cpu-period",
            "500000",
            "--cpu-quota",
            "900000",
            &container.id,
        ]);
        assert_eq!(both(), "900000 500000", "{runtime:?}");
        container.must(&["update", "--cpu-quota", "-1", &container.id]);
        assert_eq!(
            both(),
            if is_v2() { "max 500000" } else { "-1 500000" },
            "{runtime:?}"
        );
    }
}

#[test]
fn update_reads_a_document_from_stdin_and_leaves_what_it_does_not_name() {
    for runtime in Runtime::all() {
        let container = sleeping(
            runtime,
            &json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512}, "pids": {"limit": 33}}),
        );
        let update = |document: &Value| {
            let file = container.bundle().join("stdin.json");
            std::fs::write(&file, document.to_string()).unwrap();
            let mut command = container.command(&["update", "--resources", "-", &container.id]);
            let output = command
                .stdin(std::fs::File::open(file).unwrap())
                .output()
                .unwrap();
            assert!(output.status.success(), "{runtime:?}: {output:?}");
        };
        update(
            &json!({"memory": {"limit": 96 << 20}, "devices": [{"allow": true, "type": "a", "access": "rwm"}], "pids": {"limit": 33}}),
        );
        assert_eq!(
            value(&container, "memory.limit_in_bytes", "memory.max"),
            "100663296",
            "{runtime:?}"
        );
        assert_eq!(
            value(&container, "pids.max", "pids.max"),
            "33",
            "{runtime:?}"
        );
        // Rules for devices are never updated.
        let (code, ..) = container.call(&[
            "exec",
            &container.id,
            "sh",
            "-c",
            "mknod /dev/m c 1 1 && cat /dev/m",
        ]);
        assert_ne!(code, Some(0), "{runtime:?}");
    }
}

#[test]
fn update_refuses_what_makes_no_sense_and_changes_nothing() {
    for runtime in Runtime::ours() {
        let container = sleeping(
            runtime,
            &json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}}),
        );
        let table: [(&[&str], &str); 7] = [
            (&["--cpu-share", "x"], "cpu-share"),
            (&["--memory", "lots"], "memory"),
            (&["--blkio-weight", "9"], "blockIO.weight"),
            (&["--pids-limit", "1.5"], "pids-limit"),
            (&["--cpu-quota", "1"], "cpu.quota"),
            (&["--cpuset-cpus", "4096"], "cpu.cpus"),
            (&["--resources", "/nonexistent"], "ENOENT"),
        ];
        for (flags, word) in table {
            let mut args = vec!["update"];
            args.extend(flags);
            args.push(&container.id);
            let (code, _, stderr) = container.call(&args);
            assert_eq!(code, Some(1), "{flags:?}: {stderr}");
            assert!(stderr.contains(word), "{flags:?}: {stderr}");
        }
        assert_eq!(
            value(&container, "memory.limit_in_bytes", "memory.max"),
            "67108864"
        );
        assert_eq!(value(&container, "pids.max", "pids.max"), "33");
    }
}

#[test]
fn limits_on_the_memory_of_the_kernel_are_ignored_with_a_warning() {
    for runtime in Runtime::ours() {
        let container = sleeping(runtime, &json!({}));
        let log = container.bundle().join("log");
        let (code, _, stderr) = container.call(&[
            "--debug",
            "--log",
            log.to_str().unwrap(),
            "update",
            "--kernel-memory",
            "8m",
            "--kernel-memory-tcp",
            "8m",
            &container.id,
        ]);
        assert_eq!(code, Some(0), "{stderr}");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("Kernel memory settings are ignored"), "{log}");
    }
}

/// runc ignores it; crun does the same as ours.
#[test]
fn a_limit_on_tcp_buffers_reaches_its_file_on_v1() {
    for runtime in Runtime::ours() {
        let container = sleeping(runtime, &json!({"memory": {"kernelTCP": 32 << 20}}));
        if is_v2() {
            continue;
        }
        let file = "memory.kmem.tcp.limit_in_bytes";
        assert_eq!(value(&container, file, ""), "33554432");
        container.must(&["update", "--kernel-memory-tcp", "8m", &container.id]);
        assert_eq!(value(&container, file, ""), "8388608");
    }
}

/// v1's network controllers are mounted in a mount namespace of the test's own, for as long as it lasts.
#[test]
fn network_classes_and_priorities_reach_their_files_on_v1() {
    let text = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if is_v2() || !text.contains("net_cls") || !text.contains("net_prio") {
        return eprintln!("skipped: this kernel has no net_cls and net_prio for cgroup v1");
    }
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["network"] =
                json!({"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 5}]});
        });
        container.write_config();
        let script = format!(
            "dir=/sys/fs/cgroup/net_cls,net_prio
            trap \"umount $dir; rmdir $dir\" EXIT
            mkdir -p $dir && mount -t cgroup -o net_cls,net_prio cgroup $dir || exit 99
            oci='{} --root {}'
            $oci run --detach {id} >/dev/null 2>err || {{ cat err; exit 98; }}
            cat $dir/{id}/net_cls.classid $dir/*/{id}/net_cls.classid 2>/dev/null
            cat $dir/{id}/net_prio.ifpriomap $dir/*/{id}/net_prio.ifpriomap 2>/dev/null | grep lo
            $oci delete --force {id} || exit 97",
            runtime.program(),
            container.state_root().display(),
            id = container.id
        );
        // One at a time on the whole host: the directory of the mount is everybody's.
        let output = std::process::Command::new("flock")
            .args([
                "-w",
                "60",
                "/sys/fs/cgroup",
                "timeout",
                "30",
                "unshare",
                "--mount",
            ])
            .args(["sh", "-c", &script])
            .current_dir(container.bundle())
            .output()
            .unwrap();
        let said = crate::harness::text(&output.stdout);
        assert!(output.status.success(), "{runtime:?}: {output:?}");
        assert_eq!(said, "1048577\nlo 5\n", "{runtime:?}");
    }
}
