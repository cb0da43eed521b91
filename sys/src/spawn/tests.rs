use std::fs::File;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::*;
use crate::fd::{pipe, read_to_end};

fn words(list: &[&str]) -> Vec<CString> {
    list.iter()
        .map(|word| CString::new(*word).unwrap())
        .collect()
}

/// Runs a shell line with a blocked signal in the parent; returns its output and status.
fn shell(line: &str, die_with_parent: bool) -> (String, WaitStatus) {
    let null = File::open("/dev/null").unwrap();
    let (read_end, write_end) = pipe().unwrap();
    let argv = words(&["sh", "-c", line]);
    let env = words(&["PATH=/usr/bin:/bin", "ONLY=this"]);
    let pid = spawn(&Spawn {
        program: c"/bin/sh",
        argv: &argv,
        env: &env,
        stdio: [null.as_fd(), write_end.as_fd(), write_end.as_fd()],
        new_group: true,
        die_with_parent,
    })
    .unwrap();
    drop(write_end);
    let output = read_to_end(&read_end, 65_536).unwrap();
    let status = waitpid(Pid::from_raw(pid), None).unwrap();
    (String::from_utf8(output).unwrap(), status)
}

#[test]
fn the_child_has_our_stdio_its_own_group_and_only_the_given_environment() {
    let (output, status) = shell("echo out; echo err >&2; echo $ONLY $HOME; exit 3", true);
    assert_eq!(output, "out\nerr\nthis\n");
    assert!(matches!(status, WaitStatus::Exited(_, 3)), "{status:?}");
}

#[test]
fn blocked_and_ignored_signals_do_not_reach_the_child() {
    let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect();
    let old = mask
        .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
        .unwrap();
    let (output, _) = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status", false);
    old.thread_set_mask().unwrap();
    for line in output.lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        // Above 31 stand real-time signals, which the harness of these tests may have ignored.
        assert_eq!(mask & 0x7fff_ffff, 0, "{output}");
    }
    assert_eq!(output.lines().count(), 2);
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_leaves_no_child() {
    let null = File::open("/dev/null").unwrap();
    let argv = words(&["nothing", "--flag"]);
    let request = Spawn {
        program: c"/nonexistent/runtime",
        argv: &argv,
        env: &[],
        stdio: [null.as_fd(); 3],
        new_group: false,
        die_with_parent: true,
    };
    let error = spawn(&request).unwrap_err();
    assert_eq!(error.errno, Errno::ENOENT);
    assert!(
        error
            .to_string()
            .starts_with("execve(\"/nonexistent/runtime\", [\"nothing\", \"--flag\"])"),
        "{error}"
    );
}
