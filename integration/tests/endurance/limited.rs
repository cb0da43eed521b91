//! Programs with a deadline: one that passes it is a hang, and the test says where it hung.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than any of these programs takes, on any machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that runs.
pub(crate) struct Limited {
    line: String,
    child: Child,
    stderr: File,
    started: Instant,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; 128 + signal when a signal ended it.
    pub(crate) code: i32,
    /// The command line and everything that it wrote to standard error.
    pub(crate) told: String,
}

impl Limited {
    /// Starts a program. Its standard error is a file, so that no process that outlives it holds a pipe open.
    pub(crate) fn start(mut command: Command) -> Limited {
        let stderr = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap());
        let line = format!("{command:?}");
        let child = command.spawn().unwrap();
        let started = Instant::now();
        Limited {
            line,
            child,
            stderr,
            started,
        }
    }

    /// Waits for the moment and kills it with SIGKILL.
    pub(crate) fn kill_after(&mut self, moment: Duration) {
        spin(moment.saturating_sub(self.started.elapsed()));
        // It may have ended by itself.
        self.child.kill().ok();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it hangs.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                let at = format!("/proc/{}", self.child.id());
                let read = |name: &str| {
                    std::fs::read_to_string(format!("{at}/{name}")).unwrap_or_default()
                };
                let (stack, syscall) = (read("stack"), read("syscall"));
                self.child.kill().ok();
                self.child.wait().unwrap();
                panic!("{} hangs in {syscall}\n{stack}", self.told());
            }
            std::thread::park_timeout(Duration::from_micros(500));
        };
        let code = status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap();
        Ended {
            code,
            told: self.told(),
        }
    }

    fn told(&mut self) -> String {
        let mut text = String::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_string(&mut text).unwrap();
        format!("{}\n{text}", self.line)
    }
}

/// Waits more exactly than the scheduler's timers do: moments within a millisecond are what is tried here.
fn spin(moment: Duration) {
    let start = Instant::now();
    while start.elapsed() < moment {
        std::thread::yield_now();
    }
}
