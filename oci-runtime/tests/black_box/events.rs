//! `events`: statistics and want of memory.
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, cgroups_named, eventually};

/// `events` in the background, writing to a file; killed at the end of the test.
struct Follower {
    child: Child,
    out: PathBuf,
}

impl Follower {
    fn new(container: &Container, flags: &[&str]) -> Self {
        let out = container.bundle().join("events");
        let mut args = vec!["events"];
        args.extend(flags);
        args.push(&container.id);
        let mut command = container.command(&args);
        let child = command
            .stdout(std::fs::File::create(&out).unwrap())
            .spawn()
            .unwrap();
        Self { child, out }
    }

    /// The lines that are whole.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn stats(container: &Container) -> Value {
    let text = container.must(&["events", "--stats", &container.id]);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Every property of `theirs` that holds something is in `ours`, too.
fn assert_covers(ours: &Value, theirs: &Value, path: &str) {
    let Some(theirs) = theirs.as_object() else {
        return;
    };
    for (key, value) in theirs {
        let path = format!("{path}.{key}");
        if holds_nothing(value) {
            continue;
        }
        let own = ours.get(key);
        assert!(
            own.is_some_and(|own| kind(own) == kind(value)),
            "{path}: {value} is here {own:?}"
        );
        assert_covers(own.unwrap(), value, &path);
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// Zero in every way that Go leaves out.
fn holds_nothing(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().all(holds_nothing),
        Value::Array(members) => members.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Null => true,
        _ => false,
    }
}

#[test]
fn statistics_have_runcs_names_and_the_numbers_of_the_cgroup() {
    if Runtime::ours().is_empty() {
        return;
    }
    let resources =
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 17}, "cpu": {"cpus": "0"}});
    let make = |runtime| {
        let container = Container::new(runtime, "dd if=/dev/zero of=/tmp/file bs=1M count=4 2>/dev/null; touch /tmp/done; sleep 1000; true")
            .with(|config| {
                for (key, value) in resources.as_object().unwrap() {
                    config["linux"]["resources"][key] = value.clone();
                }
            });
        container.start();
        eventually("it has done some work", || {
            container.inside("tmp/done").exists()
        });
        container
    };
    let container = make(Runtime::Davit);
    let ours = stats(&container);
    assert_eq!(ours["type"], "stats");
    assert_eq!(ours["id"], container.id.as_str());
    let data = &ours["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20, "{data}");
    assert_eq!(data["pids"]["limit"], 17, "{data}");
    assert!(data["pids"]["current"].as_u64().unwrap() >= 2, "{data}");
    assert!(
        data["cpu"]["usage"]["total"].as_u64().unwrap() > 0,
        "{data}"
    );
    assert!(
        data["memory"]["usage"]["usage"].as_u64().unwrap() > 0,
        "{data}"
    );
    assert!(
        !data["memory"]["raw"].as_object().unwrap().is_empty(),
        "{data}"
    );
    assert_eq!(data["intel_rdt"], json!({}));
    // The order of the sections is part of what people read.
    let text = container.must(&["events", "--stats", &container.id]);
    let places: Vec<usize> = [
        "\"cpu\":{",
        "\"cpuset\":{",
        "\"memory\":{\"",
        "\"pids\":{",
        "\"blkio\":{",
        "\"hugetlb\":{",
        "\"intel_rdt\":{",
        "\"network_interfaces\":",
    ]
    .iter()
    .map(|key| text.find(key).unwrap_or_else(|| panic!("{key}: {text}")))
    .collect();
    assert!(places.is_sorted(), "{places:?}: {text}");

    if Runtime::all().contains(&Runtime::Runc) {
        let theirs = stats(&make(Runtime::Runc));
        assert_covers(&ours["data"], &theirs["data"], "data");
    }
}

#[test]
fn statistics_come_at_the_interval_until_the_container_is_gone() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let mut follower = Follower::new(&container, &["--interval", "50ms"]);
        eventually("statistics come", || follower.lines().len() >= 3);
        let lines = follower.lines();
        assert!(
            lines.iter().all(|line| line["type"] == "stats"),
            "{runtime:?}: {lines:?}"
        );
        container.must(&["delete", "--force", &container.id]);
        eventually("it ends by itself", || {
            follower.child.try_wait().unwrap().is_some()
        });
        assert!(follower.child.wait().unwrap().success(), "{runtime:?}");
    }
}

#[test]
fn want_of_memory_is_told_as_it_happens() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
        });
        container.start();
        // runc says nothing before its first interval, so that one tells that it watches.
        let follower = Follower::new(&container, &["--interval", "100ms"]);
        eventually("it watches", || !follower.lines().is_empty());
        let (code, ..) = container.call(&[
            "exec",
            &container.id,
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=100M",
            "count=1",
        ]);
        assert_eq!(code, Some(137), "{runtime:?}");
        let oom = json!({"type": "oom", "id": container.id});
        eventually("the event comes", || follower.lines().contains(&oom));
        container.must(&["delete", "--force", &container.id]);
    }
}

#[test]
fn events_need_a_running_container_and_an_interval() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        for (interval, says) in [
            ("0s", "duration interval must be greater than 0"),
            ("soon", "interval"),
        ] {
            let (code, _, stderr) =
                container.call(&["events", "--interval", interval, &container.id]);
            assert_ne!(code, Some(0), "{runtime:?}");
            assert!(
                runtime == Runtime::Runc || stderr.contains(says),
                "{runtime:?}: {stderr}"
            );
        }
        container.must(&["kill", &container.id, "KILL"]);
        eventually("it ends", || container.status() == "stopped");
        let (code, _, stderr) = container.call(&["events", "--stats", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains(&format!(
                "container with id {} is not running",
                container.id
            )),
            "{runtime:?}: {stderr}"
        );
    }
}

/// On cgroup v2 in a mount namespace of the test's own, without controllers: the end of the container is seen all the
/// same, and CPU time and pressure are counted.
#[test]
fn events_follow_a_container_on_cgroup_v2_to_its_end() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        let script = format!(
            "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99
            oci='{} --root {}'
            $oci run --detach {id} >/dev/null || exit 98
            $oci events --stats {id} || exit 97
            $oci pause {id} && $oci state {id} | grep -q paused && $oci resume {id} || exit 96
            $oci events --interval 50ms {id} >followed & events=$!
            until [ -s followed ]; do :; done
            $oci kill {id} KILL || exit 95
            wait $events || exit 94
            $oci delete --force {id} || exit 93",
            runtime.program(),
            container.state_root().display(),
            id = container.id
        );
        let output = std::process::Command::new("timeout")
            .args(["30", "unshare", "--mount", "sh", "-c", &script])
            .current_dir(container.bundle())
            .output()
            .unwrap();
        let text = crate::harness::text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["data"]["pids"]["current"], 1, "{text}");
        if Path::new("/proc/pressure").exists() {
            assert!(
                line["data"]["cpu"]["psi"]["some"]["avg10"].is_number(),
                "{text}"
            );
        }
        assert_eq!(cgroups_named(&container.id), Vec::<PathBuf>::new());
    }
}
