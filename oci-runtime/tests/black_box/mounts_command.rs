//! `mounts add` and `mounts remove`: mounts of a running container that come and go.
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime};

fn with_users(container: Container) -> Container {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(container.bundle(), mode).unwrap();
    chown(container.inside("/"), Some(100_000), Some(100_000)).unwrap();
    container.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })
}

/// With a cgroup namespace and all; `users` with users of its own.
fn started(runtime: Runtime, users: bool) -> Container {
    let container = Container::new(runtime, "sleep 1000");
    let container = if users {
        with_users(container)
    } else {
        container
    };
    let data = container.bundle().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "here\n").unwrap();
    std::fs::write(container.bundle().join("one"), "one\n").unwrap();
    container.start();
    container
}

fn change(container: &Container, action: &str, mounts: &Value) -> (Option<i32>, String) {
    let file = container.bundle().join("mounts.json");
    std::fs::write(&file, mounts.to_string()).unwrap();
    let args = ["mounts", action, &container.id, file.to_str().unwrap()];
    let (code, _, stderr) = container.call(&args);
    (code, stderr)
}

fn changed(container: &Container, action: &str, mounts: &Value) {
    assert_eq!(change(container, action, mounts), (Some(0), String::new()));
}

fn exec(container: &Container, script: &str) -> String {
    container.must(&["exec", &container.id, "sh", "-c", script])
}

#[test]
fn mounts_are_added_to_a_running_container_and_removed() {
    for runtime in Runtime::ours() {
        for users in [false, true] {
            let container = started(runtime, users);
            let mounts = json!([
                {"destination": "/new/dir", "type": "bind", "source": container.bundle().join("data"), "options": ["bind", "ro", "nodev"]},
                {"destination": "/new/one", "source": "one", "options": ["bind"]},
                {"destination": "/new/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700", "ro"]},
                {"destination": "/new/proc", "type": "proc", "source": "proc"},
                {"destination": "/new/mqueue", "type": "mqueue", "source": "mqueue"},
            ]);
            changed(&container, "add", &mounts);
            let shown = exec(
                &container,
                "cat /new/dir/file /new/one; touch /new/dir/x 2>/dev/null || echo read-only; \
                 touch /new/tmpfs/x 2>/dev/null || echo read-only; stat -c '%a %u' /new/tmpfs; \
                 cat /new/proc/1/comm; touch /new/mqueue/q && ls /new/mqueue; grep -c ' /new/' /proc/self/mountinfo",
            );
            assert_eq!(
                shown, "here\none\nread-only\nread-only\n700 0\nsleep\nq\n5\n",
                "users={users}"
            );
            changed(&container, "remove", &mounts);
            let shown = exec(
                &container,
                "ls /new/dir; cat /new/one; grep -c ' /new/' /proc/self/mountinfo; true",
            );
            assert_eq!(shown, "0\n", "users={users}");
            let (code, message) = change(&container, "remove", &mounts);
            assert_eq!(code, Some(1));
            assert!(message.contains("nothing is mounted there"), "{message}");
        }
    }
}

/// The container controls the links on the way; they lead to places of its own only.
#[test]
fn an_added_mount_stays_below_the_root_whatever_links_there_are() {
    for runtime in Runtime::ours() {
        let container = started(runtime, false);
        symlink("/../../../../outside", container.inside("link")).unwrap();
        symlink("/proc/1/root", container.inside("magic")).unwrap();
        let tmpfs = |at: &str| json!([{"destination": at, "type": "tmpfs", "source": "tmpfs"}]);
        changed(&container, "add", &tmpfs("/link"));
        let shown = exec(&container, "grep -c ' /outside ' /proc/self/mountinfo");
        assert_eq!(shown, "1\n");
        assert!(!std::path::Path::new("/outside").exists());
        changed(&container, "remove", &tmpfs("/link"));
        let (code, message) = change(&container, "add", &tmpfs("/magic/x"));
        assert!(code == Some(1) && message.contains("ELOOP"), "{message}");
        let (code, message) = change(&container, "add", &tmpfs("/proc/1/x"));
        assert!(
            code == Some(1) && message.contains("inside /proc"),
            "{message}"
        );
    }
}

