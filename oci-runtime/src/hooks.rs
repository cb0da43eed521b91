//! Running hooks: the state on stdin, exactly the environment given, a deadline.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sys::process::Exit;
use sys::spawn::Spawn;

use crate::error::{Error, Result};
use crate::spec::Hook;

/// How much of a hook's stderr an error repeats.
const MAX_STDERR: usize = 4096;

/// Where the output of hooks goes: the annotations of crun name files for it. Without them stdout goes nowhere, and
/// stderr into the error of a hook that fails.
#[derive(Debug, Default)]
pub struct Output {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Output {
    /// Opens the files, unless there is no hook in any of `lists`. They are made where missing, and appended to.
    ///
    /// # Errors
    /// Which annotation, and why its file cannot be opened.
    pub fn open(lists: &[&[Hook]], annotations: &BTreeMap<String, String>) -> Result<Self> {
        if annotations.is_empty() || lists.iter().all(|list| list.is_empty()) {
            return Ok(Self::default());
        }
        let open = |name: &str| {
            let Some(path) = annotations.get(name) else {
                return Ok(None);
            };
            let file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path);
            file.map(|file| Some(OwnedFd::from(file))).map_err(|error| {
                let call = format!("open({path:?}, O_CREAT|O_WRONLY|O_APPEND)");
                Error::from(sys::Error::from_io(&error, call))
                    .within(format!("annotations[{name:?}]"))
            })
        };
        Ok(Self {
            stdout: open("run.oci.hooks.stdout")?,
            stderr: open("run.oci.hooks.stderr")?,
        })
    }

    /// The numbers of the descriptors; -1 for none.
    pub fn raw(&self) -> [RawFd; 2] {
        [&self.stdout, &self.stderr].map(|file| file.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }
}

/// The hooks of the container's own process: one without an environment has that of the process, as with runc.
pub fn with_env(hooks: &[Hook], env: &[CString]) -> Vec<Hook> {
    let mut hooks = hooks.to_vec();
    for hook in hooks.iter_mut().filter(|hook| hook.env.is_empty()) {
        // Both come from a JSON text.
        let text = |entry: &CString| entry.to_string_lossy().into_owned();
        hook.env = env.iter().map(text).collect();
    }
    hooks
}

/// Runs the hooks `name` in order; the first failure ends it.
///
/// # Errors
/// Which hook failed and how, with the last of its stderr.
pub fn run(name: &str, hooks: &[Hook], state: &[u8], output: &Output) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, output)
            .map_err(|error| error.within(format!("hooks.{name}[{index}] {:?}", hook.path)))?;
    }
    Ok(())
}

/// Runs the hooks `name` in order, each whatever happens to the others. Returns what went wrong.
pub fn run_all(name: &str, hooks: &[Hook], state: &[u8], output: &Output) -> Vec<Error> {
    let one = |(index, hook): (usize, &Hook)| {
        run_one(hook, state, output)
            .err()
            .map(|error| error.within(format!("hooks.{name}[{index}] {:?}", hook.path)))
    };
    hooks.iter().enumerate().filter_map(one).collect()
}

fn run_one(hook: &Hook, state: &[u8], output: &Output) -> Result<()> {
    let (pid, stderr) = spawn(hook, state, output)?;
    let pidfd = sys::process::pidfd_open(pid)?;
    let stderr = watch(&pidfd, stderr, hook.timeout).inspect_err(|_| {
        // It may have ended by itself meanwhile; either way it is reaped below.
        drop(sys::process::pidfd_send_signal(&pidfd, nix::libc::SIGKILL));
    });
    let exit = sys::process::wait(&pidfd)?;
    let stderr = stderr?;
    let how = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    let stderr = stderr.trim();
    Err(Error::new(if stderr.is_empty() {
        how
    } else {
        format!("{how}, stderr: {stderr}")
    }))
}

/// Starts the hook with no signal blocked, which a `run` in the foreground does and std would hand on. Returns what
/// it writes to stderr beside its id.
fn spawn(hook: &Hook, state: &[u8], output: &Output) -> Result<(Pid, OwnedFd)> {
    let program = c_string(&hook.path)?;
    let mut argv = c_strings(&hook.args)?;
    if argv.is_empty() {
        argv.push(program.clone());
    }
    // A file, not a pipe: a hook that does not read it can neither block us nor break the pipe.
    let stdin = sys::fd::sealed_memfd(c"state", state)?;
    nix::unistd::lseek(&stdin, 0, nix::unistd::Whence::SeekSet)
        .map_err(|errno| sys::Error::new(errno, "lseek(state, 0, SEEK_SET)"))?;
    let null;
    let stdout = match &output.stdout {
        Some(file) => file.as_fd(),
        None => {
            null = std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/null")
                .map_err(|error| sys::Error::from_io(&error, "open(\"/dev/null\")"))?;
            null.as_fd()
        }
    };
    let (reader, writer) = sys::fd::pipe()?;
    let pid = sys::spawn::spawn(&Spawn {
        program: &program,
        argv: &argv,
        env: &c_strings(&hook.env)?,
        stdio: [
            stdin.as_fd(),
            stdout,
            output
                .stderr
                .as_ref()
                .map_or_else(|| writer.as_fd(), AsFd::as_fd),
        ],
        new_group: false,
        die_with_parent: false,
    })?;
    Ok((Pid::from_raw(pid), reader))
}

