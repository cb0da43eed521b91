//! Deleting whole trees.
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{list, open_dir, rename_new, rmdir, unlink};
use crate::error::Result;

/// Deletes `name` whatever it is, with everything below it; nothing there is success. Symbolic links are deleted, never
/// followed, and no part of the tree is reached by a path, so its depth and its names do not matter.
///
/// # Errors
/// The first call that failed, for example on a mount point (`EBUSY`).
pub fn remove_tree(dir: impl AsFd, name: &OsStr) -> Result<()> {
    match unlink(&dir, name) {
        Err(error) if matches!(error.errno, Errno::EISDIR | Errno::EPERM) => {}
        Err(error) if error.errno == Errno::ENOENT => return Ok(()),
        other => return other,
    }
    let mut way = vec![Level::open(&dir, name)?];
    let mut moved = 0_u64;
    while let Some(level) = way.last_mut() {
        if let Some(child) = level.children.pop() {
            if way.len() < DEEPEST {
                let parent = &way[way.len() - 1].fd;
                let opened = Level::open(parent, &child)?;
                way.push(opened);
            } else {
                // Descriptors are few and a tree may be deeper: its rest goes on at the top.
                moved += 1;
                let name = OsString::from(format!(".davit-remove-{moved}"));
                rename_new(&way[way.len() - 1].fd, &child, &way[0].fd, &name)?;
                way[0].children.push(name);
            }
            continue;
        }
        level.children = empty(&level.fd)?;
        if level.children.is_empty() {
            let Some(done) = way.pop() else { break };
            match way.last() {
                Some(parent) => rmdir(&parent.fd, &done.name)?,
                None => rmdir(&dir, &done.name)?,
            }
        }
    }
    Ok(())
}

/// How many directories [`remove_tree`] keeps open at a time.
const DEEPEST: usize = 64;

/// A directory that [`remove_tree`] is in.
struct Level {
    fd: OwnedFd,
    name: OsString,
    /// Directories in it that are not empty.
    children: Vec<OsString>,
}

impl Level {
    fn open(dir: impl AsFd, name: &OsStr) -> Result<Level> {
        let fd = open_dir(dir, name)?;
        let children = empty(&fd)?;
        let name = name.to_owned();
        Ok(Level { fd, name, children })
    }
}

/// Deletes everything in `dir` except directories that are not empty, and names those.
fn empty(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let mut full = Vec::new();
    for name in list(dir.as_fd())? {
        let removed = match unlink(dir, &name) {
            Err(error) if matches!(error.errno, Errno::EISDIR | Errno::EPERM) => rmdir(dir, &name),
            other => other,
        };
        match removed {
            Ok(()) => {}
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) if error.errno == Errno::ENOTEMPTY => full.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok(full)
}
