//! User namespaces: new, and by path.
use std::os::unix::fs::chown;

use serde_json::json;

use crate::harness::{Container, Runtime};

pub(crate) fn with_users(container: Container) -> Container {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    // The container's root must be able to pass the bundle's directory.
    std::fs::set_permissions(
        container.bundle(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    chown(container.inside("/"), Some(100_000), Some(100_000)).unwrap();
    chown(container.inside("/tmp"), Some(100_000), Some(100_000)).unwrap();
    container.with(|config| {
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })
}

#[test]
fn a_new_user_namespace_maps_its_ids() {
    for runtime in Runtime::all() {
        let script = "cat /proc/self/uid_map | wc -w; id -u; touch /tmp/file; stat -c '%u' /tmp/file; echo x > /dev/null; hostname; cat /sys/class/net/lo/flags";
        let container = with_users(Container::new(runtime, script))
            .with(|config| config["hostname"] = "boat".into());
        assert_eq!(container.output(), "3\n0\n0\nboat\n0x9\n", "{runtime:?}");
        let owner = std::os::unix::fs::MetadataExt::uid(
            &std::fs::metadata(container.inside("tmp/file")).unwrap(),
        );
        assert_eq!(owner, 100_000);
    }
}

#[test]
fn exec_enters_the_user_namespace() {
    for runtime in Runtime::all() {
        let container = with_users(Container::new(runtime, "sleep 1000"));
        container.start();
        let shown = container.must(&[
            "exec",
            "--user",
            "5:6",
            &container.id,
            "sh",
            "-c",
            "id -u; id -g; readlink /proc/1/ns/user | wc -l",
        ]);
        assert!(shown.starts_with("5\n6\n"), "{runtime:?}: {shown}");
        let shown = container.must(&[
            "exec",
            &container.id,
            "sh",
            "-c",
            "cat /proc/self/uid_map | wc -w",
        ]);
        assert_eq!(shown.trim(), "3", "{runtime:?}");
    }
}

#[test]
fn a_second_container_joins_the_namespaces_of_the_first() {
    for runtime in Runtime::all() {
        let first = with_users(Container::new(runtime, "sleep 1000"));
        first.start();
        let pid = first.pid();
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let script = "for n in user net pid; do readlink /proc/self/ns/$n; done; id -u; cat /proc/self/uid_map | wc -w; ls /proc | grep -c '^[0-9]'";
        let second = with_users(Container::new(runtime, script)).with(|config| {
            config["linux"]["namespaces"] = json!([
                {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
                {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")},
                {"type": "pid", "path": path("pid")}, {"type": "mount"}
            ]);
            let linux = config["linux"].as_object_mut().unwrap();
            if runtime == Runtime::Runc {
                linux.remove("uidMappings");
                linux.remove("gidMappings");
            }
        });
        if runtime == Runtime::Runc {
            // Old releases of runc want mappings with a path and refuse them elsewhere: only ours is held to it.
            continue;
        }
        let shown = second.output();
        let lines: Vec<&str> = shown.lines().collect();
        for (line, kind) in lines.iter().zip(["user", "net", "pid"]) {
            assert_eq!(
                *line,
                std::fs::read_link(path(kind)).unwrap().to_str().unwrap()
            );
        }
        assert_eq!(lines[3..5], ["0", "3"]);
        assert!(
            lines[5].parse::<u32>().unwrap() >= 2,
            "it sees the processes of the first: {shown}"
        );
        second.assert_nothing_left();
    }
}

#[test]
fn namespaces_are_joined_by_path_without_users_too() {
    for runtime in Runtime::all() {
        let first = Container::new(runtime, "sleep 1000")
            .with(|config| config["hostname"] = "first".into());
        first.start();
        let pid = first.pid();
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let second = Container::new(runtime, "hostname; for n in net ipc pid; do readlink /proc/self/ns/$n; done").with(|config| {
            config["linux"]["namespaces"] = json!([
                {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")},
                {"type": "uts", "path": path("uts")}, {"type": "pid", "path": path("pid")}, {"type": "mount"}
            ]);
        });
        let expected = ["net", "ipc", "pid"].map(|kind| {
            std::fs::read_link(path(kind))
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        });
        assert_eq!(
            second.output(),
            format!("first\n{}\n", expected.join("\n")),
            "{runtime:?}"
        );
    }
}

#[test]
fn killing_a_container_without_its_own_pid_namespace_kills_all_its_processes() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1001 & sleep 1002 & wait").with(|config| {
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|one| one["type"] != "pid");
        });
        container.start();
        crate::harness::eventually("both children run", || {
            sys::cgroup::Hierarchies::detect().is_ok_and(|all| {
                sys::cgroup::Cgroup::of_process(&all, container.pid())
                    .unwrap()
                    .processes()
                    .unwrap()
                    .len()
                    == 3
            })
        });
        container.must(&["kill", &container.id, "KILL"]);
        crate::harness::eventually("the container stops", || container.status() == "stopped");
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}
