//! One layer that sets right what the layer under it left to its parents.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sys::error::Context;
use sys::fs::{self, FileStat, Mode, SFlag, Stamp};
use sys::{Errno, Result};

use super::merged::{Merged, Node, is_opaque, kind, open};
use crate::store::LayerRecord;
use crate::tar::ApplyError;

/// What a directory is like that no archive describes.
const DEFAULT_MODE: u32 = 0o755;

/// The layer being made.
pub(super) struct Fixup {
    /// The layer that leans on the others.
    own: OwnedFd,
    below: Merged,
    target: OwnedFd,
    implicit: BTreeSet<PathBuf>,
    inodes: u64,
    /// Times of the new directories, to be set when nothing is made in them any more.
    times: Vec<(PathBuf, Stamp)>,
}

impl Fixup {
    pub(super) fn new(own: OwnedFd, below: Merged, target: OwnedFd) -> Result<Fixup> {
        Ok(Fixup {
            own,
            below,
            target,
            implicit: BTreeSet::new(),
            inodes: 0,
            times: vec![],
        })
    }

    /// Makes everything that `record` notes. `None`: there is nothing to set right on this stack.
    pub(super) fn make(
        mut self,
        record: &LayerRecord,
    ) -> std::result::Result<Option<LayerRecord>, crate::Error> {
        self.implicit = record.implicit.iter().cloned().collect();
        let mut moved: Vec<PathBuf> = vec![];
        for path in &record.implicit {
            // What lies in a directory that was moved was moved with it.
            if moved.iter().any(|above| path.starts_with(above)) || self.hidden(path)? {
                continue;
            }
            match self.below.find(path, false)?.0 {
                Node::Missing => {}
                Node::Directory(merged) => {
                    if merged.first().map(is_special).transpose()?.unwrap_or(false) {
                        self.directory(path)?;
                    }
                }
                Node::Other { dir, name, stat } if kind(&stat) == SFlag::S_IFLNK => {
                    if self.follow(path, &dir, &name, &stat)? {
                        moved.push(path.clone());
                    }
                }
                // A file below is hidden by the directory here, as it would be replaced.
                Node::Other { .. } => {}
            }
        }
        for (link, target) in &record.links {
            self.link(link, target)?;
        }
        for (path, stamp) in std::mem::take(&mut self.times) {
            let dir = walk(&self.target, &path)?;
            fs::set_times(&dir, stamp)?;
        }
        let made = self.inodes > 0;
        let bytes = (self.inodes + 1).saturating_mul(512);
        Ok(made.then(|| LayerRecord {
            bytes,
            inodes: self.inodes + 1,
            ..LayerRecord::default()
        }))
    }

    /// Whether the layer hides what is below `path` itself, or has something else there by now.
    fn hidden(&self, path: &Path) -> Result<bool> {
        let mut dir = clone(&self.own)?;
        for name in path {
            match fs::stat_at(&dir, name) {
                Err(error) if error.errno == Errno::ENOENT => return Ok(true),
                Ok(stat) if kind(&stat) != SFlag::S_IFDIR => return Ok(true),
                other => other?,
            };
            if is_opaque(&dir, name)? {
                return Ok(true);
            }
            dir = open(&dir, name)?;
        }
        Ok(false)
    }

    /// The directory `path` in the new layer, with parents, each like the one that was described last: by the layer
    /// itself, or else by those below.
    fn directory(&mut self, path: &Path) -> Result<OwnedFd> {
        let mut here = clone(&self.target)?;
        let mut done = PathBuf::new();
        for name in path {
            done.push(name);
            match fs::mkdir(&here, name, Mode::S_IRWXU) {
                Ok(()) => {
                    self.inodes += 1;
                    let next = open(&here, name)?;
                    self.describe(&done, &next)?;
                    here = next;
                }
                Err(error) if error.errno == Errno::EEXIST => here = open(&here, name)?,
                Err(error) => return Err(error),
            }
        }
        Ok(here)
    }

    /// Gives the new directory `path` the metadata that it should have.
    fn describe(&mut self, path: &Path, new: &OwnedFd) -> Result<()> {
        if !self.implicit.contains(path)
            && let Some(own) = self.own_directory(path)?
        {
            return self.copy_metadata(&own, new, path);
        }
        match self.below.find(path, false)?.0 {
            Node::Directory(merged) if !merged.is_empty() => {
                self.copy_metadata(&merged[0], new, path)
            }
            _ => fs::chmod(new, Mode::from_bits_truncate(DEFAULT_MODE)),
        }
    }

