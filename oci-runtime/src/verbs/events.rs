//! `events`: statistics and want of memory, one JSON document per line.
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde::Serialize;
use sys::cgroup::{Cgroup, OomEvent};

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::duration;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::state::{State, Status};
use crate::usage::{self, Stats};

/// How often statistics come where nobody says.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// `events ID`
///
/// # Errors
/// The container does not run, or cannot be watched.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let state = global.store.load(id)?;
    let interval = match parsed.get("interval") {
        Some(text) => duration::parse(text).ok_or_else(|| {
            Error::new(format!(
                "invalid value {text:?} for --interval: no duration such as 5s or 1m30s"
            ))
        })?,
        None => DEFAULT_INTERVAL,
    };
    if interval.is_zero() {
        return Err(Error::new("duration interval must be greater than 0"));
    }
    if global.store.status(id, &state)? == Status::Stopped {
        return Err(Error::new(format!("container with id {id} is not running")));
    }
    let cgroup = state.cgroup()?;
    if cgroup.is_none() {
        return Err(super::pause::no_cgroup("nobody counts what it uses"));
    }
    if parsed.is_on("stats") {
        say(&stats(&state, &cgroup))?;
    } else {
        follow(&state, &cgroup, interval)?;
    }
    Ok(0)
}

fn stats<'a>(state: &'a State, cgroup: &Cgroup) -> Event<'a> {
    Event {
        kind: "stats",
        id: &state.id,
        data: Some(usage::read(state, cgroup)),
    }
}

/// Until the cgroup ends, or nobody listens any more.
fn follow(state: &State, cgroup: &Cgroup, interval: Duration) -> Result<()> {
    let mut watch = cgroup.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: a wait of 0 ms would spin until the time has come.
        let wait = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        if sys::fd::wait_readable(&[watch.as_fd()], wait)? == [true] {
            let oom = Event {
                kind: "oom",
                id: &state.id,
                data: None,
            };
            match watch.take()? {
                OomEvent::Ended => return Ok(()),
                OomEvent::Oom if !say(&oom)? => return Ok(()),
                OomEvent::Oom | OomEvent::Nothing => {}
            }
        }
        let now = Instant::now();
        if now >= next {
            if watch.is_gone() || !say(&stats(state, cgroup))? {
                return Ok(());
            }
            next = now + interval;
        }
    }
}

/// Writes one line; false where nobody reads.
fn say(event: &Event<'_>) -> Result<bool> {
    let mut line = serde_json::to_vec(event).map_err(|error| Error::new(error.to_string()))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(&line).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(sys::Error::from_io(&error, "write(stdout)").into()),
    }
}
