//! The plugin binary by itself: its command line, its environment, its error objects.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use netlink::Rtnl;
use serde_json::{Value, json};
use support::*;

/// Runs a plugin with these variables and this configuration.
fn run(plugin: &str, env: &[(&str, &str)], stdin: &str) -> Output {
    let mut command = Command::new(davit_cni());
    command.arg0(plugin).env_clear().envs(env.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that refuses its environment does not read.
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn error_of(output: &Output) -> (u64, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["cniVersion"].is_string(), "{value}");
    (
        value["code"].as_u64().unwrap(),
        value["msg"].as_str().unwrap().to_owned(),
    )
}

const CONF: &str = r#"{"cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}}"#;

#[test]
fn version_is_answered_without_any_other_variable() {
    for plugin in cni::plugin::NAMES {
        let output = run(plugin, &[("CNI_COMMAND", "VERSION")], "");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success());
        assert_eq!(
            value,
            json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        );
    }
}

#[test]
fn a_person_who_tries_it_learns_what_it_is() {
    let output = run("bridge", &[], "");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("CNI plugin bridge 0."));
    let command = |args: &[&str]| Command::new(davit_cni()).args(args).output().unwrap();
    assert!(
        String::from_utf8_lossy(&command(&["--help"]).stdout)
            .contains("Usage: bridge | firewall | host-local | loopback")
    );
    assert!(command(&["--version"]).status.success());
    let wrong = command(&["macvlan"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&wrong.stderr),
        "davit-cni: no plugin \"macvlan\"; there are bridge, firewall, host-local, loopback, portmap\n"
    );
    assert_eq!(command(&[]).status.code(), Some(64));
}

#[test]
fn what_is_missing_or_wrong_in_the_environment_is_said() {
    let full = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/nonexistent/ns"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nonexistent"),
    ];
    let with = |changes: &[(&'static str, &'static str)]| {
        let mut env: Vec<(&str, &str)> = full.to_vec();
        for (key, value) in changes {
            env.retain(|(k, _)| k != key);
            env.push((key, value));
        }
        error_of(&run("bridge", &env, CONF))
    };
    let (code, msg) = with(&[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")]);
    assert_eq!(
        (code, msg.as_str()),
        (4, "ADD needs CNI_CONTAINERID, CNI_IFNAME")
    );
    let (code, msg) = with(&[("CNI_NETNS", "")]);
    assert_eq!((code, msg.as_str()), (4, "ADD needs CNI_NETNS"));
    assert_eq!(with(&[("CNI_CONTAINERID", "../c")]).0, 4);
    assert_eq!(with(&[("CNI_IFNAME", "a/b")]).0, 4);
    assert_eq!(
        with(&[("CNI_ARGS", "nonsense")]),
        (4, "CNI_ARGS: \"nonsense\" is not KEY=VALUE".to_owned())
    );
    let (code, msg) = with(&[("CNI_ARGS", "COLOUR=red")]);
    assert_eq!(
        (code, msg.contains("unknown key \"COLOUR\"")),
        (4, true),
        "{msg}"
    );
    let (code, msg) = with(&[]);
    assert_eq!(
        (
            code,
            msg.contains("open(\"/nonexistent/ns\"") && msg.contains("ENOENT")
        ),
        (100, true),
        "{msg}"
    );
    for (verb, expected) in [
        ("CHECK", "key \"prevResult\" is missing"),
        (
            "GC",
            "GC needs \"cni.dev/valid-attachments\", the list of what is still attached",
        ),
    ] {
        let (code, msg) = with(&[("CNI_COMMAND", verb)]);
        assert_eq!((code, msg.as_str()), (7, expected), "{verb}");
    }
    assert_eq!(
        with(&[("CNI_COMMAND", "add")]),
        (4, "unknown CNI_COMMAND \"add\"".to_owned())
    );
}

#[test]
fn a_configuration_that_is_none_is_refused_with_the_specification_s_code() {
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/nonexistent/ns"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nonexistent"),
    ];
    for (conf, code, expected) in [
        ("", 6, "configuration on stdin: EOF"),
        ("{", 6, "configuration on stdin: EOF"),
        ("[]", 6, "not a JSON object"),
        ("{}", 7, "network name \"\": is empty"),
        (r#"{"name": "a/b"}"#, 7, "network name \"a/b\""),
        (
            r#"{"name": "a"}"#,
            1,
            "incompatible CNI versions: config is \"0.1.0\", plugin supports 0.3.0",
        ),
        (
            r#"{"name": "a", "cniVersion": "9.0.0"}"#,
            1,
            "incompatible CNI versions: config is \"9.0.0\"",
        ),
        (
            r#"{"name": "a", "cniVersion": "x"}"#,
            6,
            "cniVersion \"x\" is not a version",
        ),
        (
            r#"{"name": "a", "cniVersion": 1}"#,
            6,
            "cniVersion is not a string: 1",
        ),
        (
            r#"{"name": "a", "cniVersion": "1.0.0", "mtu": "big"}"#,
            6,
            "invalid type: string \"big\"",
        ),
    ] {
        let (got, msg) = error_of(&run("bridge", &env, conf));
        assert!(got == code && msg.contains(expected), "{conf}: {got} {msg}");
    }
}

