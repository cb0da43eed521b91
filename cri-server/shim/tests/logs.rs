//! The CRI log: nothing lost, nothing torn, whatever happens to its readers, its file and its disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::fs;
use std::path::Path;

use shim::protocol::{Create, ErrorKind};
use support::{Entry, Pod, any_runtime, entry, exit_of, parse_log, wait_until};

const LINES: usize = 100_000;

fn numbers(log: &[Entry]) -> Vec<usize> {
    log.iter()
        .map(|entry| entry.text.parse().unwrap_or_else(|_| panic!("{entry:?}")))
        .collect()
}

#[test]
fn a_hundred_thousand_lines_arrive_while_the_daemon_restarts_and_the_log_is_rotated() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", &format!("seq 0 {}", LINES - 1));
    // Each client is a daemon that came back; each rotates the log as the kubelet does.
    let mut rotated = Vec::new();
    for number in 0..20 {
        let mut client = pod.client();
        let old = pod.log_path(&format!("c-{number}"));
        fs::rename(pod.log_path("c"), &old).unwrap();
        match client.reopen_log("c") {
            Ok(()) => rotated.push(old),
            Err(error) => {
                // It ended in the meantime.
                assert_eq!(error.kind(), Some(ErrorKind::Invalid), "{error}");
                fs::rename(&old, pod.log_path("c")).unwrap();
                break;
            }
        }
    }
    let mut client = pod.client();
    wait_until("the container exited", || {
        client.status().unwrap().containers[0].exit.is_some()
    });
    let mut all = Vec::new();
    for path in rotated.iter().chain([&pod.log_path("c")]) {
        all.extend(parse_log(&fs::read(path).unwrap()));
    }
    assert!(
        numbers(&all).into_iter().eq(0..LINES),
        "{} lines",
        all.len()
    );
    assert!(
        all.iter()
            .all(|entry| entry.tag == "F" && entry.stream == "stdout")
    );
}

#[test]
fn long_lines_are_split_at_16_kib_and_an_unterminated_tail_is_partial() {
    for tool in support::runtimes() {
        let pod = Pod::start(&tool, &[]);
        let mut events = pod.events();
        let x = |count: usize| format!("head -c {count} /dev/zero | tr '\\0' x");
        pod.run(
            "c",
            &format!(
                "{}; echo; {}; echo; {}; printf end",
                x(16_384),
                x(16_385),
                x(40_000)
            ),
        );
        exit_of(&mut events, "c");
        let lengths: Vec<(usize, String)> = pod
            .log("c")
            .into_iter()
            .map(|entry| (entry.text.len(), entry.tag))
            .collect();
        let expected = [
            (16_384, "F"),
            (16_384, "P"),
            (1, "F"),
            (16_384, "P"),
            (16_384, "P"),
            (7_235, "P"),
        ];
        assert_eq!(
            lengths,
            expected.map(|(length, tag)| (length, tag.to_owned())),
            "{}",
            tool.name
        );
        assert!(pod.log("c")[5].text.ends_with("xend"));
    }
}

#[test]
fn a_line_that_is_written_in_pieces_is_one_entry() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let mut events = pod.events();
    pod.run("c", "for i in 1 2 3; do printf $i; /bin/true; done; echo; printf a >&2; printf b; echo c >&2; echo d");
    exit_of(&mut events, "c");
    let mut log = pod.log("c");
    log.sort_by(|a, b| a.stream.cmp(&b.stream));
    assert_eq!(
        log,
        [
            entry("stderr", "F", "ac"),
            entry("stdout", "F", "123"),
            entry("stdout", "F", "bd")
        ]
    );
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let mut events = pod.events();
    pod.run("c", "printf '\\377\\000\\r\\t F P \\n'");
    exit_of(&mut events, "c");
    let log = fs::read(pod.log_path("c")).unwrap();
    assert!(log.ends_with(b" stdout F \xff\0\r\t F P \n"), "{log:?}");
}

#[test]
fn without_a_log_path_the_output_is_read_all_the_same() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let (mut client, mut events) = (pod.client(), pod.events());
    // More than a pipe holds: an unread one would stop the container.
    let create = Create {
        log_path: None,
        ..pod.container("c", "yes | head -c 1000000; exit 6")
    };
    client.create(create).unwrap();
    client.start("c").unwrap();
    client.reopen_log("c").unwrap();
    assert_eq!(exit_of(&mut events, "c").code, 6);
    assert_eq!(
        client.reopen_log("c").unwrap_err().kind(),
        Some(ErrorKind::Invalid),
        "an exited container's log is not reopened"
    );
    assert!(!pod.log_path("c").exists());
}

#[test]
fn a_log_in_a_directory_that_is_missing_refuses_the_create_and_names_it() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let create = Create {
        log_path: Some("/nonexistent/dir/0.log".into()),
        ..pod.container("c", "true")
    };
    let error = pod.client().create(create).unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Internal));
    assert!(
        error.to_string().contains("/nonexistent/dir/0.log")
            && error.to_string().contains("ENOENT"),
        "{error}"
    );
    assert_eq!(pod.client().status().unwrap().containers, []);
}

/// A file system of 256 KiB.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let tmpfs = sys::mount::FsContext::open("tmpfs").unwrap();
        tmpfs.set_string("size", "256k").unwrap();
        sys::mount::attach(tmpfs.mount(sys::mount::MountAttr::empty()).unwrap(), at).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(sys::mount::unmount_detach(&self.0));
    }
}

#[test]
fn a_full_disk_loses_lines_and_says_how_many_but_the_container_goes_on() {
    let Some(tool) = any_runtime() else { return };
    if tool.name == "crun" {
        println!("skipped with crun: its mount namespace does not see the small disk");
        return;
    }
    let pod = Pod::start(&tool, &[]);
    let disk = SmallDisk::mount(&pod.path().join("disk"));
    let (mut client, mut events) = (pod.client(), pod.events());
    let log = disk.0.join("0.log");
    let create = Create {
        log_path: Some(log.clone()),
        ..pod.container(
            "c",
            "seq 0 19999; trap 'seq 20000 20009; exit 8' TERM; while :; do sleep 1000 & wait; done",
        )
    };
    client.create(create).unwrap();
    client.start("c").unwrap();
    // All 20000 lines are written and only some fit: the container got past them.
    let lost =
        |client: &mut shim::client::Client| client.status().unwrap().containers[0].log_lines_lost;
    let written = || {
        fs::read(&log)
            .unwrap()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    };
    wait_until("all lines are written or lost", || {
        usize::try_from(lost(&mut client)).unwrap() + written() >= 20_000
    });
    assert!(lost(&mut client) > 1000);
    // Space again, as after a rotation.
    fs::rename(&log, disk.0.join("0.log.old")).unwrap();
    client.reopen_log("c").unwrap();
    let old = fs::read(disk.0.join("0.log.old")).unwrap();
    fs::remove_file(disk.0.join("0.log.old")).unwrap();
    wait_until("the trap is set", || {
        client.signal("c", 15, false).unwrap();
        events
            .next(std::time::Duration::from_millis(50))
            .unwrap()
            .is_some()
    });
    let whole = old.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert!(starts_at_zero(&old[..whole]));
    let after = parse_log(&fs::read(&log).unwrap());
    assert!(numbers(&after).into_iter().eq(20_000..20_010), "{after:?}");
}

/// What was written is the beginning, without a gap.
fn starts_at_zero(log: &[u8]) -> bool {
    let numbers = numbers(&parse_log(log));
    let count = numbers.len();
    count > 100 && numbers.into_iter().eq(0..count)
}
