//! The built program, over a real socket.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A running sample on a free port; killed when the test ends, however it ends.
struct Sample {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Sample {
    fn start() -> Sample {
        let mut child = Command::new(env!("CARGO_BIN_EXE_davit-sample"))
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line
            .trim()
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap_or_else(|_| panic!("no port in {line:?}"));
        Sample {
            child,
            stdout,
            port,
        }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn end_by(&mut self, signal: &str) -> ExitStatus {
        let status = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // Both fail when the test has ended the program already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_get_is_answered_with_the_name_of_the_pod_and_logged_on_stdout() {
    let mut sample = Sample::start();
    let answer = sample.ask("GET /x HTTP/1.1\r\nHost: pod\r\n\r\n");
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains(&format!("\nname: {}\n", name.trim())),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("\nyou asked: 127.0.0.1:{}\n", sample.port)),
        "{answer}"
    );
    assert_eq!(sample.next_line(), "127.0.0.1 \"GET /x HTTP/1.1\" 200\n");
}

#[test]
fn sigterm_and_sigint_end_it_with_code_zero() {
    for signal in ["TERM", "INT"] {
        let mut sample = Sample::start();
        assert_eq!(sample.end_by(signal).code(), Some(0), "SIG{signal}");
        assert_eq!(sample.next_line(), "asked to end\n");
    }
}

#[test]
fn a_client_that_sends_nothing_delays_nobody_else() {
    let sample = Sample::start();
    let _silent = TcpStream::connect(("127.0.0.1", sample.port)).unwrap();
    assert!(
        sample
            .ask("GET / HTTP/1.1\r\n\r\n")
            .starts_with("HTTP/1.1 200")
    );
}

#[test]
fn control_characters_in_a_request_cannot_forge_a_line_of_the_log() {
    let mut sample = Sample::start();
    sample.ask("GET /\rforged HTTP/1.1\n\n");
    assert_eq!(
        sample.next_line(),
        "127.0.0.1 \"GET /\\rforged HTTP/1.1\" 400\n"
    );
}

#[test]
fn an_unknown_argument_is_refused_with_the_usage() {
    let out = Command::new(env!("CARGO_BIN_EXE_davit-sample"))
        .arg("--bogus")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "davit-sample: usage: davit-sample [--port N]; not: --bogus\n"
    );
}
