//! How the daemon starts and ends: flags, configuration, socket, signals.

mod common;

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

use common::{Daemon, Dirs, eventually, mode, run_to_its_end, text, version};
use proto::runtime::v1::StatusRequest;

#[test]
fn a_bad_configuration_ends_with_64_and_names_every_mistake() {
    for (configuration, flags, expected) in [
        (
            "[runtimes.runc]\npth = \"/x\"\n",
            &[][..],
            &[
                "config.toml:1: runtimes.runc.path: is missing",
                "config.toml:2: runtimes.runc.pth: unknown key",
            ][..],
        ),
        (
            "default_runtime = 3\nx = 1\n",
            &[],
            &[
                "config.toml:1: default_runtime: must be a string, is integer",
                "config.toml:2: x: unknown key",
            ],
        ),
        (
            "default_runtime = \"kata\"\n",
            &[],
            &["config.toml:1: default_runtime: no runtime is called \"kata\"; known are davit-oci"],
        ),
        (
            "runtimes = []\n[network]\nmtu = 1\nsubnet = \"x\"\n",
            &[],
            &[
                "config.toml:1: runtimes: must be a table",
                "config.toml:3: network.mtu: unknown key",
                "config.toml:4: network.subnet: \"x\" is not an IPv4 subnet",
            ],
        ),
        ("[runtimes.\n", &[], &["config.toml:1: "]),
        (
            "",
            &["--shim", "/nonexistent"],
            &["--shim: \"/nonexistent\": No such file"],
        ),
        (
            "x = 1\n",
            &["--cgroup-root", "/a/../b", "--bridge", "a/b"],
            &[
                "config.toml:1: x: unknown key",
                "--cgroup-root: ",
                "--bridge: ",
            ],
        ),
    ] {
        let dirs = Dirs::new();
        let file = dirs.path("config.toml");
        std::fs::write(&file, configuration).expect("written");
        let mut command = dirs.bare_command();
        if !flags.contains(&"--shim") {
            command.args(["--shim", "/bin/true"]);
        }
        command.args(["--oci-runtime", "/bin/true", "--config"]);
        command.arg(&file).args(flags);
        let output = run_to_its_end(command);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{complaint}");
        for line in expected {
            assert!(complaint.contains(line), "{line:?} is not in:\n{complaint}");
        }
        assert_eq!(complaint.lines().count(), expected.len(), "{complaint}");
        assert!(
            !dirs.path("run").exists(),
            "something was done before the configuration was checked"
        );
    }
}

