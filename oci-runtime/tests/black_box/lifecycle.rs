//! create, start, state, kill, delete, list, run.
use serde_json::Value;

use crate::harness::{Container, Runtime, eventually, text};

#[test]
fn a_container_passes_through_all_its_states() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        let pid_file = container.bundle().join("pid");
        container.must(&[
            "create",
            "--pid-file",
            pid_file.to_str().unwrap(),
            &container.id,
        ]);
        assert_eq!(container.status(), "created");
        assert_eq!(
            std::fs::read_to_string(&pid_file).unwrap(),
            container.pid().to_string()
        );
        container.must(&["start", &container.id]);
        assert_eq!(container.status(), "running");
        container.must(&["kill", &container.id, "KILL"]);
        eventually("the container stops", || container.status() == "stopped");
        assert_eq!(container.pid(), 0);
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn the_exit_code_of_run_is_that_of_the_program() {
    for runtime in Runtime::all() {
        assert_eq!(
            Container::new(runtime, "exit 7").run().status.code(),
            Some(7)
        );
        assert_eq!(
            Container::new(runtime, "kill -TERM $$; sleep 1")
                .run()
                .status
                .code()
                .map(|code| code & !143),
            Some(0)
        );
        let container = Container::new(runtime, "true");
        assert_eq!(container.run().status.code(), Some(0));
        container.assert_nothing_left();
    }
}

#[test]
fn a_program_that_a_signal_ends_counts_as_128_plus_signal() {
    for runtime in Runtime::all() {
        // Not as the first process, which the kernel protects from its own signals.
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let (code, ..) = container.call(&["exec", &container.id, "sh", "-c", "kill -KILL $$"]);
        assert_eq!(code, Some(137), "{runtime:?}");
    }
}

#[test]
fn an_id_is_unique() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let (code, _, stderr) = container.call(&["create", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("container with given ID already exists")
                || stderr.contains("already exists"),
            "{stderr}"
        );
        assert_eq!(container.status(), "running", "the first one is untouched");
    }
}

#[test]
fn what_does_not_exist_is_said_not_to_exist() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        for verb in ["state", "start", "kill", "delete"] {
            let (code, _, stderr) = container.call(&[verb, "no-such-container"]);
            assert_eq!(code, Some(1), "{verb}");
            assert!(stderr.contains("does not exist"), "{verb}: {stderr}");
        }
        container.must(&["delete", "--force", "no-such-container"]);
    }
}

#[test]
fn commands_in_the_wrong_state_are_refused_by_name() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let refused = |args: &[&str], expected: &str| {
            let (code, _, stderr) = container.call(args);
            assert_ne!(code, Some(0), "{args:?}");
            assert!(stderr.contains(expected), "{runtime:?} {args:?}: {stderr}");
        };
        refused(
            &["start", &container.id],
            "cannot start an already running container",
        );
        refused(&["delete", &container.id], "that is not stopped: running");
        container.must(&["kill", &container.id, "9"]);
        eventually("the container stops", || container.status() == "stopped");
        refused(
            &["start", &container.id],
            "cannot start a container that has stopped",
        );
        refused(
            &["exec", &container.id, "true"],
            "cannot exec in a stopped container",
        );
    }
}

#[test]
fn killing_a_stopped_container_says_that_it_does_not_run() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.start();
        eventually("the container stops", || container.status() == "stopped");
        let (code, _, stderr) = container.call(&["kill", &container.id]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("container not running"), "{stderr}");
        container.must(&["kill", "--all", &container.id, "KILL"]);
    }
}

#[test]
fn a_created_container_can_be_deleted() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        container.must(&["create", &container.id]);
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn force_ends_a_running_container() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "trap '' TERM; sleep 1000 & wait");
        container.start();
        container.must(&["delete", "--force", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn the_list_names_every_container() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let list: Value =
            serde_json::from_str(&container.must(&["list", "--format", "json"])).unwrap();
        assert_eq!(list[0]["id"], container.id.as_str());
        assert_eq!(list[0]["status"], "running");
        assert_eq!(list[0]["owner"], "root");
        assert_eq!(
            container.must(&["list", "-q"]),
            format!("{}\n", container.id)
        );
        let table = container.must(&["list"]);
        assert!(
            table.starts_with("ID ") && table.contains("PID         STATUS      BUNDLE"),
            "{table}"
        );
        container.must(&["delete", "-f", &container.id]);
        assert_eq!(container.must(&["list", "-f=json"]).trim(), "null");
    }
}

