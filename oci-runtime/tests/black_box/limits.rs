//! Limits: on the host as it is, and on cgroup v2 in a mount namespace of our own.
use serde_json::json;

use crate::harness::{Container, Runtime, cgroups_named};

#[test]
fn limits_are_in_the_cgroup_before_the_program_runs() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
            config["linux"]["resources"]["pids"] = json!({"limit": 17});
            config["linux"]["resources"]["cpu"] =
                json!({"quota": 50_000, "period": 100_000, "shares": 512});
        });
        container.start();
        let value = |controller: &str, file: &str| {
            let dirs = cgroups_named(&container.id);
            let dir = dirs.iter().find(|dir| dir.join(file).exists());
            let dir = dir.unwrap_or_else(|| panic!("no {controller} cgroup with {file}: {dirs:?}"));
            std::fs::read_to_string(dir.join(file))
                .unwrap()
                .trim()
                .to_owned()
        };
        if sys::cgroup::Hierarchies::detect().unwrap().mode() == sys::cgroup::Mode::V2 {
            assert_eq!(value("memory", "memory.max"), "67108864");
            assert_eq!(value("pids", "pids.max"), "17");
            assert_eq!(value("cpu", "cpu.max"), "50000 100000");
        } else {
            assert_eq!(
                value("memory", "memory.limit_in_bytes"),
                "67108864",
                "{runtime:?}"
            );
            assert_eq!(value("pids", "pids.max"), "17", "{runtime:?}");
            assert_eq!(value("cpu", "cpu.cfs_quota_us"), "50000", "{runtime:?}");
            assert_eq!(value("cpu", "cpu.shares"), "512", "{runtime:?}");
        }
    }
}

#[test]
fn a_program_over_its_memory_limit_is_killed() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
        });
        container.start();
        let (code, ..) = container.call(&[
            "exec",
            &container.id,
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=100M",
            "count=1",
        ]);
        assert_eq!(code, Some(137), "{runtime:?}");
    }
}

#[test]
fn processors_that_are_not_there_are_refused_with_those_that_are() {
    let online = |of: &str| {
        let list = std::fs::read_to_string(format!("/sys/devices/system/{of}/online"));
        list.map_or_else(|_| "none".to_owned(), |list| list.trim().to_owned())
    };
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        for (flag, value, errno) in [
            ("--cpuset-cpus", "0-9999", "(ERANGE)"),
            ("--cpuset-cpus", "first", "(EINVAL)"),
            ("--cpuset-mems", "63", "(EINVAL)"),
        ] {
            let (code, _, stderr) = container.call(&["update", flag, value, &container.id]);
            assert_eq!(code, Some(1), "{flag} {value}");
            let of = if flag == "--cpuset-cpus" {
                "cpu"
            } else {
                "node"
            };
            let hint = format!(
                "online are {}, and the parent cgroup's cpuset has ",
                online(of)
            );
            assert!(stderr.contains(errno) && stderr.contains(&hint), "{stderr}");
        }
    }
}

/// A caller that is told "no" finds everything as it was.
#[test]
fn an_update_that_is_refused_changes_nothing() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            let resources = &mut config["linux"]["resources"];
            resources["cpu"] = json!({"shares": 512, "quota": 40_000, "period": 100_000});
            resources["memory"] =
                json!({"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20});
            resources["pids"] = json!({"limit": 50});
        });
        container.start();
        let limits = || {
            let files = cgroups_named(&container.id).into_iter().flat_map(|dir| {
                std::fs::read_dir(dir)
                    .unwrap()
                    .flatten()
                    .map(|entry| entry.path())
            });
            let is_limit = |path: &std::path::PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                let limits = [
                    "limit_in_bytes",
                    ".max",
                    "shares",
                    "_us",
                    "weight",
                    "cpuset.cpus",
                    "_device",
                ];
                limits.iter().any(|end| name.ends_with(end))
            };
            let read = |path: std::path::PathBuf| {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                (path, text)
            };
            files
                .filter(is_limit)
                .map(read)
                .collect::<std::collections::BTreeMap<_, _>>()
        };
        let before = limits();
        assert!(
            before.values().any(|text| text.trim() == "50"),
            "{before:?}"
        );
        let disk = std::fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
            let numbers = std::fs::read_to_string(entry.path().join("dev")).ok()?;
            let (major, minor) = numbers.trim().split_once(':')?;
            Some(json!([{"major": major.parse::<u32>().ok()?, "minor": minor.parse::<u32>().ok()?, "rate": 1 << 20}]))
        });
        for lower in [true, false] {
            let mebibytes = if lower { 48 } else { 256 };
            let wanted = json!({
                "cpu": {"shares": 300, "quota": 20_000, "period": 50_000},
                "memory": {"limit": mebibytes << 20, "swap": (mebibytes + 8) << 20, "reservation": 16 << 20},
                "pids": {"limit": 77},
                "blockIO": {"throttleReadBpsDevice": disk},
                // The last that is set, and of a size that no processor has.
                "hugepageLimits": [{"pageSize": "3MB", "limit": 3 << 20}]
            });
            std::fs::write(container.bundle().join("wanted.json"), wanted.to_string()).unwrap();
            let (code, _, stderr) = container.call(&["update", "-r", "wanted.json", &container.id]);
            assert_eq!(code, Some(1), "{stderr}");
            assert!(
                stderr.contains("hugepageLimits") && !stderr.contains("not set back"),
                "{stderr}"
            );
            let after = limits();
            for (path, value) in &before {
                assert_eq!(after.get(path), Some(value), "{}", path.display());
            }
        }
    }
}

