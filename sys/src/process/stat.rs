//! `/proc/<pid>/stat`: the state and the start time, which together with the id names a process for good.
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};

/// What this crate needs of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `D`, `Z` (ended, not reaped), `X`, `T` …
    pub state: char,
    /// The parent.
    pub parent: i32,
    /// The process group.
    pub group: i32,
    /// The session.
    pub session: i32,
    /// Start, in clock ticks after boot. No two processes with the same id share it.
    pub start_time: u64,
}

impl ProcessStat {
    /// Whether the process has ended and only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The state of a process.
///
/// # Errors
/// `ENOENT` or `ESRCH` where there is no such process.
pub fn stat(pid: Pid) -> Result<ProcessStat> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read(&path).call(|| format!("read({path:?})"))?;
    parse(&text).ok_or_else(|| {
        Error::new(
            nix::errno::Errno::EPROTO,
            format!("read({path:?}): unknown format"),
        )
    })
}

/// The start time of a process.
///
/// # Errors
/// As [`stat()`].
pub fn start_time(pid: Pid) -> Result<u64> {
    stat(pid).map(|stat| stat.start_time)
}

fn parse(text: &[u8]) -> Option<ProcessStat> {
    // The name in the parentheses may itself hold parentheses, spaces and newlines: count from the last one.
    let after_name = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(text.get(after_name + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // Field 22; the six above were 3 to 6.
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(ProcessStat {
        state,
        parent,
        group,
        session,
        start_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_shift_the_fields() {
        let text = b"12 (a) R 1 (b\n) Z 7 8 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = parse(text).unwrap();
        assert_eq!(
            (
                stat.state,
                stat.parent,
                stat.group,
                stat.session,
                stat.start_time
            ),
            ('Z', 7, 8, 9, 4711)
        );
        assert!(stat.is_dead());
    }

    #[test]
    fn a_cut_line_is_refused() {
        assert_eq!(parse(b"12 (a) R 1 2"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_own_start_time_is_stable() {
        assert_eq!(
            start_time(Pid::this()).unwrap(),
            start_time(Pid::this()).unwrap()
        );
    }
}
