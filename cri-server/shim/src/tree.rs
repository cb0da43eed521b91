//! Killing a process with everything that it started.
//!
//! A process that is killed first leaves children without a trace of where they came from. So all are stopped first:
//! list, stop what is new, list again, until nothing new appears; a stopped process cannot fork. Then all are killed.
use std::collections::BTreeMap;

use sys::process::{self, ProcessStat};
use sys::{Pid, Signal};

/// Lists after which a tree that still grows is killed as it is.
const ROUNDS: usize = 64;

/// What to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The process at the top.
    pub(crate) root: i32,
    /// Whether it was not reaped yet: only then is its id still its own.
    pub(crate) root_alive: bool,
    /// The session that belongs to the tree alone: its members count also when their parent ended.
    pub(crate) session: Option<i32>,
}

/// Kills a tree; `list` gives the process ids to look at. Returns how many processes were killed.
///
/// When the root has ended its session is what remains, unless a process has the session's number as its id: the kernel does
/// not hand out that number while a member of the session lives, so such a process is a new one.
pub(crate) fn kill(tree: Tree, list: impl Fn() -> Vec<i32>) -> usize {
    let mut members = BTreeMap::new();
    for _ in 0..ROUNDS {
        let found = find(tree, &members, &list());
        if found.is_empty() {
            break;
        }
        for (pid, start) in found {
            signal(pid, Signal::SIGSTOP);
            members.insert(pid, start);
        }
    }
    for (pid, start) in &members {
        // An id that was reaped and given out again since the listing has another start time.
        if process::start_time(Pid::from_raw(*pid)).is_ok_and(|now| now == *start) {
            signal(*pid, Signal::SIGKILL);
        }
    }
    members.len()
}

fn signal(pid: i32, signal: Signal) {
    // It may have ended since it was listed, which is what this is about.
    drop(process::kill(Pid::from_raw(pid), signal));
}

/// The members that are not known yet, with their start times.
fn find(tree: Tree, known: &BTreeMap<i32, u64>, list: &[i32]) -> Vec<(i32, u64)> {
    let own = Pid::this().as_raw();
    let stats: Vec<(i32, ProcessStat)> = list
        .iter()
        .filter(|pid| **pid > 1 && **pid != own)
        .filter_map(|pid| Some((*pid, process::stat(Pid::from_raw(*pid)).ok()?)))
        .filter(|(_, stat)| !stat.is_dead())
        .collect();
    select(tree, known, &stats)
}

fn select(tree: Tree, known: &BTreeMap<i32, u64>, stats: &[(i32, ProcessStat)]) -> Vec<(i32, u64)> {
    let is_root = |pid: i32| tree.root_alive && pid == tree.root;
    let recycled = |session: i32| {
        stats
            .iter()
            .any(|(pid, _)| *pid == session && !is_root(*pid) && !known.contains_key(pid))
    };
    let session = tree.session.filter(|session| !recycled(*session));
    let mut found: Vec<(i32, u64)> = Vec::new();
    loop {
        let is_member = |pid: i32| {
            is_root(pid) || known.contains_key(&pid) || found.iter().any(|(one, _)| *one == pid)
        };
        let next: Vec<(i32, u64)> = stats
            .iter()
            .filter(|(pid, _)| !known.contains_key(pid) && !found.iter().any(|(one, _)| one == pid))
            .filter(|(pid, stat)| {
                is_root(*pid) || is_member(stat.parent) || session == Some(stat.session)
            })
            .map(|(pid, stat)| (*pid, stat.start_time))
            .collect();
        if next.is_empty() {
            return found;
        }
        found.extend(next);
    }
}

/// Every process id of /proc.
pub(crate) fn all_processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, session: i32) -> ProcessStat {
        ProcessStat {
            state: 'S',
            parent,
            group: session,
            session,
            start_time: 1,
        }
    }

    fn selected(root_alive: bool, session: Option<i32>, stats: &[(i32, ProcessStat)]) -> Vec<i32> {
        let tree = Tree {
            root: 100,
            root_alive,
            session,
        };
        let mut found: Vec<i32> = select(tree, &BTreeMap::new(), stats)
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn descendants_are_found_in_any_order_and_others_left_alone() {
        let stats = [
            (103, process(102, 103)),
            (102, process(101, 100)),
            (101, process(100, 100)),
            (100, process(7, 100)),
            (200, process(7, 200)),
        ];
        assert_eq!(selected(true, None, &stats), [100, 101, 102, 103]);
    }

    #[test]
    fn a_child_whose_parent_ended_is_found_by_its_session() {
        let stats = [
            (100, process(7, 100)),
            (105, process(1, 100)),
            (106, process(1, 106)),
        ];
        assert_eq!(selected(true, Some(100), &stats), [100, 105]);
        assert_eq!(selected(true, None, &stats), [100]);
        assert_eq!(selected(false, Some(100), &stats[1..]), [105]);
    }

    #[test]
    fn a_session_whose_leader_was_an_intermediate_process_counts_too() {
        let stats = [
            (100, process(7, 98)),
            (105, process(1, 98)),
            (106, process(1, 106)),
        ];
        assert_eq!(selected(true, Some(98), &stats), [100, 105]);
        assert_eq!(selected(false, Some(98), &stats[1..]), [105]);
    }

    #[test]
    fn a_new_process_with_the_number_of_an_ended_root_is_not_touched() {
        let stats = [(100, process(7, 100)), (101, process(100, 100))];
        assert_eq!(selected(false, Some(100), &stats), [0_i32; 0]);
    }
}
