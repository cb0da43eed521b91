//! Fields of the process and of its surroundings that only the kernel can show: labels, clocks, processors, memory
//! nodes, priorities, keys, groups.
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

/// A container whose program is this one, without a shell in between.
fn program(runtime: Runtime, args: &[&str]) -> Container {
    Container::new(runtime, "").with(|config| config["process"]["args"] = json!(args))
}

/// Writes a process for `exec --process` and runs it; what it wrote.
fn exec(container: &Container, script: &str, more: &Value) -> (Option<i32>, String, String) {
    let mut process = json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}
    });
    let object = process.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    let path = container.bundle().join("process.json");
    std::fs::write(&path, process.to_string()).unwrap();
    container.call(&["exec", "--process", path.to_str().unwrap(), &container.id])
}

/// The command behind another program.
fn behind(container: &Container, before: &[&str], args: &[&str]) -> String {
    container.write_config();
    let run = container.command(args);
    let output = Command::new(before[0])
        .args(&before[1..])
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(container.bundle())
        .output()
        .unwrap();
    assert!(output.status.success(), "{before:?}: {output:?}");
    text(&output.stdout)
}

fn fails_with(container: &Container, expected: &str) {
    let output = container.run();
    assert_eq!(output.status.code(), Some(1), "{:?}", container.runtime);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(expected),
        "{:?}: {stderr}",
        container.runtime
    );
    container.assert_nothing_left();
}

fn apparmor_is_on() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with(b"Y"))
}

#[test]
fn a_profile_without_apparmor_is_an_error_and_unconfined_is_none() {
    if apparmor_is_on() {
        eprintln!("skipped: this kernel has AppArmor");
        return;
    }
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["process"]["apparmorProfile"] = "davit-test".into());
        fails_with(&container, "unable to apply apparmor profile: apparmor");
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000")
            .with(|config| config["process"]["apparmorProfile"] = "unconfined".into());
        container.start();
        let (code, _, stderr) = exec(
            &container,
            "true",
            &json!({"apparmorProfile": "davit-test"}),
        );
        assert_eq!(code, Some(255), "{stderr}");
        assert!(
            stderr.contains("apparmor: config provided but apparmor not supported"),
            "{stderr}"
        );
    }
}

