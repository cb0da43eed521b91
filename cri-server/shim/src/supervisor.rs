//! The shim's loop: one thread, one epoll set.
//!
//! ```text
//!                 ┌──────────────── epoll ────────────────┐
//!  listener ──────┤ connection: request ──▶ operations    │
//!  signalfd ──────┤ SIGCHLD: waitid until nothing is left │──▶ command ended │ container's init ended │ exec ended │ stray
//!  pipes ─────────┤ output: one read ──▶ log              │
//!  deadlines ─────┤ runtime command, drain of the pipes   │
//!                 └───────────────────────────────────────┘
//! ```
//!
//! Process ids. A runtime's `create` and `exec` leave a process that becomes our child when the runtime ends, and name it
//! in a file that is complete only then. Such a process may end, and be reaped, before its id is known: while a command of
//! that kind runs, unknown children that end are remembered in [`Strays`].
mod attach;
mod commands;
mod connections;
mod containers;
mod create;
mod execs;
mod lifecycle;
mod operations;
mod output;
mod shutdown;
mod words;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sys::cgroup::Hierarchies;
use sys::epoll::{Epoll, Ready};
use sys::process::{self, Exit as Ended};
use sys::signalfd::SignalFd;
use sys::{Pid, Signal};

use crate::files;
use crate::launch;
use crate::log::Batch;
use crate::options::Options;
use crate::pod::Pod;
use crate::protocol::{ErrorKind, Event, WireError};
use commands::Command;
use connections::{Connection, ReplyTo};
use containers::Container;
use execs::Exec;

/// One read of a container's output; the buffer is shared by all.
const READ_SIZE: usize = 16 * 1024;

/// How many descriptors one wait reports.
const EPOLL_BATCH: usize = 16;

/// How many ended children of unknown origin are remembered while a `create` or `exec` runs.
const STRAYS_MAX: usize = 1024;

/// How a process ended whose status someone else has.
const UNKNOWN: Ended = Ended::Code(255);

/// The answer to an operation.
type Answer = Result<serde_json::Value, WireError>;

/// Everything that the shim has.
pub(crate) struct Supervisor {
    options: Options,
    pod: Pod,
    epoll: Epoll,
    listener: OwnedFd,
    signals: SignalFd,
    connections: Vec<Connection>,
    containers: Vec<Container>,
    commands: Vec<Command>,
    execs: Vec<Exec>,
    strays: Strays,
    hierarchies: Option<Hierarchies>,
    buffer: Box<[u8]>,
    batch: Batch,
    last_serial: u64,
    closing: Option<Closing>,
    done: bool,
}

/// A shutdown that waits for containers to be deleted.
struct Closing {
    reply: Option<ReplyTo>,
}

// === impl Supervisor ===

impl Supervisor {
    /// Makes the shim reachable. On an error `pod` is released.
    pub(crate) fn new(options: Options, mut pod: Pod) -> sys::Result<Self> {
        let fill = || -> sys::Result<(Epoll, SignalFd, OwnedFd)> {
            let epoll = Epoll::new(EPOLL_BATCH)?;
            let signals = SignalFd::block(&[
                Signal::SIGCHLD,
                Signal::SIGTERM,
                Signal::SIGINT,
                Signal::SIGHUP,
            ])?;
            let listener = launch::publish(&options.pod_dir)?;
            epoll.add(&signals, Token::Signals.encode())?;
            epoll.add(&listener, Token::Listener.encode())?;
            Ok((epoll, signals, listener))
        };
        let (epoll, signals, listener) = match fill() {
            Ok(filled) => filled,
            Err(error) => {
                // The error that matters is the one that stopped us.
                drop(pod.release());
                drop(launch::remove(&files::socket(&options.pod_dir)));
                return Err(error);
            }
        };
        Ok(Self {
            options,
            pod,
            epoll,
            listener,
            signals,
            connections: Vec::new(),
            containers: Vec::new(),
            commands: Vec::new(),
            execs: Vec::new(),
            strays: Strays::default(),
            hierarchies: None,
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            batch: Batch::default(),
            last_serial: 0,
            closing: None,
            done: false,
        })
    }

