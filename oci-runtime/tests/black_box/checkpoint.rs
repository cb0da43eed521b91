//! `checkpoint` and `restore`. What needs criu to work is skipped where criu and the kernel do not get along; the VM's do.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Container, Runtime, eventually};

/// Counts into a file, and says in another that it was not started again.
const COUNTER: &str =
    "echo started >> /starts; n=0; while :; do n=$((n+1)); echo $n > /count; sleep 0.05; done";

/// This runtime, where criu works here at all. (runc cannot save a program whose stdio are files of the host, as the
/// harness has them.)
fn working() -> Vec<Runtime> {
    let all = Runtime::ours();
    let check = Command::new("criu").arg("check").output();
    let why = match check {
        Ok(output) if output.status.success() => return all,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Not avoidable by whoever runs the tests: it is this kernel with this criu.
    eprintln!("skipped: \"criu check\" fails: {}", why.trim());
    Vec::new()
}

/// A bundle that criu can save here: it locks a network of its own with iptables, which not every host has.
pub(crate) fn bundle(runtime: Runtime, script: &str) -> Container {
    let locks = ["/usr/sbin/ip6tables-restore", "/sbin/ip6tables-restore"];
    let container = Container::new(runtime, script);
    if locks.iter().any(|path| Path::new(path).exists()) {
        return container;
    }
    container.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    })
}

