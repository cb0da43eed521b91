//! Bad configurations: a clear error that names the field, and nothing left behind.
use serde_json::{Value, json};

use crate::harness::{Container, Runtime};

/// Where, what, and the field that the error must name.
type Case = (&'static str, Value, &'static str);

fn cases() -> Vec<Case> {
    vec![
        ("/ociVersion", json!("3.0.0"), "ociVersion"),
        ("/root/path", json!("nowhere"), "root.path"),
        ("/root/path", json!(""), "root.path"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!([]), "process.args"),
        (
            "/process/args",
            json!(["no-such-program"]),
            "executable file not found in $PATH",
        ),
        (
            "/process/args",
            json!(["/no/such/program"]),
            "no such file or directory",
        ),
        ("/process/args", json!(["/etc/passwd"]), "permission denied"),
        ("/process/args", json!(["/etc"]), "exec: \"/etc\""),
        ("/process/env", json!(["NOEQUALS"]), "process.env[0]"),
        ("/process/user/uid", json!(-1), "invalid value"),
        ("/process/user/uid", json!("root"), "invalid type"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 40, "hard": 1u64 << 40}]),
            "process.rlimits[RLIMIT_NOFILE]",
        ),
        ("/process/oomScoreAdj", json!(-2000), "process.oomScoreAdj"),
        (
            "/process/apparmorProfile",
            json!("x"),
            "process.apparmorProfile",
        ),
        ("/process/selinuxLabel", json!("x"), "process.selinuxLabel"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_NOPE"}),
            "process.scheduler.policy",
        ),
        ("/mounts/0/destination", json!(""), "mounts[0].destination"),
        ("/mounts/0/type", json!("no-such-fs"), "mounts[0]"),
        ("/mounts/1/options", json!(["size=lots"]), "mounts[1]"),
        ("/mounts/1/options", json!(["nonsense=1"]), "mounts[1]"),
        (
            "/mounts/1",
            json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
            "mounts[1]",
        ),
        (
            "/mounts/1",
            json!({"destination": "/etc/passwd/x", "type": "tmpfs"}),
            "mounts[1]",
        ),
        (
            "/linux/namespaces/0",
            json!({"type": "mount"}),
            "linux.namespaces[4]",
        ),
        (
            "/linux/namespaces/1",
            json!({"type": "network", "path": "/no/such/ns"}),
            "linux.namespaces[net].path",
        ),
        (
            "/linux/namespaces/1",
            json!({"type": "network", "path": "/proc/self/ns/uts"}),
            "linux.namespaces[net].path",
        ),
        (
            "/linux/namespaces/1",
            json!({"type": "network", "path": "/etc/passwd"}),
            "linux.namespaces[net].path",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NOPE"}),
            "linux.seccomp.defaultAction",
        ),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        (
            "/linux/sysctl",
            json!({"kernel.panic": "1"}),
            "linux.sysctl",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.no_such_key": "1"}),
            "linux.sysctl",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "nonsense"}),
            "linux.sysctl",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "?"}]),
            "linux.devices[0].type",
        ),
        (
            "/linux/devices",
            json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]),
            "linux.devices",
        ),
        (
            "/linux/rootfsPropagation",
            json!("rshred"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/cgroupsPath",
            json!("/../escape"),
            "linux.cgroupsPath",
        ),
        (
            "/linux/resources",
            json!({"memory": {"limit": -5}}),
            "memory",
        ),
        (
            "/linux/resources",
            json!({"cpu": {"cpus": "999"}}),
            "linux.resources",
        ),
        (
            "/linux/resources",
            json!({"cpu": {"quota": 1}}),
            "linux.resources",
        ),
        (
            "/linux/resources",
            json!({"blockIO": {"weight": 9}}),
            "linux.resources.blockIO",
        ),
        (
            "/linux/resources",
            json!({"hugepageLimits": [{"pageSize": "2M B", "limit": 1}]}),
            "linux.resources.hugepageLimits",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "linux.uidMappings",
        ),
        (
            "/linux/personality",
            json!({"domain": "SVR4"}),
            "linux.personality.domain",
        ),
        (
            "/hooks",
            json!({"prestart": [{"path": "/bin/false"}]}),
            "hooks.prestart[0]",
        ),
        (
            "/hooks",
            json!({"createRuntime": [{"path": "/no/such/hook"}]}),
            "hooks.createRuntime[0]",
        ),
        (
            "/hooks",
            json!({"createContainer": [{"path": "/bin/false"}]}),
            "hooks.createContainer[0]",
        ),
        (
            "/hooks",
            json!({"prestart": [{"path": "relative"}]}),
            "hooks.prestart[0].path",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
    ]
}

