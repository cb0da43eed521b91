//! `kill`: a signal to the first process, or to all.
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::sys::signal::Signal;

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::members;
use crate::state::{State, Status};

/// `kill ID [SIGNAL]`
///
/// # Errors
/// The container does not run.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let signal = parse_signal(parsed.operands.get(1).map_or("SIGTERM", String::as_str))?;
    let state = global.store.load(id)?;
    if parsed.is_on("all") {
        all(&state, signal)?;
        return Ok(0);
    }
    if global.store.status(id, &state)? == Status::Stopped {
        return Err(Error::new("container not running"));
    }
    // Without a pid namespace of its own the end of the first process does not end the others.
    // Without a cgroup, too, nobody knows the others.
    let known = !state.cgroup_paths.is_empty();
    if signal == SIGKILL && !state.own_pid_namespace && known {
        all(&state, signal)?;
        return Ok(0);
    }
    one(&state, signal)?;
    Ok(0)
}

/// A signal to the first process.
///
/// # Errors
/// "container not running".
pub fn one(state: &State, signal: i32) -> Result<()> {
    let pidfd = state.open_init()?;
    match sys::process::pidfd_send_signal(&pidfd, signal) {
        Err(error) if error.errno == Errno::ESRCH => Err(Error::new("container not running")),
        other => other.map_err(Error::from),
    }?;
    if signal == SIGKILL {
        thaw(state);
    }
    Ok(())
}

/// A signal to every process of the container, also when the first one has ended.
///
/// # Errors
/// The cgroup cannot be read.
pub fn all(state: &State, signal: i32) -> Result<()> {
    let cgroup = state.cgroup()?;
    if signal == SIGKILL && !cgroup.is_none() {
        cgroup.kill_all()?;
        return Ok(());
    }
    for pid in members::processes(state)? {
        match sys::process::send_signal(nix::unistd::Pid::from_raw(pid), signal) {
            // Ended meanwhile.
            Err(error) if error.errno == Errno::ESRCH => {}
            other => other?,
        }
    }
    Ok(())
}

/// A frozen process does not die before it is thawed (cgroup v1).
fn thaw(state: &State) {
    if state.cgroup_paths.contains_key("freezer")
        && let Ok(cgroup) = state.cgroup()
        && cgroup.is_frozen().unwrap_or(false)
    {
        // The signal is pending: whoever thaws the container later sees it die.
        drop(cgroup.thaw());
    }
}

/// The number of a signal: a number, or a name with or without SIG, in any case; `RTMIN+3` and the like too.
///
/// # Errors
/// `unknown signal "X"`.
pub fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || Error::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, rest: &str, sign: i32| match rest {
        "" => Some(base),
        _ => rest
            .strip_prefix(['+', '-'])?
            .parse::<i32>()
            .ok()
            .map(|offset| base + sign * offset),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        real_time(34, rest, 1)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        real_time(64, rest, -1)
    } else {
        // Names that the kernel has twice.
        let name = match name {
            "CLD" => "CHLD",
            "POLL" => "IO",
            "IOT" => "ABRT",
            other => other,
        };
        format!("SIG{name}")
            .parse::<Signal>()
            .ok()
            .map(|signal| signal as i32)
    };
    number
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        let table = [
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("term", 15),
            ("CLD", 17),
            ("SIGIOT", 6),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("winch", 28),
            ("poll", 29),
        ];
        for (text, number) in table {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "-1",
            "65",
            "SIG",
            "NOPE",
            "RTMIN+99",
            "SIGSIGKILL",
            "9x",
        ] {
            assert_eq!(
                parse_signal(text).unwrap_err().message,
                format!("unknown signal {text:?}")
            );
        }
    }
}