/// Loads a profile that allows everything but reading `/secret`; unloads it at the end.
struct Profile(&'static str);

impl Profile {
    fn load(name: &'static str) -> Self {
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n file,\n capability,\n signal,\n ptrace,\n unix,\n deny /secret r,\n}}\n"
        );
        Self::parser("-r", &text);
        Self(name)
    }

    fn parser(how: &str, text: &str) {
        use std::io::Write as _;
        let mut child = Command::new("apparmor_parser")
            .args([how, "--skip-cache"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "apparmor_parser {how}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        Self::parser("-R", &format!("profile {} {{}}\n", self.0));
    }
}

#[test]
fn a_program_and_one_that_exec_adds_are_confined_by_their_profile() {
    if !apparmor_is_on() {
        eprintln!("skipped: this kernel has no AppArmor");
        return;
    }
    for runtime in Runtime::all() {
        let _first = Profile::load("davit-test-one");
        let _second = Profile::load("davit-test-two");
        let script = "cat /proc/self/attr/current; cat /secret 2>&1; exec sleep 1000";
        let container = Container::new(runtime, script)
            .with(|config| config["process"]["apparmorProfile"] = "davit-test-one".into());
        std::fs::write(container.inside("secret"), "secret\n").unwrap();
        container.start();
        let label = || {
            let path = format!("/proc/{}/attr/current", container.pid());
            std::fs::read_to_string(path).unwrap()
        };
        crate::harness::eventually("the program runs", || label().contains("davit-test-one"));
        let show = "cat /proc/self/attr/current; cat /secret 2>&1";
        if runtime == Runtime::Davit {
            // What the process does not say is the container's; with runc it would run unconfined.
            let (_, shown, _) = exec(&container, show, &json!({}));
            assert!(shown.starts_with("davit-test-one (enforce)\n"), "{shown}");
            assert!(shown.contains("Permission denied"), "{shown}");
        }
        let (_, shown, _) = exec(
            &container,
            show,
            &json!({"apparmorProfile": "davit-test-two"}),
        );
        assert!(
            shown.starts_with("davit-test-two (enforce)\n"),
            "{runtime:?}: {shown}"
        );
        let (code, _, stderr) = exec(
            &container,
            show,
            &json!({"apparmorProfile": "davit-test-no"}),
        );
        assert_eq!(code, Some(255), "{runtime:?}: {stderr}");
        assert!(
            stderr.contains("apparmor failed to apply profile"),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error_with_its_name() {
    if !apparmor_is_on() {
        eprintln!("skipped: this kernel has no AppArmor");
        return;
    }
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["process"]["apparmorProfile"] = "davit-test-missing".into());
        fails_with(&container, "apparmor failed to apply profile");
    }
}

#[test]
fn labels_without_selinux_are_errors() {
    if std::path::Path::new("/sys/fs/selinux/status").exists() {
        eprintln!("skipped: this kernel has SELinux");
        return;
    }
    let expected = "selinux label is specified in config, but selinux is disabled or not supported";
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["process"]["selinuxLabel"] = "u:r:t:s0".into());
        fails_with(&container, expected);
    }
    for runtime in Runtime::ours() {
        // The label of mounts means nothing then, and is left out.
        let container = Container::new(runtime, "true")
            .with(|config| config["linux"]["mountLabel"] = "u:r:t:s0".into());
        let output = container.run();
        assert!(output.status.success(), "{output:?}");
        assert!(
            text(&output.stderr).contains("linux.mountLabel: ignored"),
            "{output:?}"
        );
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let (code, _, stderr) = exec(&container, "true", &json!({"selinuxLabel": "u:r:t:s0"}));
        assert_eq!(code, Some(255));
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// With the clocks of the container a day and more ahead.
fn with_clocks(container: Container) -> Container {
    container.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": 86400}, "boottime": {"secs": 1_000_000_000, "nanosecs": 5}});
    })
}

#[test]
fn clocks_of_a_time_namespace_differ_as_configured_also_in_exec() {
    for runtime in Runtime::ours() {
        let script = "cut -d . -f 1 /proc/uptime; cat /proc/self/timens_offsets";
        let check = |shown: &str| {
            let mut lines = shown.lines();
            let uptime: u64 = lines.next().unwrap().parse().unwrap();
            assert!(uptime > 1_000_000_000, "{shown}");
            let offsets: Vec<_> = lines
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .collect();
            assert_eq!(
                offsets,
                [["monotonic", "86400", "0"], ["boottime", "1000000000", "5"]]
            );
        };
        let container = with_clocks(Container::new(runtime, script));
        check(&container.output());
        let container = with_clocks(Container::new(runtime, "sleep 1000"));
        container.start();
        check(&exec(&container, script, &json!({})).1);
    }
}

#[test]
fn a_user_namespace_has_clocks_of_its_own_too() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cut -d . -f 1 /proc/uptime");
        let container = with_clocks(crate::userns::with_users(container));
        assert!(container.output().trim().parse::<u64>().unwrap() > 1_000_000_000);
    }
}

#[test]
fn a_time_namespace_is_new_without_offsets_and_the_same_where_it_is_joined() {
    for runtime in Runtime::ours() {
        let script = "readlink /proc/self/ns/time; exec sleep 1000";
        let first = with_clocks(Container::new(runtime, script)).with(|config| {
            config["linux"]
                .as_object_mut()
                .unwrap()
                .remove("timeOffsets");
        });
        first.start();
        let path = format!("/proc/{}/ns/time", first.pid());
        let theirs = std::fs::read_link(&path).unwrap();
        assert_ne!(theirs, std::fs::read_link("/proc/self/ns/time").unwrap());
        let second = Container::new(runtime, "readlink /proc/self/ns/time").with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "time", "path": path}));
        });
        assert_eq!(second.output().trim(), theirs.to_str().unwrap());
    }
}

