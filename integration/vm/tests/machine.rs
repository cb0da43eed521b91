//! A machine ends when it should, whatever its command does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use vm::{Image, Machine, Options, Payload, Suite};

/// Making the image needs root.
fn image() -> Option<Image> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        assert!(std::env::var_os("MUST_WORK").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return None;
    }
    Some(Image::ready(Suite::Bookworm).unwrap())
}

fn with_deadline(seconds: u64) -> Options {
    Options {
        deadline: Duration::from_secs(seconds),
        ..Options::default()
    }
}

/// QEMUs that have this word on their kernel's command line.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.starts_with(b"qemu"))
        .filter(|line| String::from_utf8_lossy(line).contains(word))
        .count()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_a_command_prints_and_its_status_come_back_and_its_files_are_there() {
    let Some(image) = image() else { return };
    let here = tempfile::NamedTempFile::new().unwrap();
    fs::write(here.path(), "sent\n").unwrap();
    let payload = Payload::new("cat /some/where; echo and more >&2; cat /proc/1/comm; exit 7");
    let payload = payload.file(here.path(), "/some/where");
    let mut lines = Vec::new();
    let machine = Machine::boot(&image, &payload, &with_deadline(120)).unwrap();
    let status = machine.finish(|line| lines.push(line.to_owned())).unwrap();
    assert_eq!(lines, ["sent", "and more", "systemd"]);
    assert_eq!(status, 7);
}

#[test]
fn a_machine_that_takes_too_long_is_ended_and_shows_its_console() {
    let Some(image) = image() else { return };
    let machine = Machine::boot(&image, &Payload::new("sleep 1000"), &with_deadline(1)).unwrap();
    let error = machine.finish(|_| {}).unwrap_err().to_string();
    assert!(
        error.contains("did not end within 1 s; its console:"),
        "{error}"
    );
}

#[test]
fn a_dropped_machine_leaves_no_qemu() {
    let Some(image) = image() else { return };
    let word = format!("davit.dropped={}", std::process::id());
    let options = Options {
        cmdline: word.clone(),
        ..with_deadline(60)
    };
    let machine = Machine::boot(&image, &Payload::new("sleep 1000"), &options).unwrap();
    eventually("QEMU runs", || running(&word) == 1);
    drop(machine);
    eventually("QEMU is gone", || running(&word) == 0);
}
