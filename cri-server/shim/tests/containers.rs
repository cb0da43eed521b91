//! Containers from create to delete, under each OCI runtime that is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::fs;

use serde_json::json;
use shim::client::Client;
use shim::files;
use shim::protocol::{ErrorKind, State};
use support::{Pod, entry, exit_of, kill, runs, runtimes, wait_until};

#[test]
fn a_container_runs_and_its_exit_is_on_disk_before_it_is_told() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &["--new-net", "--new-ipc", "--new-uts"]);
        let (mut client, mut events) = (pod.client(), pod.events());
        let created = client
            .create(pod.container("c", "echo out; echo err >&2; exit 3"))
            .unwrap();
        let status = client.status().unwrap().containers.remove(0);
        assert_eq!(
            (status.state, status.pid),
            (State::Created, created.pid),
            "{}",
            tool.name
        );
        client.start("c").unwrap();
        let exit = exit_of(&mut events, "c");
        assert_eq!(
            (exit.code, exit.signal, exit.oom),
            (3, None, false),
            "{}",
            tool.name
        );
        assert_eq!(files::read_exit(&pod.bundle("c")).unwrap(), Some(exit));
        let mut log = pod.log("c");
        log.sort_by(|a, b| a.stream.cmp(&b.stream));
        assert_eq!(
            log,
            [entry("stderr", "F", "err"), entry("stdout", "F", "out")],
            "{}",
            tool.name
        );
        let status = client.status().unwrap().containers.remove(0);
        assert_eq!((status.state, status.exit), (State::Exited, Some(exit)));
        assert!(exit.finished_at_ns >= status.started_at_ns && status.started_at_ns > 0);
        client.delete("c", false).unwrap();
        client.delete("c", false).unwrap();
        client.delete("never-there", true).unwrap();
        assert_eq!(client.status().unwrap().containers, []);
    }
}

#[test]
fn a_killed_container_ends_with_128_plus_signal() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let mut events = pod.events();
        pod.run(
            "c",
            "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done",
        );
        wait_until("the trap is set", || {
            fs::read(pod.log_path("c")).is_ok_and(|log| !log.is_empty())
        });
        let mut client = pod.client();
        assert!(client.signal("c", 15, false).unwrap());
        assert_eq!(exit_of(&mut events, "c").code, 9, "{}", tool.name);
        assert!(
            !client.signal("c", 9, false).unwrap(),
            "nothing is left to signal"
        );
        assert!(!client.signal("c", 9, true).unwrap());
        pod.run("d", "exec sleep 1000");
        assert!(client.signal("d", 9, true).unwrap());
        let exit = exit_of(&mut events, "d");
        assert_eq!(
            (exit.code, exit.signal, exit.oom),
            (137, Some(9), false),
            "{}",
            tool.name
        );
        assert_eq!(
            client.signal("d", 99, false).unwrap_err().kind(),
            Some(ErrorKind::Invalid)
        );
    }
}

#[test]
fn a_container_over_its_memory_limit_is_told_as_oom() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        let create = pod.container_with("c", &["/bin/tail", "/dev/zero"], |config| {
            config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        });
        client.create(create).unwrap();
        client.start("c").unwrap();
        let exit = exit_of(&mut events, "c");
        assert_eq!((exit.code, exit.oom), (137, true), "{}", tool.name);
    }
}

#[test]
fn a_forced_delete_of_a_running_container_is_answered_after_its_exit() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let pid = pod.run("c", "exec sleep 1000");
        let mut client = pod.client();
        let error = client.delete("c", false).unwrap_err();
        assert_eq!(
            error.kind(),
            Some(ErrorKind::Runtime),
            "{}: {error}",
            tool.name
        );
        client.delete("c", true).unwrap();
        assert!(!runs(pid));
        assert_eq!(
            files::read_exit(&pod.bundle("c")).unwrap().unwrap().code,
            137,
            "{}",
            tool.name
        );
    }
}

#[test]
fn a_container_that_dies_before_its_start_is_deleted_without_force() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        let pid = client.create(pod.container("c", "true")).unwrap().pid;
        kill(pid, 9);
        assert_eq!(exit_of(&mut events, "c").signal, Some(9));
        let error = client.start("c").unwrap_err();
        assert_eq!(
            error.kind(),
            Some(ErrorKind::Runtime),
            "{}: {error}",
            tool.name
        );
        client.delete("c", false).unwrap();
    }
}