#[test]
fn an_offset_that_no_clock_can_have_is_an_error() {
    for runtime in Runtime::ours() {
        let container = with_clocks(Container::new(runtime, "true")).with(|config| {
            config["linux"]["timeOffsets"]["boottime"]["secs"] = i64::MAX.into();
        });
        fails_with(&container, "linux.timeOffsets: write(\"/proc/");
    }
}

#[test]
fn the_memory_policy_holds_for_every_process() {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        eprintln!("skipped: this kernel has no memory nodes");
        return;
    }
    for runtime in Runtime::ours() {
        for (policy, shown) in [
            (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
            (
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
                "interleave:0",
            ),
            (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
            (json!({"mode": "MPOL_LOCAL"}), "local"),
            (json!({"mode": "MPOL_DEFAULT"}), "default"),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
                "bind=static:0",
            ),
            (
                json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}),
                "prefer (many)=relative:0",
            ),
        ] {
            let script = "head -1 /proc/self/numa_maps | cut -d ' ' -f 2-3; exec sleep 1000";
            let container = Container::new(runtime, script)
                .with(|config| config["linux"]["memoryPolicy"] = policy.clone());
            container.start();
            let (_, text, stderr) = exec(
                &container,
                "head -1 /proc/self/numa_maps | cut -d ' ' -f 2-3",
                &json!({}),
            );
            assert!(text.starts_with(shown), "{policy}: {text} {stderr}");
            let own = || std::fs::read_to_string(format!("/proc/{}/numa_maps", container.pid()));
            crate::harness::eventually("the program has the policy", || {
                own().is_ok_and(|maps| maps.contains(&format!(" {shown}")))
            });
        }
        let container = Container::new(runtime, "true").with(|config| {
            config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
        });
        fails_with(&container, "linux.memoryPolicy: set_mempolicy(0x2, [1000])");
    }
}

#[test]
fn the_personality_with_its_flags_holds_for_every_process() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["personality"] =
                json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]});
        });
        container.start();
        let path = format!("/proc/{}/personality", container.pid());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "00040008\n");
        let (_, shown, _) = exec(&container, "cat /proc/self/personality", &json!({}));
        assert_eq!(shown, "00040008\n");
    }
}

#[test]
fn the_processors_that_the_caller_is_bound_to_concern_no_container() {
    let all = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    let host = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, all);
        let shown = behind(&container, &["taskset", "-c", "0"], &["run", &container.id]);
        assert_eq!(shown, host);
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let args = ["exec", &container.id, "sh", "-c", all];
        assert_eq!(behind(&container, &["taskset", "-c", "0"], &args), host);
    }
}

#[test]
fn exec_runs_on_the_processors_that_it_is_given() {
    let own = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        });
        container.start();
        assert_eq!(
            exec(&container, own, &json!({})).1,
            "0\n",
            "as the container says"
        );
        let last = json!({"execCPUAffinity": {"final": "1"}});
        if std::fs::read_to_string("/sys/devices/system/cpu/online")
            .unwrap()
            .trim()
            != "0"
        {
            assert_eq!(exec(&container, own, &last).1, "1\n");
        }
        for (field, name) in [("initial", "initial"), ("final", "final")] {
            let none = json!({"execCPUAffinity": {field: "8000"}});
            let (code, _, stderr) = exec(&container, own, &none);
            assert_eq!(code, Some(255));
            let expected = format!("process.execCPUAffinity.{name}: sched_setaffinity(0, [8000])");
            assert!(stderr.contains(&expected), "{stderr}");
        }
    }
}

