//! The executor with plugins that are shell scripts: what it tells them, and what it makes of their answers.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cni::{Error, Executor, NetworkList, PluginError};
use serde_json::{Value, json};
use support::*;

/// A world in which the given scripts are plugins; each appends what it was told to a log.
struct Scripts {
    world: World,
}

/// Logs the verb and the plugin, keeps stdin, then runs the rest.
const PROLOGUE: &str = r#"#!/bin/sh
self=$(basename "$0")
dir=$(dirname "$0")
input=$(cat)
printf '%s %s\n' "$CNI_COMMAND" "$self" >> "$dir/log"
printf '%s' "$input" > "$dir/$self.$CNI_COMMAND.stdin"
env | grep '^CNI_' | sort > "$dir/$self.$CNI_COMMAND.env"
"#;

/// An ADD that succeeds with one address.
const ADD_OK: &str = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.9.9.9/24","interface":0}]}'
exit 0
"#;

impl Scripts {
    fn new(scripts: &[(&str, &str)]) -> Scripts {
        let scripts_world = Scripts {
            world: World::new(),
        };
        std::fs::create_dir(scripts_world.dir()).unwrap();
        for (name, body) in scripts {
            scripts_world.install(name, &format!("{PROLOGUE}{body}"));
        }
        scripts_world
    }

    fn install(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn dir(&self) -> PathBuf {
        self.world.path("scripts")
    }

    fn executor(&self) -> Executor {
        self.world.executor_of(vec![self.dir()])
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(name)).unwrap_or_default()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    fn network(&self, version: &str, plugins: &[&str]) -> NetworkList {
        let plugins: Vec<Value> = plugins
            .iter()
            .map(|p| json!({"type": p, "capabilities": {"mac": true, "off": false}}))
            .collect();
        let text =
            json!({"cniVersion": version, "name": "scripted", "plugins": plugins}).to_string();
        NetworkList::parse(text.as_bytes()).unwrap()
    }

    /// ADD of a network of one plugin, whose answer must be an error.
    fn add_error(&self, plugin: &str) -> Error {
        let network = self.network("1.0.0", &[plugin]);
        self.executor()
            .add(&network, &self.world.attachment("c"))
            .expect_err("an error")
    }
}

#[test]
fn a_chain_is_run_in_order_and_each_plugin_sees_the_result_before_it() {
    if !is_root() {
        return;
    }
    let second = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.10/24"}]}'; exit 0"#;
    let s = Scripts::new(&[("first", ADD_OK), ("second", second)]);
    let network = s.network("1.0.0", &["first", "second"]);
    let attachment = s
        .world
        .attachment("c")
        .with_arg("IgnoreUnknown", "1")
        .with_arg("K8S_POD_NAME", "web");
    let attachment = attachment
        .with_capability("mac", json!("02:00:00:00:00:01"))
        .with_capability("off", json!(1))
        .with_capability("other", json!(2));
    let result = s.executor().add(&network, &attachment).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.9.9.10/24");
    assert_eq!(s.read("log"), "ADD first\nADD second\n");
    assert_eq!(s.json("first.ADD.stdin").get("prevResult"), None);
    assert_eq!(
        s.json("second.ADD.stdin")["prevResult"]["ips"][0]["address"],
        "10.9.9.9/24"
    );
    assert_eq!(
        s.json("first.ADD.stdin")["runtimeConfig"],
        json!({"mac": "02:00:00:00:00:01"})
    );
    assert_eq!(s.json("first.ADD.stdin")["name"], "scripted");
    let netns = attachment.netns.clone().unwrap();
    let env = format!(
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web\nCNI_COMMAND=ADD\nCNI_CONTAINERID=c\nCNI_IFNAME=eth0\nCNI_NETNS={}\nCNI_PATH={}\n",
        netns.display(),
        s.dir().display()
    );
    assert_eq!(s.read("first.ADD.env"), env);

    s.executor().del(&network, &attachment).unwrap();
    assert_eq!(
        s.read("log"),
        "ADD first\nADD second\nDEL second\nDEL first\n"
    );
    for plugin in ["first", "second"] {
        assert_eq!(
            s.json(&format!("{plugin}.DEL.stdin"))["prevResult"]["ips"][0]["address"],
            "10.9.9.10/24",
            "{plugin}"
        );
    }
    assert_eq!(s.executor().cached("c", "eth0").unwrap(), None);
}

/// "prevResult" came to DEL with 0.4.0.
#[test]
fn an_old_configuration_gets_no_previous_result_on_del() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.9.9.9/24"}]}'; exit 0"#,
    )]);
    let network = s.network("0.3.1", &["p"]);
    let attachment = s.world.attachment("c");
    s.executor().add(&network, &attachment).unwrap();
    s.executor().del(&network, &attachment).unwrap();
    assert_eq!(s.json("p.DEL.stdin").get("prevResult"), None);
}