#[test]
fn two_hundred_containers_of_an_instant_all_answer_and_exit_with_their_codes() {
    for tool in runtimes() {
        // runc needs 0.1 s for each: fewer show as much.
        let count = if tool.name == "runc" { 30 } else { 200 };
        let pod = Pod::start(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        let shim = client.hello().pid;
        let descriptors = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
        let before = descriptors();
        for number in 0..count {
            let (id, code) = (format!("c{number}"), number % 7);
            client
                .create(pod.container(&id, &format!("echo {number}; exit {code}")))
                .unwrap();
            client.start(&id).unwrap();
            assert_eq!(exit_of(&mut events, &id).code, code, "{} {id}", tool.name);
            assert_eq!(
                pod.log(&id),
                [entry("stdout", "F", &number.to_string())],
                "{} {id}",
                tool.name
            );
            client.delete(&id, false).unwrap();
            fs::remove_dir_all(pod.bundle(&id)).unwrap();
        }
        wait_until("no descriptor leaked", || descriptors() <= before);
    }
}

#[test]
fn many_containers_at_once_do_not_wait_for_each_other() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let mut events = pod.events();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let pod = &pod;
            scope.spawn(move || {
                pod.run(
                    &format!("c{number}"),
                    &format!("echo {number}; exit {number}"),
                )
            });
        }
    });
    let mut codes = std::collections::BTreeMap::new();
    while codes.len() < 8 {
        if let Some(shim::protocol::Event::Exit { container_id, exit }) =
            events.next(support::PATIENCE).unwrap()
        {
            codes.insert(container_id, exit.code);
        }
    }
    let expected = (0..8)
        .map(|number| (format!("c{number}"), number))
        .collect();
    assert_eq!(codes, expected);
}

#[test]
fn a_refused_create_has_the_runtimes_words_and_leaves_nothing() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let mut client = pod.client();
        let missing = pod.container_with("c", &["/bin/not-there"], |_| {});
        let error = client.create(missing).unwrap_err();
        assert_eq!(
            error.kind(),
            Some(ErrorKind::Runtime),
            "{}: {error}",
            tool.name
        );
        assert!(
            error.to_string().contains("not-there"),
            "{}: {error}",
            tool.name
        );
        let broken = pod.container("d", "true");
        fs::write(pod.bundle("d").join("config.json"), "{\"ociVersion\":").unwrap();
        let error = client.create(broken).unwrap_err();
        assert_eq!(
            error.kind(),
            Some(ErrorKind::Runtime),
            "{}: {error}",
            tool.name
        );
        assert!(
            error.to_string().len() > "create \"d\": ".len(),
            "{}: {error}",
            tool.name
        );
        assert_eq!(client.status().unwrap().containers, [], "{}", tool.name);
        let state = pod.runtime().root.unwrap();
        let left: Vec<_> = fs::read_dir(&state)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", tool.name);
        assert_eq!(pod.processes("c"), [0_i32; 0]);
        // The ids are free again.
        client.create(pod.container("d", "true")).unwrap();
    }
}

#[test]
fn requests_that_make_no_sense_are_told_so() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let mut client = pod.client();
    let kind = |result: Result<_, shim::client::Error>| result.unwrap_err().kind();
    let good = pod.container("c", "true");
    for bad in ["", "..", "a/b"] {
        let create = shim::protocol::Create {
            container_id: bad.into(),
            ..good.clone()
        };
        assert_eq!(
            kind(client.create(create).map(drop)),
            Some(ErrorKind::Invalid),
            "{bad:?}"
        );
    }
    let relative = shim::protocol::Create {
        bundle: "c".into(),
        ..good.clone()
    };
    assert_eq!(
        kind(client.create(relative).map(drop)),
        Some(ErrorKind::Invalid)
    );
    let elsewhere = shim::protocol::Create {
        bundle: "/nonexistent".into(),
        ..good.clone()
    };
    assert_eq!(
        kind(client.create(elsewhere).map(drop)),
        Some(ErrorKind::Invalid)
    );
    client.create(good.clone()).unwrap();
    assert_eq!(
        kind(client.create(good).map(drop)),
        Some(ErrorKind::AlreadyExists)
    );
    for result in [
        client.start("x"),
        client.reopen_log("x"),
        client.kill_exec("x", "e"),
        client.signal("x", 9, false).map(drop),
    ] {
        assert_eq!(kind(result), Some(ErrorKind::NotFound));
    }
    assert_eq!(kind(client.kill_exec("c", "e")), Some(ErrorKind::NotFound));
}

#[test]
fn a_runtime_that_hangs_is_killed_with_its_children_and_the_client_told() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &["--runtime-deadline", "0.4"]);
    let script = pod.path().join("hangs");
    let children = pod.path().join("children");
    let body = format!(
        "#!/bin/sh\ncase \"$*\" in *delete*) exit 0;; esac\nsetsid sleep 1000 &\necho $! >{0}\necho $$ >>{0}\nwait\n",
        children.display()
    );
    fs::write(&script, body).unwrap();
    make_executable(&script);
    let mut create = pod.container("c", "true");
    create.runtime.path = script;
    let mut client = pod.client();
    let error = client.create(create).unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Timeout), "{error}");
    assert!(
        error.to_string().contains("did not end within 400ms"),
        "{error}"
    );
    for pid in fs::read_to_string(&children).unwrap().lines() {
        wait_until("the runtime and its child are gone", || {
            !runs(pid.parse().unwrap())
        });
    }
    assert_eq!(client.status().unwrap().containers, []);
}

