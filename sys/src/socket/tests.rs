use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::fd::{pipe, read_exact, seqpacket_pair, wait_readable, write_all};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("davit-socket-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn accept_one(listener: &OwnedFd) -> OwnedFd {
    wait_readable(&[listener.as_fd()], 5_000).unwrap();
    accept(listener).unwrap().expect("a connection waits")
}

#[test]
fn a_message_carries_descriptors_that_work() {
    let (left, right) = seqpacket_pair().unwrap();
    let (read_end, write_end) = pipe().unwrap();
    send(&left, b"here", &[write_end.as_fd()]).unwrap();
    let mut buffer = [0_u8; 16];
    assert_eq!(next_size(&right).unwrap(), Some(4));
    let got = receive(&right, &mut buffer).unwrap();
    assert_eq!(
        (&buffer[..got.len], got.truncated, got.fds.len()),
        (&b"here"[..], false, 1)
    );
    write_all(&got.fds[0], b"through").unwrap();
    let mut text = [0_u8; 7];
    read_exact(&read_end, &mut text).unwrap();
    assert_eq!(&text, b"through");
}

#[test]
fn a_message_larger_than_the_buffer_is_said_to_be_truncated() {
    let (left, right) = seqpacket_pair().unwrap();
    send(&left, b"123456789", &[]).unwrap();
    let got = receive(&right, &mut [0_u8; 4]).unwrap();
    assert!(got.truncated);
}

#[test]
fn more_descriptors_than_expected_are_dropped_and_said_so() {
    let (left, right) = seqpacket_pair().unwrap();
    let (read_end, _write_end) = pipe().unwrap();
    let many = vec![read_end.as_fd(); MAX_FDS * 3];
    send(&left, b"x", &many).unwrap();
    let got = receive(&right, &mut [0_u8; 4]).unwrap();
    assert!(got.truncated);
    assert!(got.fds.len() <= MAX_FDS * 3);
}

#[test]
fn a_listener_is_private_from_the_first_moment_and_knows_its_peer() {
    let scratch = Scratch::new("private");
    let path = scratch.0.join("s.sock");
    let listener = listen(&path, Kind::SeqPacket).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(accept(&listener).unwrap().is_none(), "nothing waits yet");
    let client = connect(&path, Kind::SeqPacket).unwrap();
    let server = accept_one(&listener);
    let peer = peer(&server).unwrap();
    assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
    drop(client);
    assert_eq!(receive(&server, &mut [0_u8; 4]).unwrap().len, 0);
}

#[test]
fn a_path_longer_than_sun_path_works_on_both_ends() {
    let scratch = Scratch::new("long");
    let long = scratch.0.join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let path = long.join("s.sock");
    let listener = listen(&path, Kind::SeqPacket).unwrap();
    let client = connect(&path, Kind::SeqPacket).unwrap();
    let server = accept_one(&listener);
    send(&client, b"far", &[]).unwrap();
    let mut buffer = [0_u8; 8];
    assert_eq!(receive(&server, &mut buffer).unwrap().len, 3);
}

#[test]
fn errors_name_the_path() {
    let error = connect(Path::new("/nonexistent/shim.sock"), Kind::SeqPacket).unwrap_err();
    assert_eq!(error.errno, Errno::ENOENT);
    assert!(
        error.to_string().contains("/nonexistent/shim.sock"),
        "{error}"
    );
}