#[test]
fn update_changes_limits_by_flags_and_by_document() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        });
        container.start();
        let value = |file: &str| {
            let dirs = cgroups_named(&container.id);
            let dir = dirs.iter().find(|dir| dir.join(file).exists()).unwrap();
            std::fs::read_to_string(dir.join(file))
                .unwrap()
                .trim()
                .to_owned()
        };
        let v2 = sys::cgroup::Hierarchies::detect().unwrap().mode() == sys::cgroup::Mode::V2;
        let memory = if v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        container.must(&[
            "update",
            "--memory",
            "32m",
            "--pids-limit",
            "11",
            &container.id,
        ]);
        assert_eq!(
            (value(memory).as_str(), value("pids.max").as_str()),
            ("33554432", "11"),
            "{runtime:?}"
        );
        let file = container.bundle().join("resources.json");
        std::fs::write(
            &file,
            json!({"memory": {"limit": 48 << 20}, "pids": {"limit": 12}}).to_string(),
        )
        .unwrap();
        container.must(&[
            "update",
            "--resources",
            file.to_str().unwrap(),
            &container.id,
        ]);
        assert_eq!(
            (value(memory).as_str(), value("pids.max").as_str()),
            ("50331648", "12"),
            "{runtime:?}"
        );
    }
}

/// `podman --pids-limit 0` means no limit, and writes just that.
#[test]
fn no_processes_at_all_means_no_limit_before_version_1_3() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["pids"] = json!({"limit": 0});
        });
        container.start();
        assert_eq!(pids_max(&container), "max", "{runtime:?}");
        container.must(&["exec", &container.id, "sh", "-c", "true; true"]);
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["ociVersion"] = "1.3.0".into();
            config["linux"]["resources"]["pids"] = json!({"limit": 0});
        });
        container.start();
        assert_eq!(pids_max(&container), "1");
    }
}

fn pids_max(container: &Container) -> String {
    let dirs = cgroups_named(&container.id);
    let file = dirs
        .iter()
        .map(|dir| dir.join("pids.max"))
        .find(|file| file.exists());
    let text = std::fs::read_to_string(file.unwrap()).unwrap();
    text.trim().to_owned()
}

#[test]
fn a_cgroups_path_is_taken_as_it_is_and_goes_with_the_container() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        let name = format!("{}-own", container.id);
        let path = format!("/davit-tests/{name}");
        let container =
            container.with(|config| config["linux"]["cgroupsPath"] = path.clone().into());
        container.start();
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
        assert!(
            own.lines().filter(|line| line.ends_with(&path)).count() >= 1,
            "{runtime:?}: {own}"
        );
        container.must(&["delete", "-f", &container.id]);
        assert_eq!(cgroups_named(&name), Vec::<std::path::PathBuf>::new());
        // A parent that the path names is nobody's to remove but its maker's: here, ours.
        for parent in cgroups_named("davit-tests") {
            drop(std::fs::remove_dir(parent));
        }
    }
}

/// Everything of the life of a container once more, where every tool believes that the host has only cgroup v2.
#[test]
fn containers_live_on_cgroup_v2_as_well() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cut -d : -f 1,3 /proc/self/cgroup | tail -1; grep ' /sys/fs/cgroup ' /proc/self/mountinfo | grep -c cgroup2; ls /sys/fs/cgroup/cgroup.procs")
            .with(|config| {
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
                config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
                config["mounts"].as_array_mut().unwrap().push(
                    json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}),
                );
            });
        container.write_config();
        let script = format!(
            "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99
            oci='{} --root {}'
            $oci run {id} || exit 98
            sed -i 's/cut -d/sleep 1000; cut -d/' config.json
            $oci run --detach {id} >/dev/null || exit 97
            $oci exec {id} cat /dev/mem 2>/dev/null && exit 96
            $oci exec {id} cat /proc/1/comm || exit 95
            $oci kill {id} KILL || exit 94
            $oci delete --force {id} || exit 93
            find /sys/fs/cgroup -name {id}",
            runtime.program(),
            container.state_root().display(),
            id = container.id
        );
        let output = std::process::Command::new("timeout")
            .args(["30", "unshare", "--mount", "sh", "-c", &script])
            .current_dir(container.bundle())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let stdout = crate::harness::text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            stdout,
            "0:/\n1\n/sys/fs/cgroup/cgroup.procs\nsleep\n".replace("sleep", "sh"),
            "{output:?}"
        );
    }
}

#[test]
fn a_limit_too_small_to_start_says_so() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 20 << 10, "swap": 20 << 10});
        });
        container.write_config();
        let (code, _, stderr) = container.call(&["create", &container.id]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(
            stderr.contains("OOM-killed (memory limit too low?)"),
            "{stderr}"
        );
        container.assert_nothing_left();
    }
}