fn count(container: &Container) -> u64 {
    let text = std::fs::read_to_string(container.inside("/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Waits until it has counted beyond `last`; how far.
fn counted(container: &Container, last: u64) -> u64 {
    eventually("the counter goes on", || count(container) > last);
    count(container)
}

fn images(container: &Container, name: &str) -> PathBuf {
    container.bundle().join(name)
}

pub(crate) fn counter(runtime: Runtime) -> Container {
    let container = bundle(runtime, COUNTER);
    container.start();
    counted(&container, 0);
    container
}

pub(crate) fn restore(container: &Container, images: &str) {
    container.must(&["restore", "--detach", "--image-path", images, &container.id]);
}

#[test]
fn a_container_goes_on_where_it_was_saved() {
    for runtime in runtimes() {
        let container = counter(runtime);
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        assert!(
            !container.state_root().join(&container.id).exists(),
            "{runtime:?}"
        );
        let stopped = count(&container);
        let pid_file = container.bundle().join("restored.pid");
        let path = pid_file.to_str().unwrap();
        container.must(&[
            "restore",
            "-d",
            "--image-path",
            "images",
            "--pid-file",
            path,
            &container.id,
        ]);
        counted(&container, stopped);
        let starts = std::fs::read_to_string(container.inside("/starts")).unwrap();
        assert_eq!(starts, "started\n", "{runtime:?}");
        assert_eq!(container.status(), "running", "{runtime:?}");
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            container.pid().to_string()
        );
        let said = container.must(&["exec", &container.id, "cat", "/starts"]);
        assert_eq!(said, "started\n", "{runtime:?}");
        container.must(&["pause", &container.id]);
        assert_eq!(container.status(), "paused", "{runtime:?}");
        container.must(&["resume", &container.id]);
        container.must(&["kill", &container.id, "KILL"]);
        eventually("it ends", || container.status() == "stopped");
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn a_container_that_is_left_running_runs_on() {
    for runtime in runtimes() {
        let container = counter(runtime);
        let pid = container.pid();
        container.must(&[
            "checkpoint",
            "--leave-running",
            "--image-path",
            "images",
            &container.id,
        ]);
        assert_eq!(
            (container.status().as_str(), container.pid()),
            ("running", pid)
        );
        counted(&container, count(&container));
        assert!(
            images(&container, "images/dump.log").exists(),
            "{runtime:?}"
        );
        assert!(
            images(&container, "images/descriptors.json").exists(),
            "{runtime:?}"
        );
    }
}

#[test]
fn the_default_directory_is_checkpoint_and_the_log_is_in_the_work_directory() {
    for runtime in runtimes() {
        let container = counter(runtime);
        container.must(&["checkpoint", "--work-path", "work", &container.id]);
        assert!(
            images(&container, "checkpoint/inventory.img").exists(),
            "{runtime:?}"
        );
        assert!(images(&container, "work/dump.log").exists(), "{runtime:?}");
        let last = count(&container);
        container.must(&["restore", "-d", "--work-path", "work", &container.id]);
        assert!(
            images(&container, "work/restore.log").exists(),
            "{runtime:?}"
        );
        counted(&container, last);
    }
}

#[test]
fn a_pre_dump_leaves_it_running_and_is_the_parent_of_the_next() {
    for runtime in runtimes() {
        let container = counter(runtime);
        let (code, _, stderr) = container.call(&[
            "checkpoint",
            "--pre-dump",
            "--image-path",
            "first",
            &container.id,
        ]);
        if stderr.contains("MemTrack") {
            eprintln!("skipped: this kernel does not track memory: {stderr}");
            continue;
        }
        assert_eq!(code, Some(0), "{runtime:?}: {stderr}");
        assert_eq!(container.status(), "running");
        counted(&container, count(&container));
        container.must(&[
            "checkpoint",
            "--image-path",
            "second",
            "--parent-path",
            "../first",
            &container.id,
        ]);
        assert!(images(&container, "second/parent").exists(), "{runtime:?}");
        let last = count(&container);
        restore(&container, "second");
        counted(&container, last);
    }
}

/// A counter with a directory and a file of the host, and masked and read-only paths.
fn with_bind(runtime: Runtime) -> Container {
    let container = bundle(runtime, COUNTER);
    let shared = container.bundle().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "of the host").unwrap();
    let file = shared.join("file");
    container.with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/mnt/shared", "source": shared, "options": ["rbind"]}));
        mounts.push(json!({"destination": "/etc/file", "source": file, "options": ["bind", "ro"]}));
        config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/kcore", "/sys/firmware"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    })
}

#[test]
fn bind_mounts_are_those_of_the_host_again() {
    for runtime in runtimes() {
        let container = with_bind(runtime);
        container.start();
        counted(&container, 0);
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        let last = count(&container);
        restore(&container, "images");
        counted(&container, last);
        std::fs::write(container.bundle().join("shared/new"), "seen").unwrap();
        let script = "cat /mnt/shared/new /etc/file; cat /proc/keys | wc -c; touch /etc/file";
        let (_, stdout, _) = container.call(&["exec", &container.id, "sh", "-c", script]);
        assert_eq!(stdout, "seenof the host0\n", "{runtime:?}");
    }
}

#[test]
fn a_foreground_restore_has_our_stdio_and_ends_with_the_programs_code() {
    for runtime in runtimes() {
        let script = "while ! test -e /go; do sleep 0.05; done; echo over; exit 7";
        let container = bundle(runtime, script);
        container.write_config();
        // Pipes as stdio: they are somebody else's after the restore.
        let mut first = container.command(&["run", &container.id]);
        let mut first = first
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it runs", || {
            let (code, stdout, _) = container.call(&["state", &container.id]);
            code == Some(0) && stdout.contains("\"running\"")
        });
        let checkpoint = container.call(&["checkpoint", "--image-path", "images", &container.id]);
        assert_eq!(checkpoint.0, Some(0), "{runtime:?}: {checkpoint:?}");
        first.wait().unwrap();
        std::fs::write(container.inside("/go"), "").unwrap();
        let mut second = container.command(&["restore", "--image-path", "images", &container.id]);
        let second = second.stdin(std::process::Stdio::piped()).output().unwrap();
        assert_eq!(second.status.code(), Some(7), "{runtime:?}: {second:?}");
        assert_eq!(second.stdout, b"over\n", "{runtime:?}: {second:?}");
        container.assert_nothing_left();
    }
}

#[test]
fn a_terminal_comes_back_over_the_console_socket() {
    for runtime in runtimes() {
        let container = bundle(runtime, "while read -r line; do echo \"got $line\"; done")
            .with(|config| config["process"]["terminal"] = json!(true));
        container.write_config();
        let path = container.bundle().join("console.sock");
        let socket = path.to_str().unwrap();
        let listener = sys::socket::listen(&path, sys::socket::Kind::Stream).unwrap();
        container.must(&["create", "--console-socket", socket, &container.id]);
        let first = master(&listener);
        container.must(&["start", &container.id]);
        answers(&first, "one");
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        drop(first);
        let flags = [
            "restore",
            "-d",
            "--console-socket",
            socket,
            "--image-path",
            "images",
        ];
        container.must(&[&flags[..], &[&container.id]].concat());
        let second = master(&listener);
        answers(&second, "two");
    }
}

/// The terminal that came over the socket.
fn master(listener: &std::os::fd::OwnedFd) -> std::os::fd::OwnedFd {
    let mut connection = None;
    eventually("a connection", || {
        connection = sys::socket::accept(listener).unwrap();
        connection.is_some()
    });
    let connection = connection.unwrap();
    let mut name = [0; 64];
    let mut received = None;
    eventually("a terminal", || {
        received = sys::socket::receive(&connection, &mut name).ok();
        received.is_some()
    });
    received.unwrap().fds.remove(0)
}

fn answers(terminal: &std::os::fd::OwnedFd, word: &str) {
    sys::fd::write_all(terminal, format!("{word}\n").as_bytes()).unwrap();
    let wanted = format!("got {word}");
    let mut seen = Vec::new();
    eventually("an answer", || {
        let ready = sys::fd::wait_readable(&[std::os::fd::AsFd::as_fd(terminal)], 100).unwrap();
        if ready == [true] {
            let mut chunk = [0; 256];
            let count = sys::fd::read(terminal, &mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&seen).contains(&wanted)
    });
}

#[test]
fn hooks_see_the_restored_process() {
    for runtime in runtimes() {
        let container = bundle(runtime, COUNTER);
        let out = container.bundle().join("hooks");
        let script = format!("cat >> {0}; echo >> {0}", out.display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let container = container.with(|config| config["hooks"] = json!({"prestart": hook}));
        container.start();
        counted(&container, 0);
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        std::fs::remove_file(&out).unwrap();
        restore(&container, "images");
        let said = std::fs::read_to_string(&out).unwrap();
        let state: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
        assert_eq!(
            state["pid"].as_i64(),
            Some(i64::from(container.pid())),
            "{runtime:?}"
        );
    }
}

#[test]
fn a_restore_that_fails_says_why_and_leaves_nothing() {
    for runtime in runtimes() {
        let container = counter(runtime);
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        std::fs::remove_file(images(&container, "images/inventory.img")).unwrap();
        let (code, _, stderr) =
            container.call(&["restore", "-d", "--image-path", "images", &container.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        assert!(
            stderr.contains("criu failed: type "),
            "{runtime:?}: {stderr}"
        );
        if runtime == Runtime::Davit {
            assert!(stderr.contains("Error (criu/"), "{stderr}");
            assert!(stderr.contains("images/restore.log"), "{stderr}");
            container.assert_nothing_left();
        }
    }
}

#[test]
fn a_restore_under_a_used_id_changes_nothing() {
    for runtime in runtimes() {
        let container = counter(runtime);
        container.must(&[
            "checkpoint",
            "--leave-running",
            "--image-path",
            "images",
            &container.id,
        ]);
        let (code, _, stderr) =
            container.call(&["restore", "-d", "--image-path", "images", &container.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        assert!(
            stderr.contains("container with given ID already exists"),
            "{runtime:?}: {stderr}"
        );
        assert_eq!(container.status(), "running");
        counted(&container, count(&container));
    }
}

// === what needs no criu that works ===

/// A directory with a `criu` that is this script.
fn with_criu(container: &Container, script: Option<&str>) -> PathBuf {
    let dir = container.bundle().join("path");
    std::fs::create_dir(&dir).unwrap();
    if let Some(script) = script {
        let path = dir.join("criu");
        std::fs::write(&path, format!("#!/bin/busybox sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn fails_with(container: &Container, path: &Path, args: &[&str], wanted: &str) {
    let mut command = Command::new(container.runtime.program());
    command.arg("--root").arg(container.state_root()).args(args);
    let output = command
        .current_dir(container.bundle())
        .env("PATH", path)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.contains(wanted), "{args:?}: {stderr}");
}

#[test]
fn without_criu_both_commands_say_so_and_change_nothing() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let path = with_criu(&container, None);
        let wanted = "criu is not installed: not found in $PATH";
        fails_with(&container, &path, &["checkpoint", &container.id], wanted);
        assert_eq!(container.status(), "running");
        assert!(!images(&container, "checkpoint").exists());
        container.must(&["delete", "--force", &container.id]);
        std::fs::create_dir(images(&container, "checkpoint")).unwrap();
        std::fs::write(images(&container, "checkpoint/descriptors.json"), "[]").unwrap();
        fails_with(&container, &path, &["restore", &container.id], wanted);
        container.assert_nothing_left();
    }
}

#[test]
fn a_criu_that_only_ends_is_an_error_and_not_a_wait() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let path = with_criu(&container, Some("exit 3"));
        let wanted = "CRIU version check failed: criu failed: type VERSION: ";
        fails_with(&container, &path, &["checkpoint", &container.id], wanted);
        assert_eq!(container.status(), "running");
    }
}

#[test]
fn what_cannot_be_saved_or_restored_is_named() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        let path = Path::new("/usr/sbin:/usr/bin");
        fails_with(
            &container,
            path,
            &["checkpoint", &container.id],
            "does not exist",
        );
        container.must(&["create", &container.id]);
        let wanted = "container cannot be checkpointed in created state";
        fails_with(&container, path, &["checkpoint", &container.id], wanted);
        container.must(&["delete", "--force", &container.id]);
        let args = ["restore", "--image-path", "/no/such/images", &container.id];
        fails_with(&container, path, &args, "--image-path: ");
        std::fs::create_dir(images(&container, "empty")).unwrap();
        let args = ["restore", "--image-path", "empty", &container.id];
        fails_with(
            &container,
            path,
            &args,
            "the directory holds no checkpoint of a container",
        );
        container.assert_nothing_left();
    }
}

/// Whoever may set it decides what criu does as root.
#[test]
fn the_annotation_of_criu_is_announced_as_unsafe() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let features: serde_json::Value =
            serde_json::from_str(&container.must(&["features"])).unwrap();
        let list = features["potentiallyUnsafeConfigAnnotations"]
            .as_array()
            .unwrap();
        assert!(list.contains(&json!("org.criu.config")), "{list:?}");
    }
}

/// podman asks so whether a runtime can do it at all.
#[test]
fn the_help_of_both_commands_is_a_success() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        for command in ["checkpoint", "restore"] {
            let help = container.must(&[command, "--help"]);
            assert!(help.contains("image-path"), "{runtime:?}: {help}");
        }
    }
}

/// The same, one test at a time: two restores in one network namespace use the same names of sockets (criu 3.17).
pub(crate) fn runtimes() -> impl Iterator<Item = Runtime> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    working().into_iter().inspect(move |_| {
        let _held = &guard;
    })
}
