//! `NOTIFY_SOCKET` and the descriptors of socket activation.
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Container, Runtime, eventually, text};

/// A shell cannot send datagrams: the test does, through the container's socket, which it finds as the program would.
fn say(container: &Container, runtime: Runtime, message: &str) {
    let pid = container.pid();
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = text(&environ);
    let inside = environ
        .split('\0')
        .find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET="))
        .unwrap_or_else(|| panic!("{runtime:?}: {environ:?}"));
    let path = format!("/proc/{pid}/root{inside}");
    let socket = UnixDatagram::unbound().unwrap();
    let sent = || socket.send_to(message.as_bytes(), &path).is_ok();
    eventually("the socket is there", sent);
}

struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn of(container: &Container) -> Self {
        let path = container.bundle().join("manager.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self { socket, path }
    }

    fn hears(&self) -> String {
        let mut message = [0; 256];
        // A descriptor that comes along is closed with the message: that is the answer to a barrier.
        let count = self.socket.recv(&mut message).expect("a word");
        text(&message[..count])
    }
}

#[test]
fn readiness_reaches_the_manager_with_the_hosts_pid() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        let manager = Manager::of(&container);
        container.write_config();
        let notified = |args: &[&str]| {
            let mut command = container.command(args);
            command
                .env("NOTIFY_SOCKET", &manager.path)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let created = notified(&["create", &container.id]).status().unwrap();
        assert!(created.success(), "{runtime:?}");
        let mut start = notified(&["start", &container.id]).spawn().unwrap();
        eventually("it runs", || container.status() == "running");
        say(&container, runtime, "STATUS=almost");
        assert!(start.try_wait().unwrap().is_none(), "it waits for READY");
        say(&container, runtime, "READY=1");
        assert_eq!(manager.hears().trim(), "READY=1", "{runtime:?}");
        let expected = format!("MAINPID={}", container.pid());
        assert_eq!(manager.hears().trim(), expected, "{runtime:?}");
        assert_eq!(manager.hears(), "BARRIER=1", "{runtime:?}");
        assert!(start.wait().unwrap().success());
        container.must(&["delete", "--force", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn a_start_that_waits_for_readiness_ends_with_the_program() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "exit 0");
        let manager = Manager::of(&container);
        container.write_config();
        let status = container
            .command(&["run", "--detach", &container.id])
            .env("NOTIFY_SOCKET", &manager.path)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

#[test]
fn in_the_foreground_the_manager_watches_the_runtime() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "until [ -e /stop ]; do sleep 0.05; done; exit 5");
        let manager = Manager::of(&container);
        container.write_config();
        let mut run = container
            .command(&["run", &container.id])
            .env("NOTIFY_SOCKET", &manager.path)
            .spawn()
            .unwrap();
        eventually("it runs", || {
            let (code, stdout, _) = container.call(&["state", &container.id]);
            code == Some(0) && stdout.contains("\"running\"")
        });
        say(&container, runtime, "MAINPID=1\nREADY=1\nFDSTORE=1");
        assert_eq!(manager.hears(), "READY=1\n");
        let parent = sys::process::stat(sys::Pid::from_raw(container.pid()))
            .unwrap()
            .parent;
        assert_eq!(manager.hears(), format!("MAINPID={parent}\n"));
        std::fs::write(container.inside("stop"), "").unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(5));
        container.assert_nothing_left();
    }
}

#[test]
fn names_of_passed_descriptors_come_along_and_those_of_another_process_do_not() {
    for runtime in Runtime::ours() {
        let container = Container::new(
            runtime,
            "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; [ -e /proc/self/fd/3 ]; echo $?",
        );
        container.write_config();
        std::fs::write(container.bundle().join("a"), "a\n").unwrap();
        let line = |pid: &str| {
            format!(
                "exec 3<a; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID={pid}; exec {} --root {} run {}",
                runtime.program(),
                container.state_root().display(),
                container.id
            )
        };
        for (pid, expected) in [("$$", "1 1 web\n0\n"), ("1", "\n1\n")] {
            let output = std::process::Command::new("sh")
                .args(["-c", &line(pid)])
                .current_dir(container.bundle())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert_eq!(text(&output.stdout), expected, "{output:?}");
        }
    }
}
