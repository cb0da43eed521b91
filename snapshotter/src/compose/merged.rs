//! What overlayfs would show of a stack of layers, without mounting it.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sys::error::Error;
use sys::fs::{self, FileStat, Mode, OFlag, SFlag};
use sys::{Errno, Result};

/// How many symbolic links one path may lead through.
const MAX_LINKS: usize = 40;

/// A stack of layers.
pub(super) struct Merged {
    root: Rc<Vec<OwnedFd>>,
}

/// What a path is.
pub(super) enum Node {
    /// Nothing.
    Missing,
    /// A directory: those of the layers that it merges, the topmost first.
    Directory(Rc<Vec<OwnedFd>>),
    /// Anything else: `name` in the directory `dir` of one layer.
    Other {
        dir: OwnedFd,
        name: OsString,
        stat: FileStat,
    },
}

/// What a stat says the file is.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Whether it is a whiteout.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Whether a directory hides those of its name below.
pub(super) fn is_opaque(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    Ok(fs::get_xattr_at(dir, name, c"trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

/// Opens a directory for looking at it and into it.
pub(super) fn open(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    fs::open_at(
        dir,
        name,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
}

impl Merged {
    /// The stack of these directories, the topmost first.
    pub(super) fn new(layers: Vec<OwnedFd>) -> Merged {
        Merged {
            root: Rc::new(layers),
        }
    }

    /// What `path` is; symbolic links on the way are followed, one at its end is followed if `follow` says so. Returns
    /// the path without links as well.
    pub(super) fn find(&self, path: &Path, follow: bool) -> Result<(Node, PathBuf)> {
        let mut todo: Vec<OsString> = parts(path);
        let mut way = vec![self.root.clone()];
        let mut names: Vec<OsString> = vec![];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                if names.pop().is_some() {
                    way.pop();
                }
                continue;
            }
            let Some(here) = way.last() else { break };
            match step(here, &name)? {
                Node::Missing => return Ok((Node::Missing, rest(&names, name, todo))),
                Node::Directory(merged) => {
                    way.push(merged);
                    names.push(name);
                }
                Node::Other {
                    dir,
                    name: found,
                    stat,
                } => {
                    if kind(&stat) != SFlag::S_IFLNK || (todo.is_empty() && !follow) {
                        let node = if todo.is_empty() {
                            Node::Other {
                                dir,
                                name: found,
                                stat,
                            }
                        } else {
                            Node::Missing
                        };
                        return Ok((node, rest(&names, name, todo)));
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::new(
                            Errno::ELOOP,
                            format!("resolve {path:?} in the layers below"),
                        ));
                    }
                    let target = fs::readlink(&dir, &found)?;
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                        names.clear();
                    }
                    todo.extend(parts(Path::new(&target)));
                }
            }
        }
        let found = way.pop().unwrap_or_else(|| self.root.clone());
        Ok((Node::Directory(found), names.iter().collect()))
    }
}

fn parts(path: &Path) -> Vec<OsString> {
    let parts = path
        .as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .rev();
    parts
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect()
}

fn rest(names: &[OsString], name: OsString, todo: Vec<OsString>) -> PathBuf {
    names
        .iter()
        .cloned()
        .chain([name])
        .chain(todo.into_iter().rev())
        .collect()
}

/// What `name` is in a merged directory: the topmost layer that has it decides, directories merge down to the first
/// that is opaque or hidden.
fn step(dirs: &[OwnedFd], name: &OsStr) -> Result<Node> {
    let mut merged = vec![];
    for dir in dirs {
        let stat = match fs::stat_at(dir, name) {
            Err(error) if error.errno == Errno::ENOENT => continue,
            other => other?,
        };
        if is_whiteout(&stat) {
            break;
        }
        if kind(&stat) != SFlag::S_IFDIR {
            if merged.is_empty() {
                let dir = dir
                    .try_clone()
                    .map_err(|error| Error::from_io(&error, "dup"))?;
                return Ok(Node::Other {
                    dir,
                    name: name.to_owned(),
                    stat,
                });
            }
            break;
        }
        merged.push(open(dir, name)?);
        if is_opaque(dir, name)? {
            break;
        }
    }
    Ok(if merged.is_empty() {
        Node::Missing
    } else {
        Node::Directory(Rc::new(merged))
    })
}
