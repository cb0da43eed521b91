//! What a container sees at `/sys/fs/cgroup` on a unified host. Here that is a mount namespace in which cgroup2 lies at
//! the usual place, without controllers where the kernel has given them to v1.
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::harness::{Container, Runtime, text};

fn run_unified(container: &Container) -> Output {
    container.write_config();
    let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    Command::new("timeout")
        .args(["-k", "1", "30", "unshare", "-m", "sh", "-c", script, "sh"])
        .args([container.runtime.program(), "--root"])
        .arg(container.state_root())
        .args(["run", &container.id])
        .current_dir(container.bundle())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn with_cgroups(container: Container, private: bool, users: bool, options: &[&str]) -> Container {
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(container.bundle(), mode).unwrap();
    if users {
        chown(container.inside("/"), Some(100_000), Some(100_000)).unwrap();
    }
    let id = container.id.clone();
    container.with(|config| {
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["linux"]["cgroupsPath"] = format!("/{id}").into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        if private {
            namespaces.push(json!({"type": "cgroup"}));
        }
        if users {
            namespaces.push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
    })
}

#[test]
fn a_container_sees_the_cgroups_that_its_namespaces_allow() {
    for runtime in Runtime::all() {
        for (private, users) in [(true, false), (false, false), (true, true), (false, true)] {
            if runtime == Runtime::Runc && users {
                // The installed release wants other permissions of the bundle.
                continue;
            }
            let script = "cat /sys/fs/cgroup/cgroup.procs; ls -d /sys/fs/cgroup/*/ 2>/dev/null | wc -l; \
                          grep ' /sys/fs/cgroup ' /proc/self/mountinfo | cut -d ' ' -f 4";
            let container = with_cgroups(Container::new(runtime, script), private, users, &["ro"]);
            let output = run_unified(&container);
            let shown = text(&output.stdout);
            let lines: Vec<&str> = shown.lines().collect();
            let case = format!("{runtime:?} private={private} users={users}: {output:?}");
            let own = format!("/{}", container.id);
            let expected = if users && !private { own.as_str() } else { "/" };
            assert!(lines.last() == Some(&expected), "{case}");
            if private || users {
                assert!(lines.first() == Some(&"1"), "{case}");
                assert!(lines.contains(&"0"), "other cgroups are seen: {case}");
            }
        }
    }
}

/// CVE-2023-25809: the files belong to the host's user where the cgroups are the host's.
#[test]
fn cgroups_of_the_host_are_read_only_for_users_of_the_container() {
    for runtime in Runtime::ours() {
        let script = "mkdir /sys/fs/cgroup/new 2>/dev/null && echo made; grep ' /sys/fs/cgroup ' /proc/self/mountinfo | cut -d ' ' -f 6";
        for (private, users, expected) in [(true, false, "made\nrw,"), (false, true, "ro,")] {
            let container =
                with_cgroups(Container::new(runtime, script), private, users, &["nosuid"]);
            let output = run_unified(&container);
            let shown = text(&output.stdout);
            assert!(
                shown.starts_with(expected),
                "private={private} users={users}: {output:?}"
            );
        }
    }
}
