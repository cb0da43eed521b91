//! create, start, kill, state, delete, exec and hooks, one step at a time.

use std::time::Duration;

use serde_json::{Value, json};

use super::{on_each_host, same};
use integration::bundle::Bundle;
use integration::oci::{Runtime, fresh_id};
use integration::wait;

/// The status of a container, or what `state` says when there is none.
fn status(runtime: &Runtime, id: &str) -> String {
    let outcome = runtime.call(&["state", id]);
    if outcome.code != 0 {
        return "none".to_owned();
    }
    outcome.json()["status"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Creates, starts, kills and deletes a sleeping container, with what each step showed.
fn life_of_a_sleeper(runtime: &Runtime) -> Vec<String> {
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let (id, dir) = (fresh_id(), bundle.path().to_string_lossy().into_owned());
    let pid_file = bundle.path().join("pid").to_string_lossy().into_owned();
    let mut seen = vec![status(runtime, &id)];
    // A container that outlives its caller must not hold the caller's pipes.
    let mut create = runtime.command(&["create", "--bundle", &dir, "--pid-file", &pid_file, &id]);
    create
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    seen.push(format!("create {}", create.status().unwrap().success()));
    seen.push(status(runtime, &id));
    let state = runtime.state(&id);
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(state["bundle"], json!(dir));
    seen.push(format!("start {}", runtime.call(&["start", &id]).code));
    seen.push(status(runtime, &id));
    seen.push(format!(
        "start again {}",
        runtime.call(&["start", &id]).code
    ));
    seen.push(format!(
        "delete while running {}",
        runtime.call(&["delete", &id]).code
    ));
    seen.push(format!(
        "kill {}",
        runtime.call(&["kill", &id, "KILL"]).code
    ));
    wait::until_true("the container is stopped", Duration::from_secs(10), || {
        status(runtime, &id) == "stopped"
    });
    seen.push(format!("delete {}", runtime.call(&["delete", &id]).code));
    seen.push(status(runtime, &id));
    seen.push(format!(
        "delete --force again {}",
        runtime.call(&["delete", "--force", &id]).code
    ));
    seen
}

#[test]
fn a_container_goes_through_the_same_states_and_refuses_the_same_steps() {
    let _checked = on_each_host(|cgroups, peer| {
        let (theirs, ours) = (life_of_a_sleeper(peer), life_of_a_sleeper(&Runtime::ours()));
        assert_eq!(
            ours,
            theirs,
            "davit-oci (left) and {} (right) on {}",
            peer.name(),
            cgroups.name()
        );
        assert_eq!(ours[1..5], ["create true", "created", "start 0", "running"]);
    });
}

#[test]
fn a_process_joins_a_running_container_and_its_exit_code_comes_back() {
    let exec = |runtime: &Runtime| {
        let bundle = Bundle::new(&["/bin/sleep", "1000"]);
        let (id, dir) = (fresh_id(), bundle.path().to_string_lossy().into_owned());
        let mut run = runtime.command(&["run", "--detach", "--bundle", &dir, &id]);
        run.stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        assert!(run.status().unwrap().success());
        let script = "hostname; pwd; id -u; echo $A; exit 9";
        let args = [
            "exec", "--env", "A=b", "--user", "33:33", "--cwd", "/data", &id, "/bin/sh", "-c",
            script,
        ];
        let inside = runtime.call(&args);
        assert_eq!(runtime.call(&["delete", "--force", &id]).code, 0);
        (inside.code, inside.stdout)
    };
    let _checked = on_each_host(|cgroups, peer| {
        let (theirs, ours) = (exec(peer), exec(&Runtime::ours()));
        assert_eq!(
            ours,
            theirs,
            "davit-oci (left) and {} (right) on {}",
            peer.name(),
            cgroups.name()
        );
        assert!(ours.1 == "bundle\n/data\n33\nb\n", "{ours:?}");
    });
}

#[test]
fn hooks_run_in_order_with_the_state_on_their_standard_input() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let hook = |name: &str| {
        let script = format!(
            "s=$(cat); echo \"{name} $(echo $s | grep -o '\"id\"' | head -1) $X\" >> {}",
            log.path().display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["X=y", "PATH=/bin:/usr/bin"], "timeout": 10}])
    };
    let hooks = |config: &mut Value| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    };
    let ran = |runtime: &Runtime| {
        std::fs::write(log.path(), "").unwrap();
        let outcome = runtime.run(&Bundle::changed(&["/bin/true"], hooks));
        assert_eq!(outcome.code, 0, "{outcome}");
        std::fs::read_to_string(log.path()).unwrap()
    };
    let _checked = on_each_host(|cgroups, peer| {
        let (theirs, ours) = (ran(peer), ran(&Runtime::ours()));
        assert_eq!(
            ours,
            theirs,
            "davit-oci (left) and {} (right) on {}",
            peer.name(),
            cgroups.name()
        );
        assert_eq!(ours.lines().count(), 5, "{ours}");
    });
}

#[test]
fn a_failing_hook_fails_the_container_and_leaves_none() {
    let _checked = on_each_host(|_, peer| {
        for runtime in [peer, &Runtime::ours()] {
            let bundle = Bundle::changed(&["/bin/true"], |config| {
                config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
            });
            let outcome = runtime.run(&bundle);
            assert_ne!(outcome.code, 0, "{}: {outcome}", runtime.name());
            assert_eq!(runtime.call(&["list", "-q"]).ok(), "", "{}", runtime.name());
        }
    });
}

#[test]
fn a_run_leaves_no_cgroup_mount_or_state() {
    let mine = |what: &str| {
        let own = format!("peer-{}-", std::process::id());
        std::fs::read_to_string(what)
            .unwrap()
            .lines()
            .filter(|line| line.contains(&own))
            .count()
    };
    for (_, ours) in same("exit 0", |_| {}) {
        assert_eq!(ours.code, 0);
    }
    assert_eq!(mine("/proc/self/mountinfo"), 0);
}