#[test]
fn the_plugin_s_error_object_names_the_plugin_and_keeps_its_code() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        r#"echo 'some noise' >&2; echo '{"cniVersion":"1.0.0","code":11,"msg":"the pool is empty","details":"pool a"}'; exit 1"#,
    )]);
    let error = s.add_error("p");
    assert_eq!(
        error.to_string(),
        "plugin \"p\" ADD: the pool is empty; pool a (code 11)"
    );
    assert_eq!(error.plugin_code(), Some(PluginError::TRY_AGAIN));
    assert!(error.is_temporary());
    assert!(matches!(error, Error::Plugin { stderr, .. } if stderr == "some noise\n"));
}

#[test]
fn answers_that_are_none_are_errors_that_quote_them() {
    if !is_root() {
        return;
    }
    for (body, expected) in [
        (
            "echo hello",
            "plugin \"p\" ADD: unusable answer: not JSON: expected value at line 1 column 1; stdout: \"hello\"",
        ),
        (
            "exit 0",
            "plugin \"p\" ADD: unusable answer: not JSON: EOF while parsing a value at line 1 column 0; stdout is empty",
        ),
        (
            "echo '[]'",
            "plugin \"p\" ADD: unusable answer: not a JSON object; stdout: \"[]\"",
        ),
        (
            "echo '{\"cniVersion\":\"9.9.9\"}'",
            "plugin \"p\" ADD: unusable answer: cniVersion \"9.9.9\" is not supported here",
        ),
        (
            "echo oops >&2; exit 3",
            "plugin \"p\" ADD: exit status: 3 and no error object on stdout; stdout is empty; stderr: oops",
        ),
        (
            "echo panic; exit 2",
            "plugin \"p\" ADD: exit status: 2 and no error object on stdout; stdout: \"panic\"",
        ),
        (
            "kill -9 $$",
            "plugin \"p\" ADD: signal: 9 (SIGKILL) and no error object on stdout; stdout is empty",
        ),
        (
            "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "plugin \"p\" ADD: unusable answer: more than 1048576 bytes; stdout: \"xxx",
        ),
    ] {
        let error = Scripts::new(&[("p", body)]).add_error("p").to_string();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

#[test]
fn a_flood_on_stderr_neither_blocks_nor_fills_memory() {
    if !is_root() {
        return;
    }
    let flood =
        "dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' x >&2; echo the-end >&2; exit 1";
    let Error::Died { stderr, .. } = Scripts::new(&[("p", flood)]).add_error("p") else {
        panic!("another error")
    };
    assert!(stderr.ends_with("the-end\n"));
    assert!(stderr.len() <= 8192, "{}", stderr.len());
}

#[test]
fn a_missing_plugin_is_named_with_the_directories_before_anything_ran() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("first", ADD_OK)]);
    let executor = s.world.executor_of(vec!["/nonexistent".into(), s.dir()]);
    let network = s.network("1.0.0", &["first", "second"]);
    let error = executor
        .add(&network, &s.world.attachment("c"))
        .unwrap_err()
        .to_string();
    let expected = format!(
        "network \"scripted\": plugin \"second\" not found in /nonexistent, {}\nhint: install it there",
        s.dir().display()
    );
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(s.read("log"), "");
    assert_eq!(s.executor().cached("c", "eth0").unwrap(), None);
}

#[test]
fn a_slow_plugin_is_killed_with_everything_it_started() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        "sleep 1000 & echo $! > \"$dir/grandchild\"; echo waiting >&2; wait",
    )]);
    let executor = Executor {
        timeout: Duration::from_millis(700),
        ..s.executor()
    };
    let started = Instant::now();
    let error = executor
        .add(&s.network("1.0.0", &["p"]), &s.world.attachment("c"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin \"p\" ADD: no answer after 0.7 s, killed; stderr: waiting"
    );
    assert!(error.is_temporary());
    assert!(started.elapsed() < Duration::from_secs(5));
    let grandchild = s.read("grandchild");
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim()));
    wait_until("the grandchild is dead", || {
        stat().map_or(true, |text| text.contains(") Z "))
    });
}

