//! How much a tree takes.
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::libc::{S_IFDIR, S_IFMT};
use nix::sys::stat::FileStat;

use super::{list, open_dir, stat, stat_at};
use crate::error::{Context, Result};

/// How many directories [`tree_usage`] keeps open at a time.
const DEEPEST: usize = 64;

/// What a tree takes on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeUsage {
    /// Bytes of the blocks in use; hard links count once.
    pub bytes: u64,
    /// Files, directories and whatever else has an inode.
    pub inodes: u64,
    /// Whether all of it was counted: not more than was allowed, nothing too deep, nothing that went away meanwhile.
    pub complete: bool,
}

/// Counts the tree at `root`, a directory of ours; what is in it may be anybody's and change meanwhile: no part of it is
/// reached by a path, links are not followed, and other file systems are left out. Stops after `limit` inodes.
///
/// # Errors
/// `root` cannot be opened.
pub fn tree_usage(root: &Path, limit: u64) -> Result<TreeUsage> {
    let root: OwnedFd = std::fs::File::open(root)
        .call(|| format!("open({root:?})"))?
        .into();
    let own = stat(&root)?;
    let mut count = Count {
        device: own.st_dev,
        limit,
        linked: BTreeSet::new(),
        usage: TreeUsage {
            complete: true,
            ..TreeUsage::default()
        },
    };
    count.add(&own);
    let mut way = vec![count.level(root)];
    while let Some((dir, children)) = way.last_mut() {
        let Some(child) = children.pop() else {
            way.pop();
            continue;
        };
        match open_dir(&*dir, &child) {
            Ok(fd) if way.len() < DEEPEST => way.push(count.level(fd)),
            Ok(_) | Err(_) => count.usage.complete = false,
        }
    }
    Ok(count.usage)
}

struct Count {
    device: u64,
    limit: u64,
    /// Inodes with several names that were counted.
    linked: BTreeSet<u64>,
    usage: TreeUsage,
}

impl Count {
    /// Counts what is in a directory, and names the directories among it.
    fn level(&mut self, dir: OwnedFd) -> (OwnedFd, Vec<OsString>) {
        let mut directories = Vec::new();
        let Ok(names) = list(dir.as_fd()) else {
            self.usage.complete = false;
            return (dir, directories);
        };
        for name in names {
            if self.usage.inodes >= self.limit {
                self.usage.complete = false;
                break;
            }
            let Ok(one) = stat_at(&dir, &name) else {
                self.usage.complete = false;
                continue;
            };
            if one.st_dev != self.device {
                continue;
            }
            self.add(&one);
            if one.st_mode & S_IFMT == S_IFDIR {
                directories.push(name);
            }
        }
        (dir, directories)
    }

    fn add(&mut self, one: &FileStat) {
        let directory = one.st_mode & S_IFMT == S_IFDIR;
        if !directory && one.st_nlink > 1 && !self.linked.insert(one.st_ino) {
            return;
        }
        self.usage.inodes += 1;
        let blocks = u64::try_from(one.st_blocks).unwrap_or(0);
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(512));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/b/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(path("a/b/file"), path("again")).unwrap();
        std::os::unix::fs::symlink("/", path("away")).unwrap();
        let usage = tree_usage(dir.path(), 1000).unwrap();
        // The root, a, b, the file, the link.
        assert_eq!((usage.inodes, usage.complete), (5, true));
        assert!((100_000..300_000).contains(&usage.bytes), "{usage:?}");
    }

    #[test]
    fn a_tree_larger_than_the_limit_or_too_deep_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..50 {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        let usage = tree_usage(dir.path(), 10).unwrap();
        assert_eq!((usage.inodes, usage.complete), (10, false));
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 100).collect();
        std::fs::create_dir_all(dir.path().join(deep)).unwrap();
        assert!(!tree_usage(dir.path(), 1000).unwrap().complete);
    }
}