#[test]
fn a_runtime_that_is_missing_says_nothing_or_floods_its_stderr_is_survived() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let mut client = pod.client();
    let mut create = pod.container("c", "true");
    create.runtime.path = "/nonexistent/runtime".into();
    let error = client.create(create.clone()).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/runtime") && error.to_string().contains("ENOENT"),
        "{error}"
    );
    for (body, expected) in [
        ("exit 5", "exited with code 5 and said nothing"),
        ("kill -9 $$", "killed by signal 9"),
        (
            "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the end >&2; exit 1",
            "the end",
        ),
        ("exit 0", "init.pid"),
    ] {
        let script = pod.path().join("runtime");
        fs::write(
            &script,
            format!("#!/bin/sh\ncase \"$*\" in *delete*) exit 0;; esac\n{body}\n"),
        )
        .unwrap();
        make_executable(&script);
        create.runtime.path = script;
        let error = client.create(create.clone()).unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Runtime), "{body}: {error}");
        assert!(error.to_string().contains(expected), "{body}: {error}");
        assert!(error.to_string().len() < 10_000);
    }
    assert_eq!(client.status().unwrap().containers, []);
}

#[test]
fn a_terminal_is_received_over_the_console_socket_and_logged_as_stdout() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        let mut create = pod.container_with(
            "a-container-with-a-name-so-long-that-no-socket-in-its-bundle-has-a-path-of-107-bytes",
            &[
                "/bin/sh",
                "-c",
                "test -t 0 && test -t 1 && test -t 2 && echo tty; exit 4",
            ],
            |config| {
                config["process"]["terminal"] = json!(true);
            },
        );
        create.terminal = true;
        let id = create.container_id.clone();
        client.create(create).unwrap();
        client.start(&id).unwrap();
        assert_eq!(exit_of(&mut events, &id).code, 4, "{}", tool.name);
        assert_eq!(
            pod.log(&id),
            [entry("stdout", "F", "tty\r")],
            "{}",
            tool.name
        );
        assert!(!pod.bundle(&id).join("console.sock").exists());
    }
}

#[test]
fn stdin_is_empty_unless_it_was_asked_for() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        client.create(pod.container("c", "cat; echo end")).unwrap();
        client.start("c").unwrap();
        assert_eq!(exit_of(&mut events, "c").code, 0);
        assert_eq!(pod.log("c"), [entry("stdout", "F", "end")], "{}", tool.name);
        let create = shim::protocol::Create {
            stdin: true,
            ..pod.container("d", "echo begin; cat; echo end")
        };
        client.create(create).unwrap();
        client.start("d").unwrap();
        wait_until("it runs", || {
            fs::read(pod.log_path("d")).is_ok_and(|log| !log.is_empty())
        });
        assert_eq!(
            client
                .status()
                .unwrap()
                .containers
                .iter()
                .find(|c| c.id == "d")
                .unwrap()
                .state,
            State::Running
        );
        client.signal("d", 9, true).unwrap();
        exit_of(&mut events, "d");
        assert_eq!(
            pod.log("d"),
            [entry("stdout", "F", "begin")],
            "{}",
            tool.name
        );
    }
}

#[test]
fn limits_of_a_running_container_are_changed() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        pod.run("c", "exec sleep 1000");
        let file = pod.bundle("c").join("resources.json");
        fs::write(&file, json!({"memory": {"limit": 64 << 20}}).to_string()).unwrap();
        let mut client = pod.client();
        client.update("c", &file).unwrap();
        let limit = format!("/sys/fs/cgroup/memory/{}/c/memory.limit_in_bytes", pod.name);
        assert_eq!(
            fs::read_to_string(limit).unwrap().trim(),
            (64 << 20).to_string(),
            "{}",
            tool.name
        );
        fs::write(&file, "{").unwrap();
        assert_eq!(
            client.update("c", &file).unwrap_err().kind(),
            Some(ErrorKind::Runtime),
            "{}",
            tool.name
        );
    }
}

