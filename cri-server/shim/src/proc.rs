//! What /proc tells of a process: its state, parent, session and start time, proc_pid_stat(5).
use std::fs;

/// The fields of `/proc/<pid>/stat` that a supervisor needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: i32,
    /// Not a zombie and not being reaped.
    pub alive: bool,
    /// Stopped by a signal.
    pub stopped: bool,
    /// The parent's process id.
    pub parent: i32,
    /// The session's id: the process id of the one that made it.
    pub session: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads the stat of `pid`; `None` when there is no such process.
pub fn stat(pid: i32) -> Option<Stat> {
    // The name of a process is any bytes: not always UTF-8.
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(pid: i32, text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may contain some: the last one ends it.
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&text[after..]).ok()?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    let session = words.nth(1)?.parse().ok()?;
    // state is field 3, session field 6, starttime field 22.
    let start_time = words.nth(15)?.parse().ok()?;
    let alive = !matches!(state, "Z" | "X" | "x");
    Some(Stat { pid, alive, stopped: matches!(state, "T" | "t"), parent, session, start_time })
}

/// Every process id of /proc.
pub fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) b) (c) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        let stat = parse(42, line).unwrap();
        assert_eq!(stat, Stat { pid: 42, alive: true, stopped: false, parent: 7, session: 41, start_time: 987_654 });
    }

    #[test]
    fn a_truncated_line_is_nothing() {
        assert_eq!(parse(42, b"42 (x) S 7"), None);
        assert_eq!(parse(42, b""), None);
    }

    #[test]
    fn our_own_process_is_alive_and_in_the_list() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(stat(own).unwrap().alive);
        assert!(all().contains(&own));
    }
}
