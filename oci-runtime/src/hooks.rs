//! Running hooks: the state on stdin, exactly the environment given, a deadline.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::spec::Hook;

/// How much of a hook's stderr an error repeats.
const MAX_STDERR: usize = 4096;

/// Runs the hooks `name` in order; the first failure ends it.
///
/// # Errors
/// Which hook failed and how, with the last of its stderr.
pub fn run(name: &str, hooks: &[Hook], state: &[u8]) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state)
            .map_err(|error| error.within(format!("hooks.{name}[{index}] {:?}", hook.path)))?;
    }
    Ok(())
}

/// Runs the hooks `name` in order, each whatever happens to the others. Returns what went wrong.
pub fn run_all(name: &str, hooks: &[Hook], state: &[u8]) -> Vec<Error> {
    let one = |(index, hook): (usize, &Hook)| {
        run_one(hook, state)
            .err()
            .map(|error| error.within(format!("hooks.{name}[{index}] {:?}", hook.path)))
    };
    hooks.iter().enumerate().filter_map(one).collect()
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    // A file, not a pipe: a hook that does not read it can neither block us nor break the pipe.
    let stdin = sys::fd::sealed_memfd(c"state", state)?;
    nix::unistd::lseek(&stdin, 0, nix::unistd::Whence::SeekSet)
        .map_err(|errno| sys::Error::new(errno, "lseek(state, 0, SEEK_SET)"))?;
    command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| Error::from(sys::Error::from_io(&error, "execve")))?;
    let stderr = wait(&mut child, hook.timeout)?;
    let status = child
        .wait()
        .map_err(|error| Error::from(sys::Error::from_io(&error, "waitpid")))?;
    if status.success() {
        return Ok(());
    }
    let how = status.signal().map_or_else(
        || format!("exit status {}", status.code().unwrap_or(-1)),
        |signal| format!("signal {signal}"),
    );
    let stderr = stderr.trim();
    Err(Error::new(if stderr.is_empty() {
        how
    } else {
        format!("{how}, stderr: {stderr}")
    }))
}

/// Waits for the end of the hook, reading its stderr; kills it at the deadline.
fn wait(child: &mut Child, timeout: Option<i64>) -> Result<String> {
    let deadline = timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let pidfd = sys::process::pidfd_open(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)))?;
    let mut stderr = child.stderr.take();
    let mut text = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            // It may have ended by itself meanwhile; either way it is reaped here.
            drop(child.kill());
            drop(child.wait());
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
            match stderr.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut chunk)) {
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
        run("prestart", &[hook(script, None)], b"{\"id\":\"x\"}\n").unwrap();
    }

    #[test]
    fn a_failing_hook_is_named_with_its_stderr() {
        let error = run(
            "createRuntime",
            &[hook("true", None), hook("echo broken >&2; exit 3", None)],
            b"",
        )
        .unwrap_err();
        assert_eq!(
            error.message,
            r#"hooks.createRuntime[1] "/bin/sh": exit status 3, stderr: broken"#
        );
    }

    #[test]
    fn a_hook_that_does_not_end_is_killed_at_its_deadline() {
        let error = run("prestart", &[hook("exec sleep 1000", Some(1))], b"").unwrap_err();
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
        )
        .unwrap();
    }

    #[test]
    fn a_missing_hook_is_an_error_with_its_errno() {
        let missing = Hook {
            path: "/no/such/hook".to_owned(),
            ..Hook::default()
        };
        let error = run("poststop", &[missing], b"").unwrap_err();
        assert!(
            error.message.contains("no such file or directory (ENOENT)"),
            "{error}"
        );
    }
}
