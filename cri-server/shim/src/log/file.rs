//! The log file: append-only, never in the container's way.
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sys::error::Context;

/// O_NONBLOCK and O_NOCTTY of <asm-generic/fcntl.h>: a path that turns out to be a FIFO or a terminal must neither block
/// the shim nor become its controlling terminal. Regular files ignore both.
const NO_SURPRISES: i32 = 0o4000 | 0o400;

/// Where the entries of one container go. Without a path they go nowhere.
#[derive(Debug, Default)]
pub(crate) struct LogFile {
    path: Option<PathBuf>,
    file: Option<File>,
    lost: u64,
    /// The last write stopped inside an entry.
    torn: bool,
}

// === impl LogFile ===

impl LogFile {
    /// Opens or makes the file at `path`.
    pub(crate) fn open(path: Option<&Path>) -> sys::Result<Self> {
        let file = path.map(open).transpose()?;
        Ok(Self {
            path: path.map(Path::to_owned),
            file,
            lost: 0,
            torn: false,
        })
    }

    /// Opens the path again, after whoever rotates logs renamed the file. On an error the old file stays in use.
    pub(crate) fn reopen(&mut self) -> sys::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(open(path)?);
            self.torn = false;
        }
        Ok(())
    }

    /// Entries that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends whole entries. What the file system does not take is counted and dropped.
    pub(crate) fn append(&mut self, entries: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if self.torn && write(file, b"\n") == 1 {
            // The rest of the entry that a full disk cut is gone; the next one must begin on a line of its own.
            self.torn = false;
        }
        let written = if self.torn { 0 } else { write(file, entries) };
        if written < entries.len() {
            self.torn |= written > 0 && entries[written - 1] != b'\n';
            self.lost += count_lines(&entries[written..]);
        }
    }
}

fn open(path: &Path) -> sys::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(NO_SURPRISES)
        .open(path)
        .call(|| format!("open({path:?}, O_WRONLY|O_APPEND|O_CREAT|O_CLOEXEC, 0640)"))
}

/// Writes as much as the file takes and says how much that was.
fn write(file: &mut impl Write, data: &[u8]) -> usize {
    let mut written = 0;
    while written < data.len() {
        match file.write(&data[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // ENOSPC, EDQUOT, EIO, a file system that went away: nobody here can act on it, and `lost` tells.
            Err(_) => break,
        }
    }
    written
}

fn count_lines(text: &[u8]) -> u64 {
    text.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_0640_and_an_old_one_is_appended_to() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("0.log");
        LogFile::open(Some(&path)).unwrap().append(b"one\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640,
            0
        );
        LogFile::open(Some(&path)).unwrap().append(b"two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn after_a_rename_reopening_makes_the_file_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let (path, old) = (scratch.path().join("0.log"), scratch.path().join("0.log.1"));
        let mut log = LogFile::open(Some(&path)).unwrap();
        log.append(b"one\n");
        std::fs::rename(&path, &old).unwrap();
        log.append(b"two\n");
        log.reopen().unwrap();
        log.append(b"three\n");
        assert_eq!(std::fs::read(&old).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file_and_names_the_path() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("gone");
        std::fs::create_dir(&directory).unwrap();
        let mut log = LogFile::open(Some(&directory.join("0.log"))).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let error = log.reopen().unwrap_err();
        assert!(error.to_string().contains("gone/0.log"), "{error}");
        log.append(b"still no panic\n");
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn a_full_device_loses_entries_and_counts_them() {
        let mut log = LogFile::open(Some(Path::new("/dev/full"))).unwrap();
        log.append(b"one\ntwo\n");
        log.append(b"three\n");
        assert_eq!(log.lost(), 3);
    }

    #[test]
    fn a_fifo_without_a_reader_does_not_block() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(
            LogFile::open(Some(&path)).unwrap_err().errno,
            sys::Errno::ENXIO
        );
    }

    #[test]
    fn without_a_path_everything_is_dropped_and_nothing_is_lost() {
        let mut log = LogFile::open(None).unwrap();
        log.append(b"one\n");
        assert_eq!(log.lost(), 0);
    }
}
