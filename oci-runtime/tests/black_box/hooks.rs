//! Hooks: their order, their state, their place in the container's life.
use serde_json::{Value, json};

use crate::harness::{Container, Runtime, eventually};

/// A hook that appends its name, and the state that it was given, to a file of the host.
fn hook(log: &str, name: &str) -> Value {
    // One write per hook: two of them may run at the same time.
    let script = format!("state=$(cat); printf '%s %s\\n' {name} \"$state\" >> {log}");
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

#[test]
fn all_six_hooks_run_in_order_with_the_right_state() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        let log = container.bundle().join("log").to_str().unwrap().to_owned();
        let container = container.with(|config| {
            config["annotations"] = json!({"org.example.key": "value"});
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/hooks", "type": "bind", "source": "/", "options": ["rbind"]}),
            );
            config["hooks"] = json!({
                "prestart": hook(&log, "prestart"),
                "createRuntime": hook(&log, "createRuntime"),
                "createContainer": hook(&log, "createContainer"),
                "startContainer": hook(&format!("/hooks{log}"), "startContainer"),
                "poststart": hook(&log, "poststart"),
                "poststop": hook(&log, "poststop")
            });
        });
        container.start();
        eventually("startContainer and poststart ran", || {
            let text = std::fs::read_to_string(&log).unwrap();
            text.contains("poststart") && text.contains("startContainer")
        });
        let pid = container.pid();
        container.must(&["delete", "--force", &container.id]);
        let text = std::fs::read_to_string(&log).unwrap();
        let entries: Vec<(&str, Value)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, state)| (name, serde_json::from_str(state).unwrap()))
            .collect();
        let mut names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
        // These two concern different processes: either may be first.
        names[3..5].sort_unstable();
        let order = [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "startContainer",
            "poststop",
        ];
        assert_eq!(names, order, "{runtime:?}");
        for (name, state) in &entries {
            assert_eq!(state["id"], container.id.as_str(), "{runtime:?} {name}");
            assert_eq!(
                state["bundle"],
                container.bundle().to_str().unwrap(),
                "{runtime:?} {name}"
            );
            assert_eq!(
                state["annotations"]["org.example.key"], "value",
                "{runtime:?} {name}"
            );
            let status = match *name {
                "startContainer" => "created",
                // As crun and the validation suite of the specification have it.
                "prestart" if runtime == Runtime::Davit => "created",
                // runc before 1.2 says "created" here.
                "poststart" if runtime == Runtime::Runc => continue,
                "poststart" => "running",
                "poststop" => "stopped",
                _ => "creating",
            };
            assert_eq!(state["status"], status, "{runtime:?} {name}");
            if matches!(*name, "prestart" | "createRuntime" | "poststart") {
                assert_eq!(state["pid"], pid, "{runtime:?} {name}");
            }
        }
    }
}

#[test]
fn create_hooks_see_the_namespaces_they_belong_to() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        let out = container.bundle().join("ns").to_str().unwrap().to_owned();
        let show = |name: &str| {
            let script = format!("printf '{name} ' >> {out}; readlink /proc/self/ns/uts >> {out}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
        };
        let container = container.with(|config| {
            config["hooks"] =
                json!({"createRuntime": show("runtime"), "createContainer": show("container")});
        });
        assert!(container.run().status.success());
        let own = std::fs::read_link("/proc/self/ns/uts").unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let of = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(of("runtime"), own.to_str().unwrap(), "{runtime:?}");
        assert_ne!(of("container"), own.to_str().unwrap(), "{runtime:?}");
    }
}

#[test]
fn a_hook_that_hangs_is_killed_at_its_deadline_and_the_container_goes() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true").with(|config| {
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
        });
        container.write_config();
        let (code, ..) = container.call(&["create", &container.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        container.assert_nothing_left();
    }
}

#[test]
fn a_failing_start_container_hook_keeps_the_program_from_running() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "touch /ran").with(|config| {
            config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
        });
        container.write_config();
        container.must(&["create", &container.id]);
        container.call(&["start", &container.id]);
        eventually("the container stops", || container.status() == "stopped");
        assert!(!container.inside("ran").exists());
    }
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["hooks"] = json!({"poststop": [{"path": "/bin/false"}, {"path": "/bin/true"}]});
        });
        let output = container.run();
        assert!(output.status.success(), "{output:?}");
        assert!(
            crate::harness::text(&output.stderr).contains("hooks.poststop[0]"),
            "{output:?}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn poststop_hooks_run_once_when_a_poststart_hook_fails() {
    for runtime in Runtime::ours() {
        for args in [&["run"][..], &["run", "--detach"]] {
            let container = Container::new(runtime, "sleep 1000");
            let log = container.bundle().join("log").to_str().unwrap().to_owned();
            let container = container.with(|config| {
                config["hooks"] = json!({
                    "poststart": [{"path": "/bin/false"}],
                    "poststop": hook(&log, "poststop")
                });
            });
            container.write_config();
            let (code, _, stderr) = container.call(&[args, &[container.id.as_str()]].concat());
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains("hooks.poststart[0]"), "{stderr}");
            let text = std::fs::read_to_string(&log).unwrap();
            assert_eq!(text.matches("poststop").count(), 1, "{args:?}: {text}");
            container.assert_nothing_left();
        }
    }
}