#[test]
fn a_shutdown_refuses_while_containers_run_and_with_force_leaves_nothing() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &["--new-net"]);
        let pid = pod.run("c", "exec sleep 1000");
        pod.run("d", "true");
        let shim = pod.pid();
        let mut client = pod.client();
        let error = client.shutdown(false).unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Invalid));
        assert!(error.to_string().contains("containers run: c"), "{error}");
        client.shutdown(true).unwrap();
        assert!(!runs(pid));
        wait_until("the shim is gone", || !runs(shim));
        for path in [
            files::socket(&pod.path()),
            files::pid_file(&pod.path()),
            files::namespaces(&pod.path()),
        ] {
            assert!(!path.exists(), "{}: {path:?}", tool.name);
        }
        let state = pod.runtime().root.unwrap();
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "{}", tool.name);
        assert!(
            Client::connect(&files::socket(&pod.path()))
                .unwrap_err()
                .is_gone()
        );
    }
}

#[test]
fn a_process_that_left_the_container_and_keeps_its_pipe_delays_the_exit_by_a_second_and_is_still_logged()
 {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let (mut client, mut events) = (pod.client(), pod.events());
    // Without a pid namespace the kernel does not end it with the init; in another cgroup the shim does not find it.
    let stray = "sh -c 'trap \"echo late; exit\" USR1; while :; do sleep 0.02; done' & echo $!";
    let line = format!("{stray}; trap 'exit 5' TERM; while :; do sleep 1000 & wait; done");
    let create = pod.container_with("c", &["/bin/sh", "-c", &line], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    client.create(create).unwrap();
    client.start("c").unwrap();
    wait_until("it named its child", || {
        fs::read(pod.log_path("c")).is_ok_and(|log| !log.is_empty())
    });
    let stray: i32 = pod.log("c")[0].text.parse().unwrap();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let other = hierarchy.path().join(&pod.name).join("other");
        if hierarchy.path().join(&pod.name).is_dir() && !hierarchy.path().ends_with("cpuset") {
            fs::create_dir(&other).unwrap();
            fs::write(other.join("cgroup.procs"), stray.to_string()).unwrap();
        }
    }
    let begun = std::time::Instant::now();
    wait_until("the trap is set and it ends", || {
        client.signal("c", 15, false).unwrap();
        client.status().unwrap().containers[0].exit.is_some()
    });
    assert_eq!(exit_of(&mut events, "c").code, 5);
    let took = begun.elapsed();
    assert!((900..5000).contains(&took.as_millis()), "{took:?}");
    assert!(runs(stray));
    kill(stray, 10);
    wait_until("its last words are in the log", || {
        pod.log("c").last().unwrap().text == "late"
    });
}

/// A runtime that tells of a process which ended long before: what a very short program looks like on a busy machine.
const HASTY: &str = r#"#!/bin/sh
case "$*" in *delete*) exit 0;; esac
while [ "$1" != --pid-file ]; do shift; done
( sh -c 'p=$PPID; >"$0.up"; while read _ _ _ parent _ </proc/$$/stat && [ $parent = $p ]; do :; done; exit 7' "$2" &
echo $! >"$2.new"; while ! [ -e "$2.up" ]; do :; done )
while [ -e /proc/$(cat "$2.new") ]; do :; done
mv "$2.new" "$2"
"#;

#[test]
fn an_init_that_ended_before_its_id_was_known_has_its_exit_code() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let (mut client, mut events) = (pod.client(), pod.events());
    let script = pod.path().join("hasty");
    fs::write(&script, HASTY).unwrap();
    make_executable(&script);
    for number in 0..20 {
        let id = format!("c{number}");
        let mut create = pod.container(&id, "true");
        create.runtime.path = script.clone();
        client.create(create).unwrap();
        assert_eq!(exit_of(&mut events, &id).code, 7);
        client.delete(&id, false).unwrap();
    }
}

#[test]
fn an_init_that_vanished_or_belongs_to_someone_else_ends_with_255() {
    let Some(tool) = support::any_runtime() else {
        return;
    };
    let pod = Pod::start(&tool, &[]);
    let (mut client, mut events) = (pod.client(), pod.events());
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    for (id, pid) in [("gone", gone.id()), ("foreign", child.id())] {
        let script = pod.path().join("names");
        let body = format!(
            "#!/bin/sh\ncase \"$*\" in *delete*) exit 0;; esac\nwhile [ \"$1\" != --pid-file ]; do shift; done\necho {pid} >\"$2\"\n"
        );
        fs::write(&script, body).unwrap();
        make_executable(&script);
        let mut create = pod.container(id, "true");
        create.runtime.path = script;
        assert_eq!(
            client.create(create).unwrap().pid,
            i32::try_from(pid).unwrap()
        );
    }
    assert_eq!(exit_of(&mut events, "gone").code, 255);
    assert!(client.signal("foreign", 15, false).unwrap());
    child.wait().unwrap();
    assert_eq!(exit_of(&mut events, "foreign").code, 255);
    client.delete("gone", false).unwrap();
    client.delete("foreign", false).unwrap();
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