#[test]
fn every_scheduling_policy_that_this_machine_gives_is_set() {
    // nice, real-time priority, policy
    let stat = ["cut", "-d", " ", "-f", "19,40,41", "/proc/self/stat"];
    for runtime in Runtime::ours() {
        for (scheduler, shown) in [
            (json!({"policy": "SCHED_OTHER", "nice": 7}), "7 0 0"),
            (json!({"policy": "SCHED_BATCH", "nice": -3}), "-3 0 3"),
            (json!({"policy": "SCHED_IDLE"}), "0 0 5"),
            (json!({"policy": "SCHED_FIFO", "priority": 11}), "0 11 1"),
            (
                json!({"policy": "SCHED_RR", "priority": 12, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
                "0 12 2",
            ),
            (
                json!({"policy": "SCHED_DEADLINE", "runtime": 100_000, "deadline": 10_000_000, "period": 10_000_000}),
                "0 0 6",
            ),
        ] {
            let container = program(runtime, &stat)
                .with(|config| config["process"]["scheduler"] = scheduler.clone());
            let output = container.run();
            let stderr = text(&output.stderr);
            // A cgroup without real-time time, or a machine that promises no deadline.
            if stderr.contains("process.scheduler: sched_setattr(") && scheduler["nice"].is_null() {
                eprintln!("skipped: this machine refuses {scheduler}: {stderr}");
                continue;
            }
            assert_eq!(text(&output.stdout).trim(), shown, "{scheduler}: {stderr}");
        }
    }
}

#[test]
fn the_io_priority_is_set() {
    for runtime in Runtime::ours() {
        for (class, priority, shown) in [
            ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
            ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
            ("IOPRIO_CLASS_IDLE", 0, "idle"),
        ] {
            let container = program(runtime, &["busybox", "ionice"]).with(|config| {
                config["process"]["ioPriority"] = json!({"class": class, "priority": priority});
            });
            assert!(container.output().starts_with(shown), "{class}");
        }
    }
}

#[test]
fn oom_score_adj_is_untouched_where_unset_and_lowered_only_by_who_may() {
    // Bit 24: CAP_SYS_RESOURCE.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    let may = u64::from_str_radix(effective.unwrap(), 16).unwrap() & 1 << 24 != 0;
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /proc/self/oom_score_adj");
        let raise = [
            "sh",
            "-c",
            "echo 321 > /proc/self/oom_score_adj; exec \"$@\"",
            "sh",
        ];
        assert_eq!(
            behind(&container, &raise, &["run", &container.id]),
            "321\n",
            "{runtime:?}"
        );

        let container = container.with(|config| config["process"]["oomScoreAdj"] = (-999).into());
        if may {
            assert_eq!(container.output(), "-999\n", "{runtime:?}");
            continue;
        }
        let output = container.run();
        assert!(!output.status.success(), "{runtime:?}");
        container.assert_nothing_left();
        if runtime == Runtime::Davit {
            let stderr = text(&output.stderr);
            assert!(
                stderr.contains("process.oomScoreAdj: write(\"/proc/"),
                "{stderr}"
            );
            assert!(stderr.contains("needs CAP_SYS_RESOURCE"), "{stderr}");
            let args = ["--rootless", "true", "run", &container.id];
            let (code, shown, _) = container.call(&args);
            assert_eq!((code, shown.as_str()), (Some(0), "0\n"));
        }
    }
}

#[test]
fn groups_of_the_caller_are_kept_where_an_annotation_asks_for_it() {
    let groups = "grep Groups /proc/self/status | cut -f 2";
    for runtime in Runtime::ours() {
        for (value, shown) in [("1", "7 8"), ("0", "")] {
            let container = Container::new(runtime, groups).with(|config| {
                config["annotations"] = json!({"run.oci.keep_original_groups": value});
            });
            let caller = ["setpriv", "--groups", "7,8"];
            let text = behind(&container, &caller, &["run", &container.id]);
            assert_eq!(text.trim(), shown, "{value}");

            let container = Container::new(runtime, "sleep 1000").with(|config| {
                config["annotations"] = json!({"run.oci.keep_original_groups": value});
            });
            container.start();
            let args = ["exec", &container.id, "sh", "-c", groups];
            assert_eq!(
                behind(&container, &caller, &args).trim(),
                shown,
                "exec, {value}"
            );
        }
    }
}

#[test]
fn the_session_keyring_is_the_containers_and_can_be_searched() {
    if !std::path::Path::new("/proc/keys").exists() {
        eprintln!("skipped: this kernel lists no keys");
        return;
    }
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        let name = format!("_ses.{}", container.id);
        container.start();
        let (_, shown, _) = exec(&container, "cat /proc/keys", &json!({}));
        let line: Vec<&str> = shown
            .lines()
            .find(|line| line.contains(&name))
            .unwrap_or_else(|| panic!("{runtime:?}: {shown}"))
            .split_whitespace()
            .collect();
        let permissions = u32::from_str_radix(line[4], 16).unwrap();
        assert_eq!(
            permissions & 0x0008_0000,
            0x0008_0000,
            "{runtime:?}: {line:?}"
        );
        let count = shown.lines().filter(|line| line.contains(&name)).count();
        assert_eq!(
            count, 1,
            "{runtime:?}: exec joins the same keyring: {shown}"
        );
    }
}

