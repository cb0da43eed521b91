//! The terminal of a foreground process, with a real pseudo-terminal on our side, and the signals of its caller.
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sys::tty::{Pty, WindowSize};

use crate::harness::{Container, Runtime, eventually, text};

/// The runtime in the foreground of a terminal of the test's.
struct Session {
    child: Child,
    terminal: Pty,
    mode: String,
    shown: Vec<u8>,
}

impl Session {
    fn start(container: &Container, args: &[&str]) -> Self {
        let devpts = std::fs::File::open("/dev/pts").unwrap();
        let terminal = sys::tty::open_pty(&devpts).unwrap();
        sys::fd::set_nonblocking(&terminal.master).unwrap();
        let size = WindowSize {
            rows: 30,
            columns: 100,
        };
        sys::tty::set_window_size(&terminal.master, size).unwrap();
        let mode = mode_of(&terminal);
        let inner = container.command(args);
        // A session of its own, for the terminal to be its controlling one: only then is there a SIGWINCH.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(container.bundle());
        let side = || terminal.slave.try_clone().unwrap();
        let child = command
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        Self {
            child,
            terminal,
            mode,
            shown: Vec::new(),
        }
    }

    /// Reads what is there.
    fn read(&mut self) {
        read_some(&self.terminal.master, &mut self.shown);
    }

    fn shows(&mut self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !text(&self.shown).contains(what) {
            assert!(
                Instant::now() < deadline,
                "never shown: {what:?}, only {:?}",
                text(&self.shown)
            );
            self.read();
        }
    }

    fn ends(mut self) -> (Option<i32>, String) {
        let code = loop {
            self.read();
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
        };
        self.read();
        assert_eq!(mode_of(&self.terminal), self.mode, "the mode is restored");
        (code, text(&self.shown))
    }
}

fn read_some(master: &OwnedFd, into: &mut Vec<u8>) {
    let mut chunk = [0_u8; 16 * 1024];
    while let Ok(count @ 1..) = sys::fd::read(master, &mut chunk) {
        into.extend_from_slice(&chunk[..count]);
    }
}

fn mode_of(terminal: &Pty) -> String {
    let output = Command::new("stty")
        .arg("-g")
        .stdin(terminal.slave.try_clone().unwrap())
        .output()
        .unwrap();
    text(&output.stdout)
}

fn with_terminal(runtime: Runtime, script: &str) -> Container {
    let container =
        Container::new(runtime, script).with(|config| config["process"]["terminal"] = true.into());
    container.write_config();
    container
}

/// A paste from another thread.
#[derive(Default)]
struct Paste {
    stop: AtomicBool,
    /// The terminal has taken nothing for long.
    stuck: AtomicBool,
}