    /// Serves until shut down.
    pub(crate) fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::with_capacity(EPOLL_BATCH);
        while !self.done {
            let timeout = self
                .next_deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            ready.clear();
            match self.epoll.wait(timeout) {
                Ok(events) => ready.extend(events),
                // Not seen in practice; leaving would orphan every container of the pod.
                Err(_) => continue,
            }
            for event in &ready {
                self.dispatch(*event);
            }
            self.expire(Instant::now());
        }
    }

    fn dispatch(&mut self, event: Ready) {
        match Token::decode(event.token) {
            Token::Signals => self.take_signals(),
            Token::Listener => self.accept(),
            Token::Connection(serial) => self.read_connection(serial),
            Token::Stdout(serial) => self.read_output(serial, crate::log::Source::Stdout),
            Token::Stderr(serial) => self.read_output(serial, crate::log::Source::Stderr),
            Token::Command(serial) => self.read_command(serial),
            Token::Attached(serial) => self.detach(serial),
            // Whoever is its parent has its exit code.
            Token::Foreign(serial) => self.init_ended(serial, UNKNOWN),
        }
    }

    /// A number that was never used before: events for something that is gone find nothing.
    fn serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    fn next_deadline(&self) -> Option<Instant> {
        let commands = self.commands.iter().map(Command::deadline);
        let drains = self.containers.iter().filter_map(Container::drain_deadline);
        commands.chain(drains).min()
    }

    fn expire(&mut self, now: Instant) {
        self.expire_commands(now);
        let late: Vec<u64> = self
            .containers
            .iter()
            .filter(|container| container.drain_deadline().is_some_and(|at| at <= now))
            .map(|container| container.serial)
            .collect();
        for serial in late {
            self.settle(serial, now);
        }
    }

    // === children ===

    fn take_signals(&mut self) {
        let mut terminate = false;
        while let Ok(Some(number)) = self.signals.next() {
            terminate |= number != Signal::SIGCHLD as i32;
        }
        // Several children may have ended for one SIGCHLD, and some before the signal was read.
        while let Ok(Some(pid)) = process::peek_ended() {
            // A process that is not reaped yet still tells its session.
            let session = execs::own_session(pid.as_raw());
            let Ok(ended) = process::wait_pid(pid) else {
                break;
            };
            self.child_ended(Stray {
                pid: pid.as_raw(),
                session,
                ended,
            });
        }
        if terminate {
            // As a shutdown without force: a shim with containers stays.
            self.shut_down(None, false);
        }
    }

    fn child_ended(&mut self, child: Stray) {
        let Stray { pid, ended, .. } = child;
        if let Some(serial) = self
            .commands
            .iter()
            .find(|command| command.pid == pid)
            .map(|command| command.serial)
        {
            self.command_ended(serial, ended);
        } else if let Some(serial) = self
            .containers
            .iter()
            .find(|container| {
                container.pid == pid && container.lives() && container.foreign.is_none()
            })
            .map(|c| c.serial)
        {
            self.init_ended(serial, ended);
        } else if let Some(exec) = self
            .execs
            .iter_mut()
            .find(|exec| exec.pid == pid && exec.exit.is_none())
        {
            exec.exit = Some(ended.code());
            let event = exec.exit_event(ended.code());
            self.announce(&event);
            self.forget_old_execs();
        } else if self.pod.init == Some(pid) {
            self.pod.init = None;
            self.announce(&Event::PodInitExit {});
        } else if self.commands.iter().any(Command::makes_process) {
            self.strays.remember(child);
        }
    }

    /// How a process ended that was named by a runtime just now, if it did already.
    fn ended_already(&mut self, pid: i32) -> Option<Stray> {
        let stray = self.strays.take(pid);
        match process::stat(Pid::from_raw(pid)) {
            // The id may have been given out again since: a child of ours is the process that the runtime means.
            Ok(stat) if is_ours(&stat) || !stat.is_dead() => None,
            _ => Some(stray.unwrap_or(Stray {
                pid,
                session: None,
                ended: UNKNOWN,
            })),
        }
    }

    /// Strays matter only while a command runs whose process is not known yet.
    fn forget_strays(&mut self) {
        if !self.commands.iter().any(Command::makes_process) {
            self.strays = Strays::default();
        }
    }

    /// The cgroup hierarchies of this host, looked at once.
    fn hierarchies(&mut self) -> Option<&Hierarchies> {
        if self.hierarchies.is_none() {
            self.hierarchies = Hierarchies::detect().ok();
        }
        self.hierarchies.as_ref()
    }
}