#[test]
fn parameters_of_the_network_need_another_network_than_the_hosts() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true").with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
            namespaces.push(json!({"type": "network", "path": "/proc/self/ns/net"}));
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        });
        fails_with(&container, "not allowed in host network namespace");
    }
}

#[test]
fn a_kernel_parameter_may_be_written_with_slashes() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
        )
        .with(|config| {
            config["linux"]["sysctl"] = json!({"net/ipv4/ip_forward": "1", "kernel/shmmni": "321"});
        });
        assert_eq!(container.output(), "1\n321\n", "{runtime:?}");
    }
}

#[test]
fn empty_capability_sets_keep_none() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "grep Cap /proc/self/status | cut -f 2 | sort -u")
            .with(|config| config["process"]["capabilities"] = json!({}));
        assert_eq!(container.output(), "0000000000000000\n", "{runtime:?}");
    }
}

#[test]
fn parameters_of_the_user_namespace_can_be_set_in_one() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cat /proc/sys/user/max_inotify_watches");
        let container = crate::userns::with_users(container).with(|config| {
            config["linux"]["sysctl"] = json!({"user.max_inotify_watches": "4321"});
        });
        assert_eq!(container.output(), "4321\n");
    }
}

/// features.md: "The runtime MUST recognize the elements in this array".
#[test]
fn what_features_lists_of_these_fields_is_taken() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let features: Value = serde_json::from_str(&container.must(&["features"])).unwrap();
        let linux = &features["linux"];
        for (pointer, value) in [
            ("/apparmor/enabled", json!(true)),
            ("/selinux/enabled", json!(true)),
            ("/netDevices/enabled", json!(true)),
            ("/mountExtensions/idmap/enabled", json!(true)),
            (
                "/namespaces",
                json!([
                    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"
                ]),
            ),
            (
                "/memoryPolicy/flags",
                json!([
                    "MPOL_F_NUMA_BALANCING",
                    "MPOL_F_RELATIVE_NODES",
                    "MPOL_F_STATIC_NODES"
                ]),
            ),
        ] {
            assert_eq!(linux.pointer(pointer), Some(&value), "{pointer}");
        }
        assert_eq!(linux["memoryPolicy"]["modes"].as_array().unwrap().len(), 7);
        assert_eq!(linux["capabilities"].as_array().unwrap().len(), 41);
        assert_eq!(
            features["hooks"],
            json!([
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop"
            ])
        );
        // An unknown capability or namespace would be named.
        let container = container.with(|config| {
            config["process"]["capabilities"] = json!({"bounding": linux["capabilities"]});
        });
        let output = container.run();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        let unsafe_annotations = features["potentiallyUnsafeConfigAnnotations"].as_array();
        assert!(
            unsafe_annotations.is_some_and(|list| list.contains(&json!("run.oci.hooks.stdout")))
        );
    }
}
