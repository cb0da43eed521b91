//! One process per store: a lock on `<root>/lock`, which the kernel takes back when its holder dies.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, IoContext};

/// The held lock.
pub(super) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock of the store at `root`, or says who has it.
    pub(super) fn take(root: &Path) -> Result<StoreLock, Error> {
        let path = root.join("lock");
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = options.on("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    root: root.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    operation: "lock",
                    path,
                    source,
                });
            }
        }
        // Only for the message of whoever comes second; on a full disk that one has to do without.
        if file.set_len(0).is_ok() {
            writeln!(file, "{}", std::process::id()).ok();
        }
        Ok(StoreLock { _file: file })
    }
}

/// Who wrote itself into the lock file.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = match file.read_to_string(&mut text) {
        Ok(_) => text.trim().parse::<u32>().ok(),
        Err(_) => None,
    };
    let Some(pid) = pid else {
        return "another process".into();
    };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}
