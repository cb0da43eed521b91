//! The runtime inside another container, or inside somebody's user namespace.
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

/// `run` as the root of a new user namespace with one user and a mount namespace, after `script`.
fn run_in_user_namespace(container: &Container, script: &str) -> Output {
    container.write_config();
    let script = format!("{script}\nexec \"$@\"");
    Command::new("timeout")
        .args([
            "-k", "1", "30", "unshare", "-U", "-r", "-m", "sh", "-e", "-c", &script, "sh",
        ])
        .args([
            container.runtime.program(),
            "--cgroup-manager",
            "disabled",
            "--root",
        ])
        .arg(container.state_root())
        .args(["run", &container.id])
        .current_dir(container.bundle())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Nothing of procfs may be new here: it comes from the host, and kernel parameters are written through the verified
/// `/proc` of the host.
#[test]
fn in_a_user_namespace_that_gets_no_new_procfs_the_hosts_serves() {
    for runtime in Runtime::ours() {
        let script =
            "cat /proc/sys/net/ipv4/ping_group_range; id -u; grep -c ' /proc' /proc/self/mountinfo";
        let container = Container::new(runtime, script).with(|config| {
            config["mounts"][0] =
                json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.iter_mut().for_each(|mount| {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            });
            config["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "ipc"}]);
            config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0"});
            config["linux"].as_object_mut().unwrap().remove("resources");
        });
        let output = run_in_user_namespace(&container, "");
        let shown = text(&output.stdout);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.get(..2), Some(["0\t0", "0"].as_slice()), "{output:?}");
    }
}

/// What somebody has mounted over a part of the host's `/proc` is not what is written.
#[test]
fn a_cover_over_the_hosts_kernel_parameters_is_not_written() {
    for runtime in Runtime::ours() {
        let script = "cat /p/sys/net/ipv4/ping_group_range";
        let container = Container::new(runtime, script).with(|config| {
            config["mounts"] =
                json!([{"destination": "/p", "source": "/proc", "options": ["bind"]}]);
            config["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}]);
            config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0"});
            config["linux"].as_object_mut().unwrap().remove("resources");
        });
        let cover = "mkdir -p fake/sys/net/ipv4; touch fake/sys/net/ipv4/ping_group_range; \
                     mount --bind fake/sys /proc/sys";
        let output = run_in_user_namespace(&container, cover);
        assert_eq!(text(&output.stdout), "0\t0\n", "{output:?}");
        let fake = container
            .bundle()
            .join("fake/sys/net/ipv4/ping_group_range");
        assert_eq!(std::fs::read(fake).unwrap(), b"");
    }
}

#[test]
fn a_new_procfs_that_is_refused_says_why() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["linux"]["namespaces"] = json!([{"type": "mount"}]);
            config["linux"].as_object_mut().unwrap().remove("resources");
        });
        let output = run_in_user_namespace(&container, "");
        let message = text(&output.stderr);
        assert!(
            message.contains("mounts[0] at \"/proc\"") && message.contains("EPERM"),
            "{message}"
        );
        assert!(message.contains("or bind-mount /proc"), "{message}");
    }
}

/// A bundle within the outer container's root: `/inner`.
fn add_inner(outer: &Container, inner: &Value) {
    let bundle = outer.inside("inner");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(outer.inside(name))
            .arg(bundle.join("rootfs"))
            .status();
        assert!(copied.unwrap().success());
    }
    std::fs::write(bundle.join("config.json"), inner.to_string()).unwrap();
    std::fs::copy(outer.runtime.program(), outer.inside("davit-oci")).unwrap();
    for dir in ["lib", "lib64", "usr"] {
        std::fs::create_dir_all(outer.inside(dir)).unwrap();
    }
}

/// The outer container: with every right over its own namespaces, and the host's libraries.
fn outer(runtime: Runtime, script: &str) -> Container {
    let capabilities = json!([
        "CAP_SYS_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_KILL",
        "CAP_NET_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE"
    ]);
    Container::new(runtime, script).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = capabilities.clone();
        }
        let mounts = config["mounts"].as_array_mut().unwrap();
        for dir in ["/lib", "/lib64", "/usr"] {
            mounts.push(json!({"destination": dir, "source": dir, "options": ["rbind", "ro"]}));
        }
        mounts.push(json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"}));
        config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    })
}

#[test]
fn a_container_runs_in_a_container() {
    for runtime in Runtime::ours() {
        for users in [false, true] {
            let run = "/davit-oci --cgroup-manager disabled run --bundle /inner in; /davit-oci list -q | wc -l";
            let outer = outer(runtime, run);
            let inner = Container::new(
                runtime,
                "echo inside; cat /proc/1/comm; ls /dev/null; echo x > /dev/null && hostname",
            )
            .with(|config| {
                config["hostname"] = "inner".into();
                config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0"});
                config["linux"].as_object_mut().unwrap().remove("resources");
            });
            add_inner(&outer, &inner.config);
            let outer = if users {
                let mode = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(outer.bundle(), mode).unwrap();
                let owned = Command::new("chown")
                    .args(["-hR", "100000:100000"])
                    .arg(outer.inside("/"))
                    .status();
                assert!(owned.unwrap().success());
                let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
                outer.with(|config| {
                    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({"type": "user"}));
                    config["linux"]["uidMappings"] = map.clone();
                    config["linux"]["gidMappings"] = map;
                })
            } else {
                outer
            };
            let output = outer.run();
            assert_eq!(
                text(&output.stdout),
                "inside\nsh\n/dev/null\ninner\n0\n",
                "users={users}: {output:?}"
            );
        }
    }
}