/// Children that ended before anyone knew whose they were.
#[derive(Debug, Default)]
struct Strays(VecDeque<Stray>);

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stray {
    pid: i32,
    /// Unless it was in ours.
    session: Option<i32>,
    ended: Ended,
}

impl Strays {
    fn remember(&mut self, stray: Stray) {
        if self.0.len() >= STRAYS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(stray);
    }

    /// The latest of this id.
    fn take(&mut self, pid: i32) -> Option<Stray> {
        let at = self.0.iter().rposition(|stray| stray.pid == pid)?;
        self.0.remove(at)
    }
}

/// What a descriptor of the epoll set is, in its 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Signals,
    Listener,
    Connection(u64),
    Stdout(u64),
    Stderr(u64),
    Command(u64),
    /// The pidfd of an init that is not our child.
    Foreign(u64),
    /// The pipe of an attached client.
    Attached(u64),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, serial) = match self {
            Self::Signals => (0, 0),
            Self::Listener => (1, 0),
            Self::Connection(serial) => (2, serial),
            Self::Stdout(serial) => (3, serial),
            Self::Stderr(serial) => (4, serial),
            Self::Command(serial) => (5, serial),
            Self::Foreign(serial) => (6, serial),
            Self::Attached(serial) => (7, serial),
        };
        serial << 3 | kind
    }

    fn decode(token: u64) -> Self {
        let serial = token >> 3;
        match token & 7 {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Connection(serial),
            3 => Self::Stdout(serial),
            4 => Self::Stderr(serial),
            5 => Self::Command(serial),
            6 => Self::Foreign(serial),
            _ => Self::Attached(serial),
        }
    }
}

/// Whether it is our child, so that its end reaches us.
fn is_ours(stat: &process::ProcessStat) -> bool {
    stat.parent == Pid::this().as_raw()
}

/// An error for the wire.
fn wire(kind: ErrorKind, message: impl Into<String>) -> WireError {
    WireError {
        kind,
        message: message.into(),
    }
}

/// The later of now and `delay` from now: deadlines are on the monotonic clock.
fn after(delay: Duration) -> Instant {
    Instant::now() + delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives_its_64_bits() {
        for token in [
            Token::Signals,
            Token::Listener,
            Token::Connection(1),
            Token::Stdout(7),
            Token::Stderr(u64::MAX >> 3),
            Token::Command(9),
            Token::Foreign(10),
            Token::Attached(11),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }

    #[test]
    fn strays_are_bounded_and_the_latest_of_an_id_counts() {
        let stray = |pid, code| Stray {
            pid,
            session: None,
            ended: Ended::Code(code),
        };
        let mut strays = Strays::default();
        strays.remember(stray(5, 1));
        strays.remember(stray(5, 2));
        assert_eq!(strays.take(5), Some(stray(5, 2)));
        for pid in 0..5_000 {
            strays.remember(stray(pid, 0));
        }
        assert_eq!(strays.0.len(), STRAYS_MAX);
        assert_eq!(strays.take(1), None);
    }
}