#[test]
fn only_one_of_many_simultaneous_starts_wins() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        container.must(&["create", &container.id]);
        let won = std::thread::scope(|scope| {
            let start = || container.call(&["start", &container.id]).0 == Some(0);
            let all: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            all.into_iter()
                .map(|one| one.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(won, 1);
        assert_eq!(container.status(), "running");
    }
}

#[test]
fn a_runtime_that_is_killed_while_creating_leaves_what_delete_removes() {
    let runtimes = Runtime::ours();
    for (runtime, force) in runtimes
        .iter()
        .flat_map(|one| [(*one, true), (*one, false)])
    {
        let container = Container::new(runtime, "true").with(|config| {
            config["hooks"] = serde_json::json!({"prestart": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
        });
        container.write_config();
        let mut create = std::process::Command::new(runtime.program())
            .arg("--root")
            .arg(container.state_root())
            .args(["create", "--bundle"])
            .arg(container.bundle())
            .arg(&container.id)
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", create.id());
        let count = || {
            std::fs::read_to_string(&children)
                .unwrap_or_default()
                .split_whitespace()
                .count()
        };
        eventually("the hook runs", || count() >= 2);
        let children: Vec<i32> = std::fs::read_to_string(&children)
            .unwrap()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        let (code, _, stderr) = container.call(&["delete", &container.id]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("that is not stopped: creating"), "{stderr}");
        create.kill().unwrap();
        create.wait().unwrap();
        if force {
            container.must(&["delete", "--force", &container.id]);
        } else {
            // Once the first process has seen the end of its runtime, nobody is making it any more.
            eventually("it is deleted", || {
                container.call(&["delete", &container.id]).0 == Some(0)
            });
        }
        for pid in children {
            // The hook is nobody's any more; the container's process has seen the end of its runtime.
            let _may_be_gone = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        eventually("nothing is left", || {
            crate::harness::cgroups_named(&container.id).is_empty()
        });
        container.assert_nothing_left();
    }
}

/// As with runc: the directory goes, and yet there was no container to delete.
#[test]
fn a_directory_without_a_state_is_removed_by_delete_and_is_no_container() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        let dir = container.state_root().join(&container.id);
        for force in [false, true] {
            std::fs::create_dir_all(&dir).unwrap();
            let args = ["delete", "--force", &container.id];
            let args = if force {
                &args[..]
            } else {
                &["delete", &container.id]
            };
            let (code, _, stderr) = container.call(args);
            assert_eq!(code, Some(i32::from(!force)), "{runtime:?} {stderr}");
            assert_eq!(
                stderr.contains("does not exist"),
                !force,
                "{runtime:?} {stderr}"
            );
            assert!(!dir.exists(), "{runtime:?}");
        }
    }
}

#[test]
fn versions_and_features_are_what_consumers_parse() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let version = container.must(&["--version"]);
        assert!(
            version.starts_with("davit-oci version ") && version.contains("\nspec: 1."),
            "{version}"
        );
        let features: Value = serde_json::from_str(&container.must(&["features"])).unwrap();
        assert!(features["mountOptions"].as_array().unwrap().len() > 60);
        let seccomp = &features["linux"]["seccomp"];
        assert_eq!(seccomp["enabled"], true);
        let flags = [
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ];
        assert_eq!(seccomp["knownFlags"], serde_json::json!(flags));
        assert_eq!(seccomp["supportedFlags"], serde_json::json!(flags));
        for (list, count) in [("actions", 9), ("operators", 7), ("archs", 23)] {
            assert_eq!(seccomp[list].as_array().unwrap().len(), count, "{list}");
        }
    }
}