fn c_strings(words: &[String]) -> Result<Vec<CString>> {
    words.iter().map(|word| c_string(word)).collect()
}

fn c_string(word: &str) -> Result<CString> {
    CString::new(word).map_err(|_| Error::new(format!("a zero byte in {word:?}")))
}

/// Waits for the end of the hook, reading its stderr; an error at the deadline.
fn watch(pidfd: &OwnedFd, stderr: OwnedFd, timeout: Option<i64>) -> Result<String> {
    let deadline = timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let mut stderr = Some(stderr);
    let mut text = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(format!(
                "no end after {} s, killed",
                timeout.unwrap_or_default()
            )));
        }
        let timeout_ms = left.map_or(-1, |left| {
            i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1)
        });
        let mut fds = vec![pidfd.as_fd()];
        fds.extend(stderr.as_ref().map(AsFd::as_fd));
        let ready = sys::fd::wait_readable(&fds, timeout_ms)?;
        if ready.get(1) == Some(&true) {
            let mut chunk = [0_u8; 1024];
            match stderr
                .as_ref()
                .map_or(Ok(0), |pipe| sys::fd::read(pipe, &mut chunk))
            {
                Ok(0) | Err(_) => stderr = None,
                Ok(count) => {
                    text.extend_from_slice(&chunk[..count]);
                    let excess = text.len().saturating_sub(MAX_STDERR);
                    text.drain(..excess);
                }
            }
        } else if ready.first() == Some(&true) {
            // Ended, and its stderr has nothing more at the moment; a grandchild may hold the pipe for ever.
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook {
            path: "/bin/sh".to_owned(),
            args,
            env: vec!["ONLY=this".to_owned()],
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_own_environment() {
        let script = r#"read -r line; test "$line" = '{"id":"x"}' && test "$ONLY" = this && test -z "$HOME""#;
        run(
            "prestart",
            &[hook(script, None)],
            b"{\"id\":\"x\"}\n",
            &Output::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_failing_hook_is_named_with_its_stderr() {
        let error = run(
            "createRuntime",
            &[hook("true", None), hook("echo broken >&2; exit 3", None)],
            b"",
            &Output::default(),
        )
        .unwrap_err();
        assert_eq!(
            error.message,
            r#"hooks.createRuntime[1] "/bin/sh": exit status 3, stderr: broken"#
        );
    }

    #[test]
    fn a_hook_that_does_not_end_is_killed_at_its_deadline() {
        let error = run(
            "prestart",
            &[hook("exec sleep 1000", Some(1))],
            b"",
            &Output::default(),
        )
        .unwrap_err();
        assert!(
            error.message.contains("no end after 1 s, killed"),
            "{error}"
        );
    }

    #[test]
    fn a_hook_that_closes_stdin_is_no_failure() {
        run(
            "prestart",
            &[hook("exec <&-; exit 0", None)],
            &[b'x'; 1_000_000],
            &Output::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_hook_has_no_signal_blocked_though_the_caller_has() {
        // The mask belongs to this thread, which ends with the test.
        sys::signalfd::SignalFd::block(&[nix::sys::signal::Signal::SIGTERM]).unwrap();
        // Itself, not a shell's child, and the shell does not change its own mask.
        let script = "while read -r name value; do test \"$name\" != SigBlk: || test \"$value\" = 0000000000000000 || exit 1; done < /proc/$$/status";
        run("prestart", &[hook(script, None)], b"", &Output::default()).unwrap();
    }

    #[test]
    fn a_missing_hook_is_an_error_with_its_errno() {
        let missing = Hook {
            path: "/no/such/hook".to_owned(),
            ..Hook::default()
        };
        let error = run("poststop", &[missing], b"", &Output::default()).unwrap_err();
        assert!(
            error.message.contains("no such file or directory (ENOENT)"),
            "{error}"
        );
    }
}
