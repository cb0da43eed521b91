//! Running a program and keeping everything needed to explain a failure.

use std::ffi::OsStr;
use std::fmt;
use std::process::{Command, Stdio};

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

// === impl Outcome ===

impl Outcome {
    /// Standard output without surrounding white space.
    ///
    /// # Panics
    /// When the program failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout.trim().to_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When the program failed or printed something else.
    #[must_use]
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let line = self.line.clone();
        let text = self.ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{line}: not JSON ({error}): {text}"))
    }

    /// Standard error of a program that had to fail.
    ///
    /// # Panics
    /// When it succeeded.
    #[must_use]
    #[track_caller]
    pub fn err(self) -> String {
        assert!(self.code != 0, "should have failed: {self}");
        self.stderr.trim().to_owned()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` exited with {}\nstdout: {}\nstderr: {}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// Runs `program` with `args` and nothing on standard input.
///
/// # Panics
/// When the program cannot be started.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = Command::new(program);
    command.args(args);
    outcome(&mut command)
}

/// Runs a prepared command with nothing on standard input.
///
/// # Panics
/// When the program cannot be started.
#[track_caller]
pub fn outcome(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let line = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("`{line}`: {error}"));
    let code = output
        .status
        .code()
        .or(output.status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    Outcome {
        line,
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command line for messages.
fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