/// Writes 1 MB of lines as fast as the terminal takes them, until told to stop.
fn paste(master: &OwnedFd, paste: &Paste) {
    let mut refused = 0;
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    let all = line.repeat(1000);
    let mut left = all.as_slice();
    while !left.is_empty() && !paste.stop.load(Ordering::Relaxed) {
        match sys::fd::write_some(master, left) {
            Ok(count) => {
                left = &left[count..];
                refused = 0;
            }
            Err(error) if error.errno == sys::Errno::EAGAIN => {
                refused += 1;
                if refused == 50_000 {
                    paste.stuck.store(true, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_big_paste_into_a_program_that_echoes_it_comes_back_whole() {
    for runtime in Runtime::ours() {
        for exec in [false, true] {
            let script = "stty -echo; echo ready; head -c 1000000; echo; echo done";
            let container = if exec {
                Container::new(runtime, "sleep 1000")
            } else {
                with_terminal(runtime, script)
            };
            let args: &[&str] = if exec {
                &["exec", "-t", &container.id, "sh", "-c", script]
            } else {
                &["run", &container.id]
            };
            if exec {
                container.start();
            }
            let mut session = Session::start(&container, args);
            session.shows("ready");
            let before = session.shown.len();
            let master = session.terminal.master.try_clone().unwrap();
            let state = Paste::default();
            std::thread::scope(|scope| {
                scope.spawn(|| paste(&master, &state));
                let deadline = Instant::now() + Duration::from_secs(25);
                while !text(&session.shown).contains("done") && Instant::now() < deadline {
                    session.read();
                }
                state.stop.store(true, Ordering::Relaxed);
            });
            let (code, shown) = session.ends();
            let echoed = shown[before..].bytes().filter(|byte| *byte == b'x').count();
            assert_eq!((code, echoed), (Some(0), 999_000), "exec: {exec}");
        }
    }
}

#[test]
fn a_paste_that_nobody_reads_stops_neither_signals_nor_output() {
    for runtime in Runtime::ours() {
        let script =
            "stty -echo; trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let container = with_terminal(runtime, script);
        let mut session = Session::start(&container, &["run", &container.id]);
        session.shows("ready");
        let master = session.terminal.master.try_clone().unwrap();
        let state = Paste::default();
        std::thread::scope(|scope| {
            scope.spawn(|| paste(&master, &state));
            eventually("everything between is full", || {
                state.stuck.load(Ordering::Relaxed)
            });
            let pid = sys::Pid::from_raw(container.pid());
            let runtime_pid = sys::process::stat(pid).unwrap().parent;
            sys::process::send_signal(sys::Pid::from_raw(runtime_pid), 15).unwrap();
            session.shows("bye");
            state.stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(session.ends().0, Some(3));
    }
}

#[test]
fn the_program_sees_every_change_of_the_size() {
    for runtime in Runtime::ours() {
        let container = with_terminal(
            runtime,
            "stty size; read x; stty size; trap 'stty size' WINCH; echo again; read y; read z; echo $z",
        );
        let mut session = Session::start(&container, &["run", &container.id]);
        session.shows("30 100");
        let size = WindowSize {
            rows: 40,
            columns: 120,
        };
        sys::tty::set_window_size(&session.terminal.master, size).unwrap();
        sys::fd::write_all(&session.terminal.master, b"\n").unwrap();
        session.shows("40 120");
        session.shows("again");
        sys::fd::write_all(&session.terminal.master, b"y\nlast\n").unwrap();
        session.shows("last\r\nlast");
        assert_eq!(session.ends().0, Some(0));
    }
}

#[test]
fn the_terminal_gets_its_mode_back_when_the_program_cannot_start() {
    for runtime in Runtime::ours() {
        let container = with_terminal(runtime, "");
        let mut config = container.config.clone();
        config["process"]["args"] = serde_json::json!(["/no/such"]);
        std::fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
        let (code, shown) = Session::start(&container, &["run", &container.id]).ends();
        assert_eq!(code, Some(1));
        assert!(shown.contains("no such file or directory"), "{shown}");
    }
}

#[test]
fn the_last_words_are_shown_to_a_pipe_as_well() {
    // runc wants a terminal of its own for this.
    for runtime in Runtime::ours() {
        let container = with_terminal(runtime, "yes | head -c 200000; echo; echo end");
        let output = container.command(&["run", &container.id]).output().unwrap();
        assert!(output.status.success(), "{runtime:?}: {output:?}");
        let shown = text(&output.stdout);
        assert_eq!(shown.matches('y').count(), 100_000, "{runtime:?}");
        assert!(shown.ends_with("end\r\n"), "{runtime:?}");
    }
}

/// systemd in a container takes SIGRTMIN+3 as "halt".
#[test]
fn real_time_signals_are_forwarded_and_orphans_are_reaped() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "trap 'echo halt; exit 4' 37; echo up >/up; while :; do sleep 0.05; done",
        );
        container.write_config();
        let child = container
            .command(&["run", &container.id])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it runs", || container.inside("up").exists());
        let parent = sys::process::stat(sys::Pid::from_raw(container.pid()))
            .unwrap()
            .parent;
        sys::process::send_signal(sys::Pid::from_raw(parent), 37).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(4), "halt\n"),
            "{runtime:?}"
        );
    }
}

#[test]
fn a_process_of_the_container_that_outlives_the_program_of_exec_is_no_obstacle() {
    // runc waits until nobody has the program's stdout open any more.
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        // An orphan in the container, whose subreaper is the container's own first process.
        let args = ["exec", &container.id, "sh", "-c", "sleep 1002 & exit 6"];
        assert_eq!(container.call(&args).0, Some(6), "{runtime:?}");
    }
}

#[test]
fn an_end_of_input_reaches_a_program_without_terminal() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "wc -c");
        container.write_config();
        std::fs::write(container.bundle().join("input"), "12345").unwrap();
        let input = std::fs::File::open(container.bundle().join("input")).unwrap();
        let output = container
            .command(&["run", &container.id])
            .stdin(input)
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "5\n", "{runtime:?}");
        assert!(std::io::stdin().as_fd().try_clone_to_owned().is_ok());
    }
}