#[test]
fn a_wrong_flag_ends_with_64_and_help_with_0() {
    let dirs = Dirs::new();
    let wrong = dirs.run(&["--run-dri", "/x"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(
        text(&wrong.stderr).contains("--run-dir"),
        "no suggestion: {}",
        text(&wrong.stderr)
    );
    let help = dirs.run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        text(&help.stdout).contains("[runtimes.runc]"),
        "{}",
        text(&help.stdout)
    );
    let short = dirs.run(&["--version"]);
    assert_eq!(
        text(&short.stdout),
        format!("davit-cri {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_for_root_and_its_group_and_gone_at_the_end() {
    let mut daemon = Daemon::start().await;
    assert_eq!(mode(&daemon.socket()), 0o660);
    assert_eq!(mode(&daemon.dirs().path("run")), 0o700);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.dirs().log());
    assert!(!daemon.socket().exists());
}

/// The kubelet keeps its connection open for ever; that must not hold up the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_does_not_delay_the_end() {
    let mut daemon = Daemon::start().await;
    let mut client = daemon.runtime().await;
    client.version(version()).await.expect("answered");
    let start = std::time::Instant::now();
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(start.elapsed().as_secs() < 4, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_socket_is_refused_with_the_reason() {
    let daemon = Daemon::start().await;
    let second = daemon.dirs().run(&[]);
    let complaint = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("another process serves on this socket"),
        "{complaint}"
    );
    daemon
        .runtime()
        .await
        .status(StatusRequest::default())
        .await
        .expect("the first is unharmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_run_directory_is_refused_with_the_reason() {
    let daemon = Daemon::start().await;
    let other = daemon.dirs().path("other.sock");
    let mut command = daemon.dirs().command();
    command.arg("--socket").arg(&other);
    let second = run_to_its_end(command);
    let complaint = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("another davit-cri uses this run directory"),
        "{complaint}"
    );
    assert!(!other.exists(), "the loser's socket is left");
    daemon
        .runtime()
        .await
        .status(StatusRequest::default())
        .await
        .expect("the first is unharmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_s_socket_is_replaced() {
    let first = Daemon::start().await;
    let dirs = first.kill();
    assert!(dirs.socket().exists(), "kill -9 leaves the socket");
    let command = dirs.command();
    let second = Daemon::start_with(dirs, command).await;
    second
        .runtime()
        .await
        .version(version())
        .await
        .expect("answered");
}

#[test]
fn a_file_in_the_socket_s_place_is_not_overwritten() {
    let dirs = Dirs::new();
    std::fs::write(dirs.socket(), "precious").expect("written");
    let output = dirs.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("is not a socket"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        std::fs::read_to_string(dirs.socket()).expect("still there"),
        "precious"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_the_start_and_of_the_end() {
    let dirs = Dirs::new();
    let path = dirs.path("notify");
    let notify = UnixDatagram::bind(&path).expect("bound");
    notify
        .set_read_timeout(Some(common::DEADLINE))
        .expect("set");
    let received = || {
        let mut buffer = [0; 64];
        let length = notify.recv(&mut buffer).expect("a message");
        text(&buffer[..length])
    };
    let mut command = dirs.command();
    command.env("NOTIFY_SOCKET", &path);
    let mut daemon = Daemon::start_with(dirs, command).await;
    assert_eq!(received(), "READY=1");
    daemon.signal("TERM");
    assert_eq!(received(), "STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_logs_are_json_lines() {
    let dirs = Dirs::new();
    let mut command = dirs.command();
    command.args(["--log-format", "json", "--log-level", "debug"]);
    let mut daemon = Daemon::start_with(dirs, command).await;
    daemon
        .runtime()
        .await
        .version(version())
        .await
        .expect("answered");
    daemon.signal("TERM");
    daemon.wait();
    let log = daemon.dirs().log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).expect("a JSON object"))
        .collect();
    let answered = lines
        .iter()
        .find(|l| l["span"]["op"] == "Version")
        .expect("a line of the request");
    assert_eq!(answered["message"], "answered");
}

/// A listener that never accepts stands for a daemon that is stopped or very busy: it counts as alive.
#[test]
fn a_silent_listener_counts_as_alive() {
    let dirs = Dirs::new();
    let _listener = UnixListener::bind(dirs.socket()).expect("bound");
    let output = dirs.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("another process serves"),
        "{}",
        text(&output.stderr)
    );
}

/// Only where the run directory is on a file system that survives a reboot; the test brings its own mount namespace.
#[test]
fn a_run_directory_on_disk_gets_a_tmpfs() {
    let dirs = Dirs::new();
    let disk = tempfile::tempdir_in("/var/tmp").expect("a directory on disk");
    let run = disk.path().join("run");
    let mut inner = dirs.command();
    inner.arg("--run-dir").arg(&run);
    let arguments: Vec<_> = inner.get_args().map(ToOwned::to_owned).collect();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(inner.get_program())
        .args(arguments);
    let mut daemon = Daemon::spawn(dirs, command);
    let pid = daemon.pid();
    let mounts = eventually("the daemon listens", || {
        let log = daemon.dirs().log();
        log.contains("listening")
            .then(|| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("alive"))
    });
    let line = mounts
        .lines()
        .find(|l| l.contains(&format!(" {} ", run.display())))
        .expect("a mount on the run directory");
    assert!(line.contains(" - tmpfs "), "{line}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.dirs().log());
    assert_eq!(
        std::fs::read_dir(&run)
            .expect("the directory below")
            .count(),
        0,
        "something was written to disk"
    );
}

/// A journal that restarts closes the pipe that standard error is: lines are lost, the daemon goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reading_the_log_is_no_reason_to_stop() {
    let dirs = Dirs::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = dirs.command();
    command.args(["--log-level", "trace"]);
    let mut daemon = Daemon::spawn_logging_to(dirs, command, writer.into());
    drop(reader);
    daemon.wait_until_ready().await;
    for _ in 0..3 {
        daemon
            .runtime()
            .await
            .version(version())
            .await
            .expect("answered");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}