#[test]
fn hooks_in_the_containers_namespaces_read_its_own_process_id() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        let log = container.bundle().join("log").to_str().unwrap().to_owned();
        let container = container.with(|config| {
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/hooks", "type": "bind", "source": "/", "options": ["rbind"]}),
            );
            config["hooks"] = json!({
                "createContainer": hook(&log, "createContainer"),
                "startContainer": hook(&format!("/hooks{log}"), "startContainer")
            });
        });
        assert!(container.run().status.success());
        let text = std::fs::read_to_string(&log).unwrap();
        let states = text.lines().filter_map(|line| line.split_once(' '));
        let pids: Vec<(&str, Value)> = states
            .map(|(name, state)| (name, serde_json::from_str::<Value>(state).unwrap()))
            .map(|(name, state)| (name, state["pid"].clone()))
            .collect();
        let expected = [("createContainer", json!(1)), ("startContainer", json!(1))];
        assert_eq!(pids, expected, "{runtime:?}");
    }
}

/// runtime.md#lifecycle, step 9: poststart hooks run after the program has been started.
#[test]
fn poststart_hooks_find_the_program_running() {
    for runtime in Runtime::ours() {
        // With hooks in the container the runtime waits for the start itself.
        for waits_itself in [true, false] {
            let container = Container::new(runtime, "exec sleep 1000");
            let log = container.bundle().join("log").to_str().unwrap().to_owned();
            let container = container.with(|config| {
                config["mounts"].as_array_mut().unwrap().push(
                    json!({"destination": "/hooks", "type": "bind", "source": "/", "options": ["rbind"]}),
                );
                let exe = format!(
                    "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/exe >> {log}"
                );
                config["hooks"] = json!({
                    "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", exe], "env": ["PATH=/bin:/usr/bin"]}]
                });
                if waits_itself {
                    config["hooks"]["startContainer"] =
                        hook(&format!("/hooks{log}"), "startContainer");
                }
            });
            container.start();
            let text = std::fs::read_to_string(&log).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 1 + usize::from(waits_itself), "{text}");
            if waits_itself {
                assert!(lines[0].starts_with("startContainer "), "{text}");
            }
            let last = lines[lines.len() - 1];
            assert!(last.ends_with("/bin/busybox"), "not the runtime: {text}");
        }
    }
}

#[test]
fn start_returns_where_the_program_cannot_be_started_after_all() {
    for runtime in Runtime::ours() {
        // A file that is there and may be executed, but that no loader knows.
        let container = Container::new(runtime, "").with(|config| {
            config["process"]["args"] = json!(["/broken"]);
            config["hooks"] = json!({"poststart": [{"path": "/bin/true"}]});
        });
        std::fs::write(container.inside("broken"), b"\x7fELF and no more").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(container.inside("broken"), mode).unwrap();
        container.write_config();
        container.must(&["create", &container.id]);
        container.call(&["start", &container.id]);
        eventually("the container stops", || container.status() == "stopped");
    }
}

#[test]
fn what_hooks_write_goes_to_the_files_that_annotations_name() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let file = |name: &str| container.bundle().join(name).to_str().unwrap().to_owned();
        let (out, err) = (file("out"), file("err"));
        std::fs::write(&out, "before\n").unwrap();
        let say = |name: &str| {
            let script = format!("echo {name}; echo {name}! >&2");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
        };
        let names = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        let container = container.with(|config| {
            config["annotations"] =
                json!({"run.oci.hooks.stdout": &out, "run.oci.hooks.stderr": &err});
            config["hooks"] = names
                .iter()
                .map(|name| ((*name).to_owned(), say(name)))
                .collect();
        });
        assert!(container.run().status.success());
        let expect =
            |mark: &str| -> String { names.map(|name| format!("{name}{mark}\n")).concat() };
        assert_eq!(
            std::fs::read_to_string(&out).unwrap(),
            format!("before\n{}", expect(""))
        );
        assert_eq!(std::fs::read_to_string(&err).unwrap(), expect("!"));

        let container = container.with(|config| {
            config["annotations"] = json!({"run.oci.hooks.stdout": "/no/such/dir/out"});
        });
        let output = container.run();
        let stderr = crate::harness::text(&output.stderr);
        assert!(
            stderr.contains("annotations[\"run.oci.hooks.stdout\"]: open(\"/no/such/dir/out\""),
            "{stderr}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn a_start_container_hook_without_an_environment_has_the_programs() {
    for runtime in Runtime::ours() {
        for (env, shown) in [(json!([]), "program\n"), (json!(["NAME=hook"]), "hook\n")] {
            let container = Container::new(runtime, "true").with(|config| {
                config["process"]["env"] = json!(["PATH=/bin", "NAME=program"]);
                config["hooks"] = json!({"startContainer": [
                    {"path": "/bin/sh", "args": ["sh", "-c", "echo $NAME > /seen"], "env": env}
                ]});
            });
            assert!(container.run().status.success());
            assert_eq!(
                std::fs::read_to_string(container.inside("seen")).unwrap(),
                shown
            );
        }
    }
}