#[test]
fn status_says_whether_the_configuration_would_work() {
    let status = |conf: &str| {
        run(
            "bridge",
            &[("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/nonexistent")],
            conf,
        )
    };
    let output = status(CONF);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    let (code, msg) = error_of(&status(&CONF.replace("host-local", "dhcp")));
    assert_eq!(
        (code, msg.as_str()),
        (
            7,
            "ipam plugin \"dhcp\" not found in CNI_PATH (/nonexistent)"
        )
    );
    assert_eq!(
        error_of(&status(&CONF.replace("10.0.0.0/24", "10.0.0.1/24"))).0,
        7
    );
    assert_eq!(
        error_of(&status(&CONF.replace("\"type\": \"x\"", "\"vlan\": 3"))).0,
        2
    );
}

#[test]
fn an_empty_result_is_not_printed_for_del() {
    let dir = tempfile::tempdir().unwrap();
    let conf = json!({"cniVersion": "1.0.0", "name": "n", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24", "dataDir": dir.path()}});
    let env = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nonexistent"),
    ];
    for plugin in ["host-local", "loopback"] {
        let output = run(plugin, &env, &conf.to_string());
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
}

/// With the host's own namespace, DEL would delete the host's interface of that name.
#[test]
fn the_host_s_own_namespace_is_refused_by_add_and_del() {
    if !is_root() {
        return;
    }
    let world = World::new();
    world
        .host
        .run(|| ip(&["link", "add", "eth0", "type", "bridge"]));
    let path = world.host.path.to_str().unwrap().to_owned();
    for plugin in ["bridge", "loopback"] {
        for verb in ["ADD", "DEL"] {
            let env = [
                ("CNI_COMMAND", verb),
                ("CNI_CONTAINERID", "c"),
                ("CNI_NETNS", path.as_str()),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/nonexistent"),
            ];
            let (code, msg) = error_of(&world.host.run(|| run(plugin, &env, CONF)));
            assert_eq!(code, 8, "{msg}");
            assert!(
                msg.contains("is the namespace of the plugin itself"),
                "{msg}"
            );
        }
    }
    let (eth0, lo) = world.host.run(|| {
        let mut rtnl = Rtnl::open().unwrap();
        (
            rtnl.link_by_name("eth0").unwrap(),
            rtnl.link_by_name("lo").unwrap().unwrap(),
        )
    });
    assert!(eth0.is_some() && lo.up);
}

#[test]
fn loopback_passes_a_previous_result_on() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let pod = world.pod();
    let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.9/24"}], "vendor": 1});
    let conf = json!({"cniVersion": "1.0.0", "name": "n", "prevResult": previous});
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", pod.to_str().unwrap()),
        ("CNI_IFNAME", "lo"),
        ("CNI_PATH", "/nonexistent"),
    ];
    let output = world.host.run(|| run("loopback", &env, &conf.to_string()));
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        previous
    );
}
