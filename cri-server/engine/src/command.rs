//! Running a helper program with a limit on its time and on what it says. Blocks.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Of each stream so much is kept; the rest is read and dropped.
const KEPT: usize = 1 << 20;

/// What a program wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs it to its end. One that takes longer than `limit` is killed with everything it started: `TimedOut`.
pub(crate) fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let deadline = Instant::now() + limit;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = read_until_it_ends(&mut child, &mut stdout, &mut stderr, deadline);
    match read {
        Ok(true) => Ok(Output {
            status: child.wait()?,
            stdout,
            stderr,
        }),
        other => {
            kill(&mut child)?;
            other.and_then(|_| {
                let words = format!("no answer after {} s, killed", limit.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, words))
            })
        }
    }
}

/// Kills the program with its process group, and collects it.
fn kill(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // It may have ended this moment; the group's number is taken until it is waited for.
    killpg(group, Signal::SIGKILL).ok();
    child.wait().map(drop)
}

/// Whether it ended before the deadline. Something that it started may keep its streams open: nobody waits for that.
fn read_until_it_ends(
    child: &mut Child,
    stdout: &mut Vec<u8>,
    stderr: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<bool> {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let process = sys::process::pidfd_open(pid).map_err(io::Error::other)?;
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let mut ended = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(ended);
        }
        // After its end only what is in the pipes already.
        let wait = if ended { Duration::ZERO } else { left };
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let mut fds = vec![process.as_fd()];
        fds.extend(out.as_ref().map(AsFd::as_fd));
        fds.extend(err.as_ref().map(AsFd::as_fd));
        let ready = sys::fd::wait_readable(&fds, millis).map_err(io::Error::other)?;
        let ready_out = out.is_some() && ready.get(1) == Some(&true);
        let ready_err =
            err.is_some() && ready.get(if out.is_some() { 2 } else { 1 }) == Some(&true);
        if ready_out {
            take(&mut out, stdout)?;
        }
        if ready_err {
            take(&mut err, stderr)?;
        }
        if ready_out || ready_err {
            continue;
        }
        if ended {
            return Ok(true);
        }
        ended = ready.first() == Some(&true);
    }
}

/// Reads what is there; closes the stream at its end.
fn take(stream: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 8192];
    let count = match stream {
        Some(open) => open.read(&mut buffer)?,
        None => 0,
    };
    if count == 0 {
        *stream = None;
    }
    let room = KEPT.saturating_sub(into.len()).min(count);
    into.extend_from_slice(&buffer[..room]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<Output> {
        output(Command::new("sh").args(["-c", script]), limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn both_streams_and_the_code_arrive() {
        let output = shell("echo out; echo err >&2; exit 3", LONG).expect("it runs");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let begin = Instant::now();
        let error = shell("sleep 1000 & sleep 1000", Duration::from_millis(50));
        assert_eq!(error.expect_err("killed").kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn nobody_waits_for_a_child_that_keeps_the_streams_open() {
        let begin = Instant::now();
        let output = shell("sleep 20 & echo done", LONG).expect("it ends");
        assert_eq!(output.stdout, b"done\n");
        assert!(begin.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn a_flood_is_cut_and_does_not_block_the_program() {
        let output = shell("head -c 3000000 /dev/zero", LONG).expect("it ends");
        assert!(output.status.success());
        assert_eq!(output.stdout.len(), KEPT);
    }
}
