//! Limits are set one file after the other. Where a later one is refused, the earlier ones are set back.
//!
//! All writes of this module's neighbours go through [`super::file::write`], which notes here what was there before
//! while somebody asks for it. Set back in the reverse order every file passes only through states that it had.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::{Error, file};

/// One write that was done.
struct Entry {
    dir: PathBuf,
    name: String,
    written: String,
    before: String,
}

thread_local! {
    /// What this thread has written since somebody asked.
    static WRITTEN: RefCell<Option<Vec<Entry>>> = const { RefCell::new(None) };
}

/// A change that failed.
#[derive(Debug)]
pub struct Failed<E> {
    /// Why.
    pub error: E,
    /// What could not be set back.
    pub left: Vec<Error>,
}

/// Runs a change of limits; if it fails, what it has written by then is set back.
///
/// # Errors
/// That of the change.
pub fn all_or_nothing<T, E>(change: impl FnOnce() -> Result<T, E>) -> Result<T, Failed<E>> {
    WRITTEN.set(Some(Vec::new()));
    let changed = change();
    let written = WRITTEN.take().unwrap_or_default();
    changed.map_err(|error| {
        let undo = |entry: &Entry| {
            let value = entry.restoration()?;
            file::write(&entry.dir, &entry.name, &value).err()
        };
        // Files that somebody else wrote have no order, and some hold each other back: hence a second round.
        let refused: Vec<&Entry> = written
            .iter()
            .rev()
            .filter(|one| undo(one).is_some())
            .collect();
        Failed {
            error,
            left: refused.into_iter().filter_map(undo).collect(),
        }
    })
}

/// Notes every limit of a cgroup that somebody else is about to write.
pub(super) fn note_all(dir: &Path, names: &[&str]) {
    for name in names {
        if let Some(value) = before(dir, name) {
            note(dir, name, "", value);
        }
    }
}

/// What a file holds before it is written, if somebody wants to know.
pub(super) fn before(dir: &Path, name: &str) -> Option<String> {
    WRITTEN
        .with_borrow(Option::is_some)
        .then(|| file::read(dir, name).ok())?
}

/// Notes a write that was done.
pub(super) fn note(dir: &Path, name: &str, written: &str, before: String) {
    WRITTEN.with_borrow_mut(|entries| {
        entries.iter_mut().for_each(|entries| {
            entries.push(Entry {
                dir: dir.to_owned(),
                name: name.to_owned(),
                written: written.to_owned(),
                before: before.clone(),
            });
        });
    });
}

// === impl Entry ===

impl Entry {
    /// What to write to have the old value back; `None` where nothing is to be written.
    fn restoration(&self) -> Option<String> {
        let Self {
            name,
            written,
            before,
            ..
        } = self;
        if name == "memory.oom_control" {
            return file::find_key(before, "oom_kill_disable").map(|value| value.to_string());
        }
        let key = written.split(' ').next().filter(|key| is_key(name, key));
        let Some(key) = key else {
            // Of lists by device, what holds for the others.
            let value = before.lines().next().unwrap_or_default();
            let value = value.strip_prefix("default ").unwrap_or(value);
            // An empty set is a line without anything in it.
            return Some(if value.is_empty() {
                "\n".to_owned()
            } else {
                value.to_owned()
            });
        };
        let old = before
            .lines()
            .find(|line| line.split(' ').next() == Some(key));
        old.map(str::to_owned)
            .or_else(|| Some(format!("{key} {}", nothing(name)?)))
    }
}

/// Whether the first word that is written to a file says which line of it is meant.
fn is_key(file: &str, word: &str) -> bool {
    let device = word.split_once(':').is_some_and(|(major, minor)| {
        [major, minor]
            .iter()
            .all(|number| number.parse::<u32>().is_ok())
    });
    device || matches!(file, "net_prio.ifpriomap" | "rdma.max")
}

/// What takes a line for one device away.
fn nothing(file: &str) -> Option<&'static str> {
    match file {
        "io.max" => Some("rbps=max wbps=max riops=max wiops=max"),
        "rdma.max" => Some("hca_handle=max hca_object=max"),
        "io.weight" | "io.bfq.weight" => Some("default"),
        name if name.starts_with("blkio.") || name == "net_prio.ifpriomap" => Some("0"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restoration(name: &str, written: &str, before: &str) -> Option<String> {
        let entry = Entry {
            dir: PathBuf::new(),
            name: name.to_owned(),
            written: written.to_owned(),
            before: before.to_owned(),
        };
        entry.restoration()
    }

    #[test]
    fn what_is_written_back_is_what_the_file_takes() {
        let table = [
            ("pids.max", "7", "max", Some("max")),
            ("cpu.max", "5000 50000", "max 100000", Some("max 100000")),
            ("cpuset.cpus", "0", "", Some("\n")),
            (
                "memory.oom_control",
                "1",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
                Some("0"),
            ),
            ("io.weight", "300", "default 100\n8:0 200", Some("100")),
            (
                "io.weight",
                "8:0 300",
                "default 100\n8:0 200",
                Some("8:0 200"),
            ),
            (
                "io.weight",
                "8:16 300",
                "default 100\n8:0 200",
                Some("8:16 default"),
            ),
            ("blkio.bfq.weight_device", "8:0 300", "", Some("8:0 0")),
            (
                "blkio.throttle.read_bps_device",
                "8:0 300",
                "8:0 77",
                Some("8:0 77"),
            ),
            (
                "blkio.throttle.read_bps_device",
                "8:0 300",
                "18:0 77",
                Some("8:0 0"),
            ),
            (
                "io.max",
                "8:0 rbps=5",
                "",
                Some("8:0 rbps=max wbps=max riops=max wiops=max"),
            ),
            (
                "io.max",
                "8:0 rbps=5",
                "8:0 rbps=9 wbps=max",
                Some("8:0 rbps=9 wbps=max"),
            ),
            ("net_prio.ifpriomap", "lo 5", "lo 0\neth0 3", Some("lo 0")),
            (
                "rdma.max",
                "mlx5_0 hca_handle=2",
                "mlx5_1 hca_handle=max",
                Some("mlx5_0 hca_handle=max hca_object=max"),
            ),
            ("unknown.device", "8:0 x", "", None),
        ];
        for (name, written, before, expected) in table {
            assert_eq!(
                restoration(name, written, before).as_deref(),
                expected,
                "{name} {written}"
            );
        }
    }

    #[test]
    fn a_change_that_fails_is_undone_in_reverse_and_one_that_works_stays() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for (name, value) in [("first", "1"), ("second", "2")] {
            std::fs::write(dir.path().join(name), value).unwrap();
        }
        let change = |fails: bool| {
            all_or_nothing(|| {
                file::write(dir.path(), "first", "5")?;
                file::write(dir.path(), "second", "6")?;
                file::write(dir.path(), "first", "7")?;
                if fails {
                    file::write(dir.path(), "missing", "8")
                } else {
                    Ok(())
                }
            })
        };
        let failed = change(true).unwrap_err();
        assert!(failed.left.is_empty(), "{failed:?}");
        assert_eq!((read("first"), read("second")), ("1".into(), "2".into()));
        change(false).unwrap();
        assert_eq!((read("first"), read("second")), ("7".into(), "6".into()));
    }
}