    /// The directory `path` of the layer that leans.
    fn own_directory(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let mut dir = clone(&self.own)?;
        for name in path {
            dir = match open(&dir, name) {
                Err(error)
                    if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) =>
                {
                    return Ok(None);
                }
                other => other?,
            };
        }
        Ok(Some(dir))
    }

    /// `path` is a link to a directory below: the link stays, and what the layer has there goes where it leads.
    fn follow(
        &mut self,
        path: &Path,
        dir: &OwnedFd,
        name: &OsStr,
        stat: &FileStat,
    ) -> Result<bool> {
        let (Node::Directory(_), real) = self.below.find(path, true)? else {
            return Ok(false);
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let Some(link_name) = path.file_name() else {
            return Ok(false);
        };
        fs::symlink(&fs::readlink(dir, name)?, &parent, link_name)?;
        self.inodes += 1;
        fs::chown_at(&parent, link_name, stat.st_uid, stat.st_gid)?;
        fs::set_times_at(&parent, link_name, stamp(stat))?;
        let Some(from) = self.own_directory(path)? else {
            return Ok(false);
        };
        let to = self.directory(&real)?;
        self.graft(&from, path, &to, &real)?;
        Ok(true)
    }

    /// Links everything in the directory `from` of the layer into the new directory `to`.
    fn graft(
        &mut self,
        from: &OwnedFd,
        from_path: &Path,
        to: &OwnedFd,
        to_path: &Path,
    ) -> Result<()> {
        for name in names(from)? {
            let stat = fs::stat_at(from, &name)?;
            if kind(&stat) != SFlag::S_IFDIR {
                fs::link(from, &name, to, &name)?;
                self.inodes += 1;
                continue;
            }
            let (inner_from, inner_path, inner_to_path) = (
                open(from, &name)?,
                from_path.join(&name),
                to_path.join(&name),
            );
            fs::mkdir(to, &name, Mode::S_IRWXU)?;
            self.inodes += 1;
            let inner_to = open(to, &name)?;
            let described = if self.implicit.contains(&inner_path) {
                self.below.find(&inner_to_path, false)?.0
            } else {
                Node::Missing
            };
            match described {
                Node::Directory(merged) if !merged.is_empty() => {
                    self.copy_metadata(&merged[0], &inner_to, &inner_to_path)?
                }
                _ => self.copy_metadata(&inner_from, &inner_to, &inner_to_path)?,
            }
            if is_opaque(from, &name)? {
                fs::set_xattr(&inner_to, c"trusted.overlay.opaque", b"y")?;
            }
            self.graft(&inner_from, &inner_path, &inner_to, &inner_to_path)?;
        }
        Ok(())
    }

    /// Makes the new directory `to` like `from`. What overlayfs itself notes there is not part of that.
    fn copy_metadata(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<()> {
        let stat = fs::stat(from)?;
        fs::chown(to, stat.st_uid, stat.st_gid)?;
        fs::chmod(to, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
        for (key, value) in xattrs(from)? {
            if !key.to_bytes().starts_with(b"trusted.overlay.") {
                fs::set_xattr(to, &key, &value)?;
            }
        }
        self.times.push((path.to_owned(), stamp(&stat)));
        Ok(())
    }

    /// A hard link to a file of a layer below.
    fn link(&mut self, link: &Path, target: &Path) -> std::result::Result<(), crate::Error> {
        let refused = |reason: String| ApplyError::Refused {
            entry: link.display().to_string(),
            reason,
        };
        let (dir, name) = match self.below.find(target, false)?.0 {
            Node::Other { dir, name, .. } => (dir, name),
            Node::Directory(_) => {
                return Err(refused("it is a hard link to a directory".into()).into());
            }
            Node::Missing => {
                let reason = format!(
                    "it is a hard link to {:?}, which neither this layer nor one below it has",
                    target.display()
                );
                return Err(refused(reason).into());
            }
        };
        let parent = self.directory(link.parent().unwrap_or(Path::new("")))?;
        let Some(link_name) = link.file_name() else {
            return Ok(());
        };
        fs::remove_tree(&parent, link_name)?;
        fs::link(&dir, &name, &parent, link_name)?;
        self.inodes += 1;
        Ok(())
    }
}

/// Whether a directory differs from one that nobody described.
fn is_special(dir: &OwnedFd) -> Result<bool> {
    let stat = fs::stat(dir)?;
    let plain = stat.st_mode & 0o7777 == DEFAULT_MODE && stat.st_uid == 0 && stat.st_gid == 0;
    Ok(!plain
        || xattrs(dir)?
            .iter()
            .any(|(key, _)| !key.to_bytes().starts_with(b"trusted.overlay.")))
}

fn stamp(stat: &FileStat) -> Stamp {
    Stamp {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

fn xattrs(dir: &OwnedFd) -> Result<Vec<(std::ffi::CString, Vec<u8>)>> {
    let mut all = vec![];
    for key in fs::list_xattr(dir)? {
        if let Some(value) = fs::get_xattr(dir, &key)? {
            all.push((key, value));
        }
    }
    Ok(all)
}

fn names(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = fs::list(dir.as_fd())?;
    names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    Ok(names
        .into_iter()
        .map(|name| OsString::from_vec(name.into_vec()))
        .collect())
}

/// The directory `path` below `root`, which has no links in it.
fn walk(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    path.iter()
        .try_fold(clone(root)?, |dir, name| open(&dir, name))
}

fn clone(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().call(|| "dup".to_owned())
}
