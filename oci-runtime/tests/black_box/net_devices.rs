//! `linux.netDevices`: interfaces of the caller's network namespace, which each test makes for itself.
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

/// The addresses and the state of what is in the container.
const SHOW: &str = "for dir in /sys/class/net/*; do name=${dir##*/}; [ $name = lo ] || busybox ip addr show $name; done";

/// Runs the container in a network namespace where `before` made interfaces, then `after` in the same; both shell lines.
/// What they mount nobody else sees.
fn in_network(container: &Container, before: &str, args: &[&str], after: &str) -> Output {
    container.write_config();
    let run = container.command(args);
    let words: Vec<String> = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let line = format!(
        "set -e; ip link set lo up; {before}; set +e; {}; code=$?; {after}; exit $code",
        words.join(" ")
    );
    Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &line])
        .current_dir(container.bundle())
        .output()
        .unwrap()
}

fn with_devices(container: Container, devices: &Value) -> Container {
    container.with(|config| config["linux"]["netDevices"] = devices.clone())
}

/// An interface with attributes and with addresses of three kinds.
const MAKE: &str = "ip link add dv0 mtu 1400 address 02:11:22:33:44:55 type veth peer name dv1; ip link set dv1 up; \
    ip link set dv0 up; ip addr add 10.77.0.2/24 dev dv0; ip addr add 10.77.1.2/32 scope link dev dv0; \
    ip -6 addr add fd77::2/64 dev dv0 nodad";

#[test]
fn a_device_moves_with_its_name_its_attributes_and_its_global_addresses_and_is_up() {
    for runtime in Runtime::ours() {
        let container = with_devices(Container::new(runtime, SHOW), &json!({"dv0": {}}));
        let output = in_network(&container, MAKE, &["run", &container.id], "true");
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for expected in [
            "dv0@",
            ",UP",
            "mtu 1400",
            "02:11:22:33:44:55",
            "inet 10.77.0.2/24",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            assert!(shown.contains("inet6 fd77::2/64"), "{shown}");
        }
        assert!(!shown.contains("10.77.1.2"), "of the link only: {shown}");
    }
}

#[test]
fn a_device_gets_the_name_that_it_is_given() {
    for runtime in Runtime::ours() {
        let list = "ls /sys/class/net";
        for (name, shown) in [("inside0", "inside0\nlo\n"), ("eth%d", "eth0\nlo\n")] {
            let devices = json!({"dv0": {"name": name}});
            let container = with_devices(Container::new(runtime, list), &devices);
            let output = in_network(&container, MAKE, &["run", &container.id], "true");
            assert_eq!(text(&output.stdout), shown, "{output:?}");
        }
        // Both ends: a template gives each a number of its own.
        let devices = json!({"dv0": {"name": "eth%d"}, "dv1": {"name": "eth%d"}});
        let container = with_devices(Container::new(runtime, list), &devices);
        let output = in_network(&container, MAKE, &["run", &container.id], "true");
        assert_eq!(text(&output.stdout), "eth0\neth1\nlo\n", "{output:?}");
    }
}

#[test]
fn a_device_moves_into_a_namespace_that_is_joined_and_into_one_of_other_users() {
    for runtime in Runtime::ours() {
        let container = with_devices(
            Container::new(runtime, "ls /sys/class/net"),
            &json!({"dv0": {"name": "eth%d"}}),
        );
        let path = container
            .bundle()
            .join("netns")
            .to_str()
            .unwrap()
            .to_owned();
        std::fs::write(&path, "").unwrap();
        let container = container.with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
            namespaces.push(json!({"type": "network", "path": path}));
        });
        // It has an eth0 of its own.
        let before =
            format!("{MAKE}; unshare --net={path} sh -c 'ip link add eth0 type veth peer name x'");
        let after = format!("ip link show dv0 && echo still; umount {path}");
        let output = in_network(&container, &before, &["run", &container.id], &after);
        assert_eq!(text(&output.stdout), "eth0\neth1\nlo\nx\n", "{output:?}");

        let container = with_devices(
            Container::new(runtime, "ls /sys/class/net"),
            &json!({"dv0": {}}),
        );
        let container = crate::userns::with_users(container);
        let output = in_network(&container, MAKE, &["run", &container.id], "true");
        assert_eq!(text(&output.stdout), "dv0\nlo\n", "{output:?}");
    }
}

#[test]
fn a_device_that_cannot_move_is_an_error_and_stays_as_it_was() {
    for runtime in Runtime::ours() {
        for (devices, expected) in [
            (
                json!({"dv0": {"name": "lo"}}),
                "linux.netDevices[\"dv0\"]: \"lo\": file exists (EEXIST)",
            ),
            (
                json!({"dv0": {}, "dv9": {}}),
                "linux.netDevices[\"dv9\"]: link not found for interface dv9 on runtime namespace: ",
            ),
            (
                json!({"dv0": {}, "lo": {"name": "other"}}),
                "linux.netDevices[\"lo\"]: RTM_NEWLINK {",
            ),
        ] {
            let container = with_devices(Container::new(runtime, "true"), &devices);
            let output = in_network(
                &container,
                MAKE,
                &["run", &container.id],
                "ip addr show dv0",
            );
            let (shown, stderr) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{devices}");
            assert!(stderr.contains(expected), "{devices}: {stderr}");
            assert!(!stderr.contains("undoing"), "{stderr}");
            for kept in [",UP", "mtu 1400", "inet 10.77.0.2/24"] {
                assert!(shown.contains(kept), "{devices}: {kept}: {output:?}");
            }
            container.assert_nothing_left();
        }
    }
}

#[test]
fn a_device_comes_back_with_its_addresses_when_a_later_step_fails() {
    for runtime in Runtime::ours() {
        let devices = json!({"dv0": {"name": "other"}});
        let container = with_devices(Container::new(runtime, "true"), &devices).with(|config| {
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
        });
        let output = in_network(
            &container,
            MAKE,
            &["create", &container.id],
            "ip addr show dv0",
        );
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        for kept in ["dv0@", ",UP", "inet 10.77.0.2/24"] {
            assert!(shown.contains(kept), "{kept}: {output:?}");
        }
        container.assert_nothing_left();
    }
}

#[test]
fn hooks_of_the_runtime_find_the_device_in_the_container() {
    for runtime in Runtime::ours() {
        let container = with_devices(Container::new(runtime, "true"), &json!({"dv0": {}}));
        let seen = container.bundle().join("seen").to_str().unwrap().to_owned();
        let container = container.with(|config| {
            let script = format!("ls /sys/class/net > {seen}; ip link show dv0 && echo here >> {seen}; true");
            config["hooks"] = json!({"createRuntime": [
                {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]}
            ]});
        });
        let output = in_network(&container, MAKE, &["run", &container.id], "true");
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(&seen).unwrap();
        assert!(!text.contains("here"), "{text}");
    }
}
