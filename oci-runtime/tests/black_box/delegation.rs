//! Cgroups and users: containers of a user without privileges, with a delegated cgroup and without, and cgroups that
//! are handed to the container's own user.
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;
use sys::cgroup::{Cgroup, CgroupPath, Hierarchies, Mode};

use crate::harness::{Container, Runtime, cgroups_named, text};

/// A user of nobody's.
const USER: u32 = 61_234;

/// A bundle that the user may use, with a program for it.
fn bundle_of_user(script: &str) -> Container {
    let container = Container::new(Runtime::Davit, script).with(|config| {
        let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        // The group 5 of terminals is not the user's to map.
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["type"] != "devpts");
    });
    let program = container.bundle().join("davit-oci");
    std::fs::copy(Runtime::Davit.program(), program).unwrap();
    std::fs::set_permissions(container.bundle(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(container.state_root()).unwrap();
    container.write_config();
    own(container.bundle());
    container
}

/// Hands a tree to the user.
fn own(dir: &Path) {
    std::os::unix::fs::lchown(dir, Some(USER), Some(USER)).unwrap();
    if !dir.is_symlink() && dir.is_dir() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            own(&entry.path());
        }
    }
}

/// `davit-oci …` as the user, in these cgroups.
fn as_user(container: &Container, cgroups: &[PathBuf], args: &[&str]) -> Output {
    let script = "while [ \"$1\" != -- ]; do echo 0 > \"$1/cgroup.procs\" || exit 99; shift; done; shift
        exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups ./davit-oci --root state \"$2\" \"$3\" \"$4\"";
    let mut command = std::process::Command::new("timeout");
    command
        .args(["-k", "1", "30", "sh", "-c", script, "sh"])
        .args(cgroups)
        .arg("--")
        .arg(USER.to_string())
        .args(args)
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir(container.bundle());
    command.output().unwrap()
}

/// Whether users may make user namespaces here.
fn users_can() -> bool {
    if Runtime::ours().is_empty() {
        return false;
    }
    let user = USER.to_string();
    let made = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "unshare",
            "--user",
            "true",
        ])
        .output();
    let can = made.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: users without privileges cannot make user namespaces on this host");
    }
    can
}

#[test]
fn a_user_without_a_cgroup_has_containers_without_one() {
    if !users_can() {
        return;
    }
    let container = bundle_of_user("id -u; cat /proc/self/cgroup");
    let output = as_user(&container, &[], &["run", "--keep", &container.id]);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("0\n"), "{shown}");
    assert!(!shown.contains(&container.id), "{shown}");
    assert_eq!(cgroups_named(&container.id), Vec::<PathBuf>::new());
    let output = as_user(&container, &[], &["delete", "--force", &container.id]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_user_without_a_cgroup_cannot_have_limits_or_choose_a_place() {
    if !users_can() {
        return;
    }
    let mut container = bundle_of_user("true");
    container.config["linux"]["resources"]["pids"] = json!({"limit": 10});
    container.write_config();
    let output = as_user(&container, &[], &["run", "--keep", &container.id]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("linux.resources: rootless needs no limits + no cgrouppath when no permission is granted for cgroups"), "{output:?}");
    assert!(
        said.contains("permission denied (EACCES)") && said.contains("delegated"),
        "{said}"
    );

    container.config["linux"]["resources"] = json!({});
    container.config["linux"]["cgroupsPath"] = format!("/{}", container.id).into();
    container.write_config();
    let output = as_user(&container, &[], &["run", "--keep", &container.id]);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("linux.cgroupsPath: mkdir("),
        "{output:?}"
    );
    assert!(said.contains("EACCES"), "{said}");
    container.assert_nothing_left();
}