/// Polls, because the kernel kills when it gets to it.
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_daemon_that_keeps_stdout_open_does_not_hold_the_call() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        &format!("setsid sleep 1000 & echo $! > \"$dir/daemon\"\n{ADD_OK}"),
    )]);
    let started = Instant::now();
    let result = s
        .executor()
        .add(&s.network("1.0.0", &["p"]), &s.world.attachment("c"));
    let daemon: i32 = s.read("daemon").trim().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(result.unwrap().ips.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_plugin_that_does_not_read_its_input_is_no_error() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[]);
    s.install("p", &format!("#!/bin/sh\nexec 0<&-\n{ADD_OK}"));
    let text = json!({"cniVersion": "1.0.0", "name": "big", "plugins": [{"type": "p", "pad": "x".repeat(1 << 20)}]}).to_string();
    let network = NetworkList::parse(text.as_bytes()).unwrap();
    assert_eq!(
        s.executor()
            .add(&network, &s.world.attachment("c"))
            .unwrap()
            .ips
            .len(),
        1
    );
}

#[test]
fn a_large_configuration_reaches_a_plugin_that_reads_late() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("p", ADD_OK)]);
    let text = json!({"cniVersion": "1.0.0", "name": "big", "plugins": [{"type": "p", "pad": "x".repeat(1 << 20)}]}).to_string();
    let network = NetworkList::parse(text.as_bytes()).unwrap();
    s.executor()
        .add(&network, &s.world.attachment("c"))
        .unwrap();
    assert_eq!(
        s.json("p.ADD.stdin")["pad"].as_str().unwrap().len(),
        1 << 20
    );
}

#[test]
fn a_file_that_cannot_be_executed_is_an_error_with_its_path() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[]);
    s.install("p", "not a program");
    let error = s.add_error("p").to_string();
    let expected = format!(
        "plugin \"p\" ADD: start {:?}: Exec format error (os error 8)",
        s.dir().join("p")
    );
    assert_eq!(error, expected);
}

#[test]
fn after_a_failed_add_del_runs_every_plugin_and_the_cache_is_empty() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[
        ("first", ADD_OK),
        (
            "second",
            r#"[ "$CNI_COMMAND" = ADD ] && { echo '{"code":7,"msg":"no"}'; exit 1; }; exit 0"#,
        ),
    ]);
    let network = s.network("1.0.0", &["first", "second"]);
    let attachment = s.world.attachment("c");
    s.executor().add(&network, &attachment).unwrap_err();
    let cached = s
        .executor()
        .cached("c", "eth0")
        .unwrap()
        .expect("the intent is remembered");
    assert_eq!(cached.result, None);
    // The caller may have forgotten everything but the container's id.
    s.executor().del_cached("c", "eth0").unwrap();
    assert_eq!(
        s.read("log"),
        "ADD first\nADD second\nDEL second\nDEL first\n"
    );
    assert_eq!(s.executor().cached("c", "eth0").unwrap(), None);
}

#[test]
fn a_del_that_fails_can_be_tried_again() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        &format!("[ \"$CNI_COMMAND\" = DEL ] && [ ! -e \"$dir/well\" ] && exit 1\n{ADD_OK}"),
    )]);
    let network = s.network("1.0.0", &["p"]);
    let attachment = s.world.attachment("c");
    s.executor().add(&network, &attachment).unwrap();
    s.executor().del(&network, &attachment).unwrap_err();
    assert!(
        s.executor()
            .cached("c", "eth0")
            .unwrap()
            .unwrap()
            .result
            .is_some()
    );
    std::fs::write(s.dir().join("well"), "").unwrap();
    s.executor().del(&network, &attachment).unwrap();
    assert_eq!(s.executor().cached("c", "eth0").unwrap(), None);
}

#[test]
fn a_namespace_that_is_gone_is_told_as_an_empty_variable() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("p", ADD_OK)]);
    let network = s.network("1.0.0", &["p"]);
    let left_by_unmount = s.world.path("pin");
    std::fs::write(&left_by_unmount, "").unwrap();
    for gone in [Some(left_by_unmount), Some("/nonexistent/ns".into()), None] {
        let attachment = cni::Attachment {
            netns: gone,
            ..cni::Attachment::new("c")
        };
        s.executor().del(&network, &attachment).unwrap();
        assert!(
            s.read("p.DEL.env").contains("CNI_NETNS=\n"),
            "{}",
            s.read("p.DEL.env")
        );
    }
}

