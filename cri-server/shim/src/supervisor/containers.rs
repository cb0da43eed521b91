//! Containers and their ends.
//!
//! ```text
//! Creating ──create ok──▶ Created ──start ok──▶ Running
//!     │                      └──────┬──────────────┘ init ended
//!     └─ create failed: gone        ▼
//!                               Draining ── both outputs at their end, or nothing new for 1 s, or 10 s over
//!                                   └──▶ log flushed, exit file written ──▶ Exited ──▶ told to subscribers
//! ```
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sys::cgroup::{Cgroup, Hierarchies};
use sys::process::Exit as Ended;

use super::Supervisor;
use super::connections::ReplyTo;
use super::output::Output;
use crate::files;
use crate::launch;
use crate::log::{LogFile, now_ns};
use crate::protocol::{ContainerStatus, Event, Exit, Runtime, State};

/// After its init ended: how long an output that someone still holds open may be silent,
const QUIET: Duration = Duration::from_secs(1);
/// and how long it may go on at all before the exit is told. It is read and logged also afterwards.
const DRAIN: Duration = Duration::from_secs(10);

/// The hierarchies that are asked what processes a container has: any of them would do.
const WATCHED: [&str; 4] = ["memory", "pids", "freezer", ""];

/// One container.
pub(super) struct Container {
    pub(super) serial: u64,
    pub(super) id: String,
    pub(super) runtime: Runtime,
    pub(super) bundle: PathBuf,
    pub(super) phase: Phase,
    /// 0 until it is known.
    pub(super) pid: i32,
    /// For an init that is not our child, as some runtimes have it: nothing else says that its id is still its own.
    pub(super) foreign: Option<OwnedFd>,
    pub(super) started_at_ns: i64,
    /// A `start` is on its way: its end comes before that of the container.
    pub(super) starting: bool,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// Whether stdout is a terminal.
    pub(super) terminal: bool,
    /// Keeps the container's stdin open.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) log: LogFile,
    pub(super) cgroup: Option<Cgroup>,
    oom_kills_before: u64,
    /// What came on stderr while it was being created: the runtime's own words, should it fail.
    pub(super) early: Vec<u8>,
    /// Deletions that the runtime finished; they are answered when the exit is recorded.
    pub(super) deletions: Vec<Option<ReplyTo>>,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Creating,
    Created,
    Running,
    Draining {
        exit: Exit,
        quiet_until: Instant,
        until: Instant,
    },
    Exited(Exit),
}

impl Container {
    pub(super) fn new(
        serial: u64,
        id: String,
        runtime: Runtime,
        bundle: PathBuf,
        log: LogFile,
    ) -> Self {
        Self {
            serial,
            id,
            runtime,
            bundle,
            phase: Phase::Creating,
            pid: 0,
            foreign: None,
            started_at_ns: 0,
            starting: false,
            stdout: Output::default(),
            stderr: Output::default(),
            terminal: false,
            stdin: None,
            log,
            cgroup: None,
            oom_kills_before: 0,
            early: Vec::new(),
            deletions: Vec::new(),
        }
    }

    /// Whether its init was created and not reaped: only then is its process id safe to use.
    pub(super) fn lives(&self) -> bool {
        matches!(self.phase, Phase::Created | Phase::Running)
    }

    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        match self.phase {
            // A `start` on its way has a deadline of its own.
            Phase::Draining {
                quiet_until, until, ..
            } if !self.starting => Some(quiet_until.min(until)),
            _ => None,
        }
    }

    pub(super) fn status(&self, execs: Vec<String>) -> ContainerStatus {
        let (state, exit) = match &self.phase {
            Phase::Creating => (State::Creating, None),
            Phase::Created => (State::Created, None),
            Phase::Running | Phase::Draining { .. } => (State::Running, None),
            Phase::Exited(exit) => (State::Exited, Some(*exit)),
        };
        ContainerStatus {
            id: self.id.clone(),
            pid: self.pid,
            state,
            exit,
            started_at_ns: self.started_at_ns,
            log_lines_lost: self.log.lost(),
            execs,
            ended_execs: Vec::new(),
        }
    }

    /// Remembers the cgroup of its init while that is there to be asked.
    pub(super) fn remember_cgroup(&mut self, hierarchies: &Hierarchies) {
        self.cgroup = own_cgroup(hierarchies, self.pid);
        self.oom_kills_before = self.oom_kills();
    }

    fn oom_kills(&self) -> u64 {
        // A cgroup that is gone killed nobody that we could still hear of.
        self.cgroup
            .as_ref()
            .and_then(|cgroup| cgroup.oom_kills().ok())
            .unwrap_or(0)
    }

    /// Kills what is left in its cgroup.
    pub(super) fn kill_rest(&self) {
        if let Some(cgroup) = &self.cgroup
            && cgroup
                .processes()
                .is_ok_and(|processes| !processes.is_empty())
        {
            // What cannot be killed shows when the runtime deletes the cgroup, and that error is told.
            drop(cgroup.kill_all());
        }
    }
}

/// The cgroup of `pid`, of which only the hierarchies count where it has one of its own: a runtime that makes no cgroup, or
/// leaves a hierarchy out, would otherwise make us kill our own neighbours, or ourselves.
fn own_cgroup(hierarchies: &Hierarchies, pid: i32) -> Option<Cgroup> {
    let shim = Cgroup::of_process(hierarchies, i32::try_from(std::process::id()).ok()?)
        .ok()?
        .paths();
    let paths = Cgroup::of_process(hierarchies, pid).ok()?.paths();
    separate(hierarchies, paths, &shim)
}