#[test]
fn a_user_with_a_delegated_cgroup_has_limits() {
    if !users_can() {
        return;
    }
    let hierarchies = Hierarchies::detect().unwrap();
    let v2 = hierarchies.mode() == Mode::V2;
    let name = format!("davit-delegated-{}", std::process::id());
    let at = |below: &str| {
        Cgroup::new(
            &hierarchies,
            &CgroupPath::new(format!("/{name}{below}")).unwrap(),
        )
    };
    let delegated = at("");
    let (made, inner) = (delegated.create().unwrap(), at("/own").create().unwrap());
    for dir in made.dirs().iter().chain(inner.dirs()) {
        own(dir);
    }
    let shown = if v2 {
        "cat /sys/fs/cgroup/pids.max"
    } else {
        "true"
    };
    let mut container = bundle_of_user(&format!("{shown}; cat /proc/self/cgroup"));
    container.config["linux"]["cgroupsPath"] = format!("/{name}/{}", container.id).into();
    container.config["linux"]["resources"]["pids"] = json!({"limit": 12});
    container.write_config();
    let output = as_user(&container, inner.dirs(), &["run", "--keep", &container.id]);
    let left: Vec<String> = cgroups_named(&container.id)
        .iter()
        .filter_map(|dir| std::fs::read_to_string(dir.join("pids.max")).ok())
        .collect();
    let gone = as_user(
        &container,
        inner.dirs(),
        &["delete", "--force", &container.id],
    );
    delegated.remove().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains(&container.id), "{output:?}");
    assert_eq!(left, ["12\n"]);
    assert!(gone.status.success(), "{gone:?}");
    container.assert_nothing_left();
}

/// In a mount namespace of the test's own, where every tool believes that the host has only cgroup v2.
#[test]
fn a_cgroup_is_handed_to_the_user_of_a_container_that_can_write_to_it() {
    for (option, namespace, owner) in [
        ("rw", true, "100000"),
        ("ro", true, "0"),
        ("rw", false, "0"),
    ] {
        for runtime in Runtime::ours() {
            let container = Container::new(runtime, "sleep 1000").with(|config| {
                let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.push(json!({"type": "user"}));
                if namespace {
                    namespaces.push(json!({"type": "cgroup"}));
                }
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map;
                config["mounts"].as_array_mut().unwrap().push(
                    json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [option]}),
                );
            });
            std::fs::set_permissions(container.bundle(), PermissionsExt::from_mode(0o755)).unwrap();
            chown(container.inside("/"), Some(100_000), Some(100_000)).unwrap();
            container.write_config();
            let script = format!(
                "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99
                oci='{} --root {}'
                $oci run --detach {id} >/dev/null || exit 98
                dir=$(find /sys/fs/cgroup -name {id})
                stat -c %u $dir $dir/cgroup.procs $dir/cgroup.subtree_control $dir/cgroup.events
                $oci exec {id} sh -c 'mkdir /sys/fs/cgroup/sub && echo 0 > /sys/fs/cgroup/sub/cgroup.procs' 2>/dev/null && echo divided
                $oci delete --force {id} || exit 97",
                runtime.program(),
                container.state_root().display(),
                id = container.id
            );
            let output = std::process::Command::new("timeout")
                .args(["30", "unshare", "--mount", "sh", "-c", &script])
                .current_dir(container.bundle())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let divided = if owner == "0" { "" } else { "divided\n" };
            assert_eq!(
                text(&output.stdout),
                format!("{owner}\n{owner}\n{owner}\n0\n{divided}"),
                "{option} {namespace}: {output:?}"
            );
        }
    }
}

#[test]
fn shares_of_caches_need_the_hardware() {
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        return eprintln!("skipped: this host has a resctrl filesystem");
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["linux"]["intelRdt"] = json!({"closID": "gold", "schemata": ["L3:0=f"]})
        });
        container.write_config();
        let (code, _, stderr) = container.call(&["create", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("linux.intelRdt: no resctrl filesystem is mounted"),
            "{stderr}"
        );
        container.assert_nothing_left();
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        for (flag, says) in [
            (
                "--l3-cache-schema",
                "Intel RDT/CAT: l3 cache schema is not enabled",
            ),
            (
                "--mem-bw-schema",
                "Intel RDT/MBA: memory bandwidth schema is not enabled",
            ),
        ] {
            let (code, _, stderr) = container.call(&["update", flag, "L3:0=f", &container.id]);
            assert_eq!(code, Some(1));
            assert!(stderr.contains(says), "{stderr}");
        }
    }
}

#[test]
fn features_tell_of_cgroups_and_resource_control() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let document: serde_json::Value =
            serde_json::from_str(&container.must(&["features"])).unwrap();
        let cgroup = &document["linux"]["cgroup"];
        assert!(
            [&cgroup["v1"], &cgroup["v2"], &cgroup["rdma"]]
                .iter()
                .all(|one| **one == true),
            "{cgroup}"
        );
        assert_eq!(
            document["linux"]["intelRdt"],
            json!({"enabled": true, "schemata": true, "monitoring": true})
        );
    }
}