#[test]
fn add_without_a_real_namespace_or_with_bad_names_runs_nothing() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("p", ADD_OK)]);
    let network = s.network("1.0.0", &["p"]);
    let file = s.world.path("file");
    std::fs::write(&file, "").unwrap();
    for (attachment, expected) in [
        (
            cni::Attachment::new("c"),
            "network namespace \"\": is needed to attach",
        ),
        (cni::Attachment::new("c").in_netns("/nonexistent"), "ENOENT"),
        (
            cni::Attachment::new("c").in_netns(file),
            "is not a namespace: invalid argument (EINVAL)",
        ),
        (
            s.world.attachment("../c"),
            "container id \"../c\": must start with",
        ),
        (
            s.world.attachment("c").named("a/b"),
            "interface name \"a/b\": contains",
        ),
    ] {
        let error = s
            .executor()
            .add(&network, &attachment)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(s.read("log"), "");
}

#[test]
fn an_unreadable_cache_entry_does_not_stop_del() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("p", ADD_OK)]);
    let network = s.network("1.0.0", &["p"]);
    let attachment = s.world.attachment("c");
    s.executor().add(&network, &attachment).unwrap();
    std::fs::write(s.world.path("cache/results/scripted-c-eth0"), "").unwrap();
    s.executor().del(&network, &attachment).unwrap();
    assert_eq!(s.json("p.DEL.stdin").get("prevResult"), None);
    assert!(!s.world.path("cache/results/scripted-c-eth0").exists());
}

#[test]
fn the_cache_is_asked_for_one_container_among_similar_ones() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[("p", ADD_OK)]);
    let network = s.network("1.0.0", &["p"]);
    for id in ["a", "a-b", "b", "b-a"] {
        s.executor().add(&network, &s.world.attachment(id)).unwrap();
    }
    let found = s.executor().cached_attachments(Some("a")).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|c| c.container_id.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert_eq!(s.executor().cached_attachments(None).unwrap().len(), 4);
}

#[test]
fn readiness_asks_every_plugin_for_its_versions() {
    if !is_root() {
        return;
    }
    let old = r#"echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}'"#;
    let s = Scripts::new(&[("old", old)]);
    s.executor()
        .check_ready(&s.network("0.4.0", &["old"]))
        .unwrap();
    let error = s
        .executor()
        .check_ready(&s.network("1.0.0", &["old"]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "network configuration \"scripted\": plugin \"old\" supports only cniVersion 0.3.1, 0.4.0, not 1.0.0"
    );
    assert!(matches!(
        s.executor().check_ready(&s.network("1.0.0", &["none"])),
        Err(Error::MissingPlugin { .. })
    ));
    let ours = s.world.executor().version("bridge").unwrap();
    assert_eq!(ours.supported, cni::SUPPORTED_VERSIONS);
}

#[test]
fn status_is_asked_of_networks_that_have_it() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[(
        "p",
        r#"echo '{"code":50,"msg":"the daemon is down"}'; exit 1"#,
    )]);
    s.executor().status(&s.network("1.0.0", &["p"])).unwrap();
    assert_eq!(s.read("log"), "");
    let error = s
        .executor()
        .status(&s.network("1.1.0", &["p"]))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin \"p\" STATUS: the daemon is down (code 50)"
    );
    assert!(error.is_temporary());
    let missing = s
        .executor()
        .check_installed(&s.network("1.1.0", &["p", "q"]))
        .unwrap_err();
    assert!(matches!(missing, Error::MissingPlugin { plugin, .. } if plugin == "q"));
}

#[test]
fn a_plugin_of_ours_that_no_directory_has_is_run_from_the_multi_call_binary() {
    if !is_root() {
        return;
    }
    let s = Scripts::new(&[]);
    let executor = s.executor().with_builtin(davit_cni());
    let text =
        json!({"cniVersion": "1.0.0", "name": "lo", "plugins": [{"type": "loopback"}]}).to_string();
    let network = NetworkList::parse(text.as_bytes()).unwrap();
    let result = executor
        .add(&network, &s.world.attachment("c").named("lo"))
        .unwrap();
    assert_eq!(result.ips[0].address.to_string(), "127.0.0.1/8");
}