/// As above, for a path that a container is going to have.
pub(super) fn separate(
    hierarchies: &Hierarchies,
    paths: BTreeMap<String, PathBuf>,
    shim: &BTreeMap<String, PathBuf>,
) -> Option<Cgroup> {
    let paths: BTreeMap<String, PathBuf> = paths
        .into_iter()
        .filter(|(controller, _)| WATCHED.contains(&controller.as_str()))
        .filter(|(controller, path)| {
            shim.get(controller)
                .is_some_and(|own| !own.starts_with(path))
        })
        .collect();
    if paths.is_empty() {
        None
    } else {
        Some(Cgroup::from_paths(hierarchies, &paths))
    }
}

impl Supervisor {
    pub(super) fn container(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id == id)
    }

    pub(super) fn by_serial(&mut self, serial: u64) -> Option<&mut Container> {
        self.containers
            .iter_mut()
            .find(|container| container.serial == serial)
    }

    /// The init was reaped.
    pub(super) fn init_ended(&mut self, serial: u64, ended: Ended) {
        let foreign = self
            .by_serial(serial)
            .and_then(|container| container.foreign.take());
        if let Some(pidfd) = foreign {
            // It was added when the container was created.
            drop(self.epoll.remove(&pidfd));
        }
        let Some(container) = self.by_serial(serial) else {
            return;
        };
        let code = ended.code();
        let signal = match ended {
            Ended::Signal(signal) => Some(signal),
            Ended::Code(_) => None,
        };
        // Before the runtime can delete the cgroup, and the count with it.
        let oom = code == 137 && container.oom_kills() > container.oom_kills_before;
        let exit = Exit {
            code,
            signal,
            oom,
            finished_at_ns: now_ns(),
        };
        // In a PID namespace of its own the kernel has killed the rest by now; in a shared one nobody has.
        container.kill_rest();
        let now = Instant::now();
        container.phase = Phase::Draining {
            exit,
            quiet_until: now + QUIET,
            until: now + DRAIN,
        };
        container.stdin = None;
        self.drain(serial);
        self.settle(serial, Instant::now());
    }

    /// Something new came while draining.
    pub(super) fn put_off(&mut self, serial: u64) {
        if let Some(container) = self.by_serial(serial)
            && let Phase::Draining { quiet_until, .. } = &mut container.phase
        {
            *quiet_until = Instant::now() + QUIET;
        }
    }

    /// Ends the draining if it is time.
    pub(super) fn settle(&mut self, serial: u64, now: Instant) {
        let Some(container) = self.by_serial(serial) else {
            return;
        };
        let Phase::Draining {
            mut exit,
            quiet_until,
            until,
        } = container.phase
        else {
            return;
        };
        let complete = container.stdout.is_closed() && container.stderr.is_closed();
        if container.starting || !(complete || now >= quiet_until || now >= until) {
            return;
        }
        exit.finished_at_ns = exit.finished_at_ns.max(container.started_at_ns);
        let (path, text) = (
            files::exit_file(&container.bundle),
            serde_json::to_vec(&exit).unwrap_or_default(),
        );
        let id = container.id.clone();
        self.flush_output(serial);
        self.detach_all(serial);
        // A bundle that was removed under us has no place for it: the event and the status still have the exit.
        drop(launch::write_atomically(&path, &text));
        if let Some(container) = self.by_serial(serial) {
            container.phase = Phase::Exited(exit);
        }
        self.announce(&Event::Exit {
            container_id: id,
            exit,
        });
        self.finish_deletions(serial);
    }

    /// Forgets a container that the runtime deleted and whose exit is recorded, and answers whoever asked for that.
    pub(super) fn finish_deletions(&mut self, serial: u64) {
        let Some(at) = self
            .containers
            .iter()
            .position(|container| container.serial == serial)
        else {
            return;
        };
        let container = &mut self.containers[at];
        if container.deletions.is_empty() || !matches!(container.phase, Phase::Exited(_)) {
            return;
        }
        let deletions = std::mem::take(&mut container.deletions);
        self.drop_container(serial);
        for reply in deletions {
            self.reply_if(reply, Ok(serde_json::json!({})));
        }
        self.continue_shutdown();
    }

    /// Takes a container off the books: its pipes close.
    pub(super) fn drop_container(&mut self, serial: u64) {
        if let Some(at) = self
            .containers
            .iter()
            .position(|container| container.serial == serial)
        {
            self.close_output(serial);
            let container = self.containers.remove(at);
            // Somebody waits for the exit of one that is not reaped yet.
            self.execs
                .retain(|exec| exec.container != container.serial || exec.exit.is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_ours_or_above_us_is_never_a_containers() {
        let Ok(hierarchies) = Hierarchies::detect() else {
            println!("skipped: no cgroup file system is mounted");
            return;
        };
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(own_cgroup(&hierarchies, own).is_none());
        let shim = Cgroup::of_process(&hierarchies, own).unwrap().paths();
        let above: BTreeMap<String, PathBuf> = shim
            .iter()
            .map(|(name, path)| (name.clone(), path.parent().unwrap_or(path).to_owned()))
            .collect();
        assert!(separate(&hierarchies, above, &shim).is_none());
        let below: BTreeMap<String, PathBuf> = shim
            .iter()
            .map(|(name, path)| (name.clone(), path.join("container")))
            .collect();
        let found = separate(&hierarchies, below, &shim).unwrap();
        assert!(
            found
                .paths()
                .values()
                .all(|path| path.ends_with("container"))
        );
    }
}