#[test]
fn a_refused_mount_takes_back_those_added_before_it() {
    for runtime in Runtime::ours() {
        let container = started(runtime, false);
        let mounts = json!([
            {"destination": "/a", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/b", "source": "one", "options": ["bind"]},
            {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"]},
        ]);
        let (code, message) = change(&container, "add", &mounts);
        assert_eq!(code, Some(1));
        assert!(message.contains("mounts[2] at \"/c\""), "{message}");
        let shown = exec(
            &container,
            "grep -c -E ' /(a|b|c) ' /proc/self/mountinfo; true",
        );
        assert_eq!(shown, "0\n");
    }
}

/// The container's root may change its mounts, but not what the host's mount forbids.
#[test]
fn the_flags_of_the_hosts_mount_stay_locked_in_an_added_one() {
    for runtime in Runtime::ours() {
        let container = started(runtime, true);
        let outside = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(outside.path(), mode).unwrap();
        let context = sys::mount::FsContext::open("tmpfs").unwrap();
        let flags = sys::mount::MountAttr::MOUNT_ATTR_RDONLY;
        let made = context.mount(flags).unwrap();
        sys::mount::attach(&made, outside.path()).unwrap();
        let mounts = json!([{"destination": "/x", "source": outside.path(), "options": ["bind"]}]);
        let added = change(&container, "add", &mounts);
        sys::mount::unmount_detach(outside.path()).unwrap();
        assert_eq!(added, (Some(0), String::new()));
        let process = json!({
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["sh", "-c", "mount -o remount,bind,rw /x 2>/dev/null || echo locked"],
            "capabilities": {"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"]},
        });
        let file = container.bundle().join("process.json");
        std::fs::write(&file, process.to_string()).unwrap();
        let args = ["exec", "--process", file.to_str().unwrap(), &container.id];
        assert_eq!(container.must(&args), "locked\n");
    }
}

/// What a container mounts below an added mount must not appear on the host, unless that is what was asked for.
#[test]
fn an_added_mount_receives_from_the_host_and_gives_nothing_back() {
    for runtime in Runtime::ours() {
        for (users, options, expected) in [
            (false, json!(["rbind"]), "master:"),
            (false, json!(["rbind", "rprivate"]), "-"),
            (false, json!(["rbind", "rshared"]), "shared:"),
            (true, json!(["rbind"]), "master:"),
        ] {
            let container = started(runtime, users);
            let outside = tempfile::tempdir().unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(outside.path(), mode).unwrap();
            let context = sys::mount::FsContext::open("tmpfs").unwrap();
            let made = context.mount(sys::mount::MountAttr::empty()).unwrap();
            sys::mount::attach(&made, outside.path()).unwrap();
            let shared = sys::mount::Propagation::Shared;
            sys::mount::set_propagation(outside.path(), shared, false).unwrap();
            let mounts =
                json!([{"destination": "/x", "source": outside.path(), "options": options}]);
            let added = change(&container, "add", &mounts);
            let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 7";
            let shown = exec(&container, script);
            sys::mount::unmount_detach(outside.path()).unwrap();
            assert_eq!(added, (Some(0), String::new()));
            assert!(
                shown.starts_with(expected),
                "users={users} {options}: {shown}"
            );
        }
    }
}

#[test]
fn owners_of_an_added_mount_are_mapped() {
    for runtime in Runtime::ours() {
        for (users, option, expected) in [
            (
                false,
                "idmap=uids=0-1000-100;gids=0-2000-100",
                "1005 2006\n",
            ),
            (true, "idmap", "5 6\n"),
            (true, "idmap=uids=@5-7-1;gids=@6-8-1", "7 8\n"),
        ] {
            let container = started(runtime, users);
            let data = container.bundle().join("data");
            chown(data.join("file"), Some(5), Some(6)).unwrap();
            let mounts =
                json!([{"destination": "/x", "source": data, "options": ["bind", option]}]);
            changed(&container, "add", &mounts);
            let shown = exec(&container, "stat -c '%u %g' /x/file");
            assert_eq!(shown, expected, "users={users} {option}");
        }
    }
}

#[test]
fn what_is_no_change_of_mounts_is_refused_by_name() {
    for runtime in Runtime::ours() {
        let container = started(runtime, false);
        let table = [
            (
                json!([{"destination": "/", "type": "tmpfs"}]),
                "the root of a running container",
            ),
            (
                json!([{"destination": "/x", "type": "cgroup"}]),
                "cgroups cannot be mounted later",
            ),
            (
                json!([{"destination": "/x"}]),
                "mounts[0].type: neither a type nor the option bind",
            ),
            (json!({"mounts": []}), "mounts.json: invalid type"),
            (
                json!([{"destination": "/x", "source": "missing", "options": ["bind"]}]),
                "ENOENT",
            ),
        ];
        for (mounts, expected) in table {
            let (code, message) = change(&container, "add", &mounts);
            assert!(code == Some(1) && message.contains(expected), "{message}");
        }
        let (code, message) = change(&container, "swap", &json!([]));
        assert!(
            code == Some(1) && message.contains("neither add nor remove"),
            "{message}"
        );
        container.must(&["kill", &container.id, "KILL"]);
        crate::harness::eventually("the container stops", || container.status() == "stopped");
        let (code, message) = change(&container, "add", &json!([]));
        assert!(
            code == Some(1) && message.contains("container not running"),
            "{message}"
        );
    }
}
