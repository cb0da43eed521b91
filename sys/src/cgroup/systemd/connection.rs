//! One connection to a bus or to systemd itself: who we are, calls, answers, and signals.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::address::{Address, Bus, candidates};
use super::error::{Error, Result};
use super::message::{self, FIXED, Header, Kind, Method, call};
use super::value::Value;

/// How long systemd may take for a request, as in runc.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer or signal that is looked at.
const MAX_KEPT: usize = 1 << 20;
/// The longest line of the handshake.
const MAX_LINE: usize = 4096;

/// The message bus itself.
const fn bus_method(member: &'static str) -> Method {
    Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    }
}

/// The answer to a call that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending(u32);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    address: Address,
    /// Whether the peer has accepted who we are.
    greeted: bool,
    serial: u32,
    /// What has been read and not looked at.
    buffer: VecDeque<u8>,
    /// Finished jobs of systemd: their paths and results.
    jobs: Vec<(String, String)>,
    patience: Duration,
    deadline: Instant,
}

impl Connection {
    /// Connects to the first place that answers, and says who we are.
    pub(super) fn open(bus: Bus) -> Result<Self> {
        let places = candidates(bus, &|name| std::env::var_os(name));
        let mut tried = Vec::new();
        for address in places {
            match address.connect() {
                Ok(stream) => return Self::on(stream, address, PATIENCE),
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
        if !std::path::Path::new("/run/systemd/system").is_dir() {
            return Err(Error::NotRunning);
        }
        if tried.is_empty() {
            tried.push("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set".to_owned());
        }
        Err(Error::Connect {
            bus: match bus {
                Bus::System => "system",
                Bus::User => "user",
            },
            tried: tried.join(", "),
        })
    }

    /// Says who we are without waiting for the answer. The user is not named: the kernel tells the peer, in whatever
    /// user namespace either of the two is.
    pub(super) fn on(stream: UnixStream, address: Address, patience: Duration) -> Result<Self> {
        let mut connection = Self {
            stream,
            address,
            greeted: false,
            serial: 0,
            buffer: VecDeque::new(),
            jobs: Vec::new(),
            patience,
            deadline: Instant::now() + patience,
        };
        connection.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", "saying who we are")?;
        Ok(connection)
    }

    /// Whether a message bus is between us and systemd.
    pub(super) fn has_broker(&self) -> bool {
        self.address.broker
    }

    /// Everything from now on may take as long again.
    pub(super) fn restart_clock(&mut self) {
        self.deadline = Instant::now() + self.patience;
    }

    /// Reads the answers of the handshake: `DATA` or `OK` to the mechanism, `OK` to the empty identity. On a bus,
    /// introduces us as well.
    fn greet(&mut self) -> Result<()> {
        self.greeted = true;
        let first = self.line()?;
        let accepted = |line: &str| line == "OK" || line.starts_with("OK ");
        let answer = if first == "DATA" || accepted(&first) {
            self.line()?
        } else {
            first
        };
        if !accepted(&answer) {
            let address = self.address.to_string();
            return Err(Error::Rejected { address, answer });
        }
        if self.has_broker() {
            let hello = self.send(&bus_method("Hello"), &[])?;
            self.answer(hello, "Hello()")?;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > MAX_LINE {
                let why = "a line of the handshake has no end";
                return Err(Error::Malformed { why });
            }
            self.fill("saying who we are")?;
        }
    }

    /// Asks the bus to pass on a signal; systemd's own socket sends all of them anyway.
    pub(super) fn add_match(&mut self, rule: &str) -> Result<()> {
        self.send(&bus_method("AddMatch"), &[Value::str(rule)])
            .map(drop)
    }

    /// Sends a call.
    pub(super) fn send(&mut self, method: &Method, arguments: &[Value]) -> Result<Pending> {
        if !self.greeted {
            self.greet()?;
        }
        self.serial += 1;
        let bytes = call(self.serial, method, arguments);
        self.write(&bytes, method.member)?;
        Ok(Pending(self.serial))
    }

    /// Waits for the answer to a call; `what` names it in errors.
    pub(super) fn answer(&mut self, pending: Pending, what: &str) -> Result<Vec<Value>> {
        loop {
            let (header, values) = self.next(what)?;
            if header.reply_to != Some(pending.0) {
                continue;
            }
            match header.kind {
                Kind::Return => return Ok(values),
                Kind::Error => {
                    let message = match values.into_iter().next() {
                        Some(Value::Str(message)) => message,
                        _ => String::new(),
                    };
                    return Err(Error::Refused {
                        call: what.to_owned(),
                        name: header.error,
                        message,
                    });
                }
                Kind::Signal | Kind::Other => {}
            }
        }
    }

    /// Waits until systemd says that the job with this path is gone, and how it went.
    pub(super) fn job_result(&mut self, job: &str, what: &str) -> Result<String> {
        loop {
            if let Some((_, result)) = self.jobs.iter().find(|(path, _)| path == job) {
                return Ok(result.clone());
            }
            self.next(what)?;
        }
    }

    /// Forgets jobs of earlier requests.
    pub(super) fn forget_jobs(&mut self) {
        self.jobs.clear();
    }

    /// The next message that is an answer, or the end of a job; everything else is passed over.
    fn next(&mut self, doing: &str) -> Result<(Header, Vec<Value>)> {
        loop {
            while self.buffer.len() < FIXED {
                self.fill(doing)?;
            }
            let fixed: Vec<u8> = self.buffer.iter().take(FIXED).copied().collect();
            let (head, body) = message::lengths(&fixed)?;
            let header = Header::parse(&self.take(head, doing)?)?;
            let ended = header.kind == Kind::Signal && header.member == "JobRemoved";
            if !ended && matches!(header.kind, Kind::Signal | Kind::Other) {
                self.skip(body, doing)?;
                continue;
            }
            if body > MAX_KEPT {
                let why = "an answer is longer than any that was asked for";
                return Err(Error::Malformed { why });
            }
            let values = header.values(&self.take(body, doing)?)?;
            if ended && let [_, Value::Path(job), _, Value::Str(result)] = values.as_slice() {
                self.jobs.push((job.clone(), result.clone()));
            }
            return Ok((header, values));
        }
    }

    fn take(&mut self, count: usize, doing: &str) -> Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill(doing)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn skip(&mut self, mut count: usize, doing: &str) -> Result<()> {
        while count > self.buffer.len() {
            count -= self.buffer.len();
            self.buffer.clear();
            self.fill(doing)?;
        }
        self.buffer.drain(..count);
        Ok(())
    }

    /// Reads more, before the deadline.
    fn fill(&mut self, doing: &str) -> Result<()> {
        let mut chunk = [0; 2048];
        loop {
            let left = self.time_left(doing)?;
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut chunk));
            match read {
                Ok(0) => return Err(closed(doing, String::new())),
                Ok(count) => {
                    self.buffer.extend(&chunk[..count]);
                    return Ok(());
                }
                Err(error) => self.tolerate(&error, doing)?,
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], doing: &str) -> Result<()> {
        while !bytes.is_empty() {
            let left = self.time_left(doing)?;
            let written = self
                .stream
                .set_write_timeout(Some(left))
                .and_then(|()| self.stream.write(bytes));
            match written {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) => self.tolerate(&error, doing)?,
            }
        }
        Ok(())
    }

    fn tolerate(&self, error: &std::io::Error, doing: &str) -> Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.time_left(doing).map(drop),
            _ => Err(closed(doing, error.to_string())),
        }
    }

    fn time_left(&self, doing: &str) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(Error::Timeout {
                doing: doing.to_owned(),
                seconds: self.patience.as_secs(),
            });
        }
        Ok(left)
    }
}

fn closed(doing: &str, why: String) -> Error {
    Error::Closed {
        doing: doing.to_owned(),
        why,
    }
}