#[test]
fn the_written_spec_runs() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        container.must(&["spec"]);
        let (code, _, stderr) = container.call(&["spec"]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("exists"), "{stderr}");
        let text = std::fs::read_to_string(container.bundle().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["cat", "/proc/1/comm"]);
        let container = container.with(|old| *old = config);
        assert_eq!(container.output(), "cat\n");
    }
}

#[test]
fn an_error_is_one_json_object_in_the_log() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["process"]["args"] = serde_json::json!(["no-such"]));
        container.write_config();
        let log = container.bundle().join("log.json");
        let args = [
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            "create",
            &container.id,
        ];
        assert_eq!(container.call(&args).0, Some(1));
        let entry: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
        assert_eq!(entry["level"], "error");
        let message = entry["msg"].as_str().unwrap();
        assert!(
            message.contains(r#"exec: "no-such": executable file not found in $PATH"#),
            "{message}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn help_is_shown_for_the_program_and_each_command() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        assert!(container.must(&["--help"]).contains("Commands:"));
        for verb in [
            "create", "start", "run", "state", "kill", "delete", "exec", "list", "update", "spec",
            "features",
        ] {
            assert!(
                container
                    .must(&[verb, "--help"])
                    .contains(&format!("Usage: davit-oci {verb}")),
                "{verb}"
            );
        }
        let (code, _, stderr) = container.call(&["frobnicate"]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("no such command: \"frobnicate\""),
            "{stderr}"
        );
    }
}

#[test]
fn run_forwards_signals_to_the_program() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "trap 'exit 42' USR1; echo ready; while :; do sleep 0.1; done",
        );
        container.write_config();
        let mut run = std::process::Command::new(runtime.program())
            .arg("--root")
            .arg(container.state_root())
            .args(["run", "--bundle"])
            .arg(container.bundle())
            .arg(&container.id)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = run.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(42), "{runtime:?}");
    }
}

#[test]
fn a_detached_run_returns_while_the_program_runs() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "echo hello; sleep 1000");
        container.write_config();
        let stdout = container.must(&["run", "--detach", &container.id]);
        assert_eq!(container.status(), "running");
        assert!(
            stdout.is_empty() || stdout == "hello\n",
            "{}",
            text(stdout.as_bytes())
        );
    }
}

#[test]
fn a_state_too_long_for_a_socket_message_still_reaches_the_hooks() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let out = container.bundle().join("state-of-hook");
        let script = format!("cat > {}", out.display());
        let container = container.with(|config| {
            config["annotations"] = serde_json::json!({"org.example.long": "x".repeat(1_000_000)});
            config["hooks"] = serde_json::json!({
                "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]
            });
        });
        let output = container.run();
        assert!(output.status.success(), "{output:?}");
        let state: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(
            state["annotations"]["org.example.long"]
                .as_str()
                .unwrap()
                .len(),
            1_000_000
        );
    }
}

#[test]
fn a_signal_to_all_reaches_every_process() {
    for runtime in Runtime::ours() {
        let script = "sh -c 'trap \"echo a >> /tmp/out; exit\" USR1; touch /tmp/child; while :; do sleep 0.1; done' & \
            trap 'wait; echo b >> /tmp/out; exit' USR1; touch /tmp/ready; while :; do sleep 0.1; done";
        let container = Container::new(runtime, script);
        container.start();
        // Each has its trap before it says so: without one the signal would end it.
        for name in ["tmp/ready", "tmp/child"] {
            eventually("both are ready", || container.inside(name).exists());
        }
        container.must(&["kill", "--all", &container.id, "USR1"]);
        eventually("both were told", || {
            std::fs::read_to_string(container.inside("tmp/out")).is_ok_and(|text| text == "a\nb\n")
        });
    }
}

#[test]
fn a_container_runs_without_pivot_root() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "ls -d /bin/busybox; ls / | grep -c ^home$");
        container.write_config();
        let (code, stdout, stderr) = container.call(&["run", "--no-pivot", &container.id]);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(1), "/bin/busybox\n0\n"),
            "{runtime:?}: {stderr}"
        );
        container.assert_nothing_left();
    }
}