/// Puts `value` at the place `pointer`, which need not be there yet.
fn place(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap() {
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
        }
        Value::Array(array) => array[key.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer} in {other}"),
    }
}

#[test]
fn each_bad_configuration_is_refused_by_the_name_of_the_field_and_leaves_nothing() {
    for runtime in Runtime::ours() {
        for (pointer, value, expected) in cases() {
            let container = Container::new(runtime, "true")
                .with(|config| place(config, pointer, value.clone()));
            container.write_config();
            let (code, _, stderr) = container.call(&["create", &container.id]);
            assert_eq!(code, Some(1), "{pointer} = {value}: {stderr}");
            assert!(stderr.contains(expected), "{pointer} = {value}: {stderr}");
            assert!(!stderr.contains("undoing"), "{pointer} = {value}: {stderr}");
            container.assert_nothing_left();
        }
    }
}

#[test]
fn broken_documents_are_refused_with_their_place() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let config = container.bundle().join("config.json");
        let table = [
            ("", "EOF while parsing"),
            ("{", "line 1"),
            ("[]", "line 1"),
            ("{\"process\": {\"args\": [1]}}", "invalid type"),
            (
                "{\"hostname\": \"a\", \"hostname\": \"b\"}",
                "duplicate field",
            ),
            ("\u{0}", "line 1"),
        ];
        for (text, expected) in table {
            std::fs::write(&config, text).unwrap();
            let (code, _, stderr) = container.call(&["create", &container.id]);
            assert_eq!(code, Some(1), "{text:?}");
            assert!(
                stderr.contains("config.json: ") && stderr.contains(expected),
                "{text:?}: {stderr}"
            );
        }
        std::fs::remove_file(&config).unwrap();
        let (_, _, stderr) = container.call(&["create", &container.id]);
        assert!(
            stderr.contains("config.json")
                && stderr.contains("ENOENT")
                && stderr.contains("hint: "),
            "{stderr}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn bad_ids_and_flags_are_refused() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.write_config();
        for id in ["a/b", "..", ".", "a b", "", "ä"] {
            let (code, _, stderr) = container.call(&["create", id]);
            assert_eq!(code, Some(1));
            assert!(
                stderr.contains("container ID format") || stderr.contains("cannot be empty"),
                "{id:?}: {stderr}"
            );
        }
        let table: [(&[&str], &str); 8] = [
            (&["create"], "wants ID, got 0 operands"),
            (&["create", "a", "b"], "wants ID, got 2 operands"),
            (
                &["create", "--nope", "a"],
                "flag provided but not defined: -nope",
            ),
            (&["create", "--preserve-fds", "x", "a"], "--preserve-fds"),
            (
                &["create", "--preserve-fds", "40", "a"],
                "descriptor 3 of 3 to 42 is not open",
            ),
            (&["create", "--bundle", "/no/such/bundle", "a"], "--bundle"),
            (
                &["create", "--console-socket", "/no/such/socket", "a"],
                "cannot use console socket",
            ),
            (
                &["--cgroup-manager", "nobody", "create", "a"],
                "neither cgroupfs, systemd nor disabled",
            ),
        ];
        for (args, expected) in table {
            let (code, _, stderr) = container.call(args);
            assert_eq!(code, Some(1), "{args:?}");
            assert!(stderr.contains(expected), "{args:?}: {stderr}");
        }
        container.assert_nothing_left();
    }
}

#[test]
fn a_terminal_without_a_socket_is_refused_by_create() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["process"]["terminal"] = true.into());
        container.write_config();
        let (code, _, stderr) = container.call(&["create", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr
                .contains("cannot allocate tty if runc will detach without setting console socket"),
            "{stderr}"
        );
        container.assert_nothing_left();
    }
}
