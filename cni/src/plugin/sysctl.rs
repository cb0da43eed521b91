//! Kernel parameters of the calling thread's network namespace.
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::Failure;

/// Sets a parameter unless it has the value: the file may be read-only where it need not be written.
pub(crate) fn set(key: &str, value: &str) -> Result<(), Failure> {
    let path = PathBuf::from("/proc/sys").join(key);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|e| Failure::io(&format!("write {value:?} to"), &path, &e))
}

/// As [`set`], for parameters that only some kernels have.
pub(crate) fn set_if_there(key: &str, value: &str) -> Result<(), Failure> {
    let path = PathBuf::from("/proc/sys").join(key);
    match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        _ => set(key, value),
    }
}

/// The value of a parameter, if there is such a one.
pub(crate) fn get(key: &str) -> Option<String> {
    let text = fs::read_to_string(PathBuf::from("/proc/sys").join(key)).ok()?;
    Some(text.trim().to_owned())
}

/// The names below a key, `eth0` below `net/ipv6/conf`.
pub(crate) fn keys(key: &str) -> Vec<String> {
    let entries = fs::read_dir(PathBuf::from("/proc/sys").join(key));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
