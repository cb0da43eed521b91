//! Reading and writing the small files of a cgroup filesystem.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use super::{Error, Result, journal};

/// Writes `value` to `dir/name` in one system call, which is how the kernel takes it.
pub(super) fn write(dir: &Path, name: &str, value: &str) -> Result<()> {
    let path = dir.join(name);
    let before = journal::before(dir, name);
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(|e| Error::call("open", &path, errno(&e)))?;
    write_open(&file, value).map_err(|errno| Error::write(&path, value, errno))?;
    if let Some(before) = before {
        journal::note(dir, name, value, before);
    }
    Ok(())
}

/// Writes to a file that is open already. A signal restarts it: memory limits are interruptible while the kernel reclaims.
pub(super) fn write_open(mut file: &File, value: &str) -> std::result::Result<(), Errno> {
    loop {
        match file.write(value.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(errno(&e)),
        }
    }
}

/// Reads `dir/name` without the last newline.
pub(super) fn read(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    let mut file = File::open(&path).map_err(|e| Error::call("open", &path, errno(&e)))?;
    // One page holds nearly all of these files, so that one read and the one that finds the end are enough.
    let mut text = String::with_capacity(4096);
    file.read_to_string(&mut text)
        .map_err(|e| Error::call("read", &path, errno(&e)))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Reads an open file from its start.
pub(super) fn read_again(file: &File) -> std::result::Result<String, Errno> {
    let mut bytes = [0; 4096];
    let length = file.read_at(&mut bytes, 0).map_err(|e| errno(&e))?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Reads a file that holds one number; `max` is `u64::MAX`.
pub(super) fn read_number(dir: &Path, name: &str) -> Result<u64> {
    let text = read(dir, name)?;
    if text == "max" {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|_| Error::Malformed {
        path: dir.join(name),
        text,
        expected: "a number",
    })
}

/// Reads the number behind `key` in a file of `key value` lines.
pub(super) fn read_key(dir: &Path, name: &str, key: &str) -> Result<Option<u64>> {
    let text = read(dir, name)?;
    Ok(find_key(&text, key))
}

/// The number behind `key` in `key value` lines.
pub(super) fn find_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The errno of an I/O error; `EIO` where it carries none.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_whole_name_only() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 0";
        assert_eq!(find_key(text, "oom_kill"), Some(2));
        assert_eq!(find_key(text, "oom"), Some(3));
        assert_eq!(find_key(text, "kill"), None);
    }
}
