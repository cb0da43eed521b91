//! Applies a layer archive to an empty directory, the way overlayfs wants to find it.
//!
//! **Invariants:** nothing is written outside the directory, whatever paths and links the archive has; no existing
//! file is ever opened for writing, so a hard or symbolic link made by one entry redirects no later one; owner, special
//! bits, attributes and times are set in the order in which the kernel does not take them back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use sys::Errno;
use sys::error::Error;
use sys::fs::{self, Mode, Node, OFlag, SFlag};

use super::content::{write_piece, write_sparse};
use super::dirs::Dirs;
use super::entry::{Entry, Kind, shown};
use super::error::ApplyError;
use super::limits::Limits;
use super::rules::{keeps, normal};
use super::stream::Stream;
use super::whiteout::{self, Mark};

/// What a layer turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Bytes that its files take, in whole blocks.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) inodes: u64,
    /// Directories that it has files in and does not describe. A layer below may describe them.
    pub(crate) implicit: BTreeSet<PathBuf>,
    /// Hard links whose target is in a layer below: `(link, target)`.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Whether it hides everything below it.
    pub(crate) opaque: bool,
    /// Whether it describes the root directory itself.
    pub(crate) root: bool,
    /// Extended attributes that the file system does not take.
    pub(crate) xattrs_skipped: u64,
}

/// Reads the archive to the end of `reader` and makes its entries in the directory `root`.
pub(crate) fn apply(
    reader: impl Read,
    root: OwnedFd,
    limits: &Limits,
) -> Result<Applied, ApplyError> {
    let mut stream = Stream::new(reader, limits);
    let mut layer = Layer::new(root, limits).map_err(|source| ApplyError::Write {
        entry: "/".into(),
        source,
    })?;
    while let Some(entry) = stream.next()? {
        layer.add(&entry, &mut stream)?;
    }
    stream.finish()?;
    layer.finish()
}

/// The layer being made.
struct Layer<'a> {
    dirs: Dirs,
    limits: &'a Limits,
    entries: u64,
    applied: Applied,
}

/// Where an entry goes.
struct Place<'a> {
    dir: Rc<OwnedFd>,
    name: &'a OsStr,
    /// The whole path in the layer, without leading or double slashes.
    path: &'a [u8],
}

impl<'a> Layer<'a> {
    fn new(root: OwnedFd, limits: &'a Limits) -> sys::Result<Layer<'a>> {
        fs::chmod(&root_handle(&root)?, Mode::from_bits_truncate(0o755))?;
        Ok(Layer {
            dirs: Dirs::new(root)?,
            limits,
            entries: 0,
            applied: Applied::default(),
        })
    }

    /// Makes one entry.
    fn add(&mut self, entry: &Entry, stream: &mut Stream<impl Read>) -> Result<(), ApplyError> {
        let path = self.check(entry)?;
        if entry.kind == Kind::Nothing {
            return Ok(());
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        if name.is_empty() {
            return self.add_root(entry);
        }
        let name = OsStr::from_bytes(name);
        let mark = whiteout::mark(name);
        if mark == Mark::Aufs {
            return Ok(());
        }
        let dir = self
            .dirs
            .make(parent)
            .map_err(|error| parent_error(entry, error))?;
        let place = Place {
            dir,
            name,
            path: &path,
        };
        match mark {
            Mark::None => self.make(entry, &place, stream),
            Mark::Hide(hidden) => {
                let made = whiteout::hide(&place.dir, hidden)
                    .map_err(|source| write_error(entry, source))?;
                self.applied.inodes += u64::from(made);
                Ok(())
            }
            Mark::Opaque => self.hide_all(entry, parent),
            Mark::Aufs => Ok(()),
            Mark::Bad => Err(refused(
                entry,
                "it is a whiteout of a name that no file can have",
            )),
        }
    }

    /// Checks an entry against the limits, and returns its path without slashes to spare.
    fn check(&mut self, entry: &Entry) -> Result<Vec<u8>, ApplyError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(refused(
                entry,
                &format!("the layer has more than {} entries", self.limits.entries),
            ));
        }
        if entry.path.contains(&0) {
            return Err(refused(entry, "its path contains a NUL"));
        }
        normal(&entry.path, self.limits).map_err(|reason| refused(entry, &reason))
    }

    /// `./`: the layer's directory itself.
    fn add_root(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if entry.kind != Kind::Directory {
            return Err(refused(entry, "only a directory can stand at the root"));
        }
        let handle = self.dirs.root().open_at(
            "/".as_ref(),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Mode::empty(),
        );
        let handle = handle.map_err(|source| write_error(entry, source))?;
        self.describe(entry, &handle)?;
        self.applied.root = true;
        self.dirs.stamp_later(b"/".to_vec(), entry.modified);
        Ok(())
    }

    /// `.wh..wh..opq`: nothing of the layers below shows in `parent`.
    fn hide_all(&mut self, entry: &Entry, parent: &[u8]) -> Result<(), ApplyError> {
        if parent.is_empty() {
            // overlayfs takes no such mark at the root: the layers below are left out of the mount instead.
            self.applied.opaque = true;
            return Ok(());
        }
        let handle = self.dirs.root().open_at(
            OsStr::from_bytes(parent).as_ref(),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Mode::empty(),
        );
        handle
            .and_then(|handle| fs::set_xattr(&handle, whiteout::OPAQUE, b"y"))
            .map_err(|source| write_error(entry, source))
    }

    /// Makes an ordinary entry.
    fn make(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        stream: &mut Stream<impl Read>,
    ) -> Result<(), ApplyError> {
        match &entry.kind {
            Kind::Directory => return self.make_directory(entry, place),
            Kind::HardLink(target) => return self.make_link(entry, place, target),
            Kind::File => return self.make_file(entry, place, stream),
            Kind::Symlink(target) => {
                self.replacing(entry, place, || {
                    fs::symlink(OsStr::from_bytes(target), &place.dir, place.name)
                })?;
            }
            Kind::Fifo => self.make_node(entry, place, Node::Fifo)?,
            // 0/0 is a whiteout already, as overlayfs itself archives it.
            Kind::Char(0, 0) => return self.make_node(entry, place, Node::Char(0, 0)),
            Kind::Char(major, minor) => self.make_node(entry, place, Node::Char(*major, *minor))?,
            Kind::Block(major, minor) => {
                self.make_node(entry, place, Node::Block(*major, *minor))?
            }
            Kind::Nothing => return Ok(()),
        }
        self.applied.inodes += 1;
        self.describe_at(entry, place)
    }

    fn make_node(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        node: Node,
    ) -> Result<(), ApplyError> {
        self.replacing(entry, place, || {
            fs::mknod(&place.dir, place.name, node, Mode::empty())
        })
    }

    fn make_directory(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), ApplyError> {
        let written = |error| write_error(entry, error);
        let made = fs::mkdir(&place.dir, place.name, Mode::S_IRWXU);
        match made {
            Ok(()) => self.applied.inodes += 1,
            Err(Error {
                errno: Errno::EEXIST,
                ..
            }) => self.reuse_directory(entry, place)?,
            Err(error) => return Err(written(error)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let handle = fs::open_at(&place.dir, place.name, flags, Mode::empty()).map_err(written)?;
        self.dirs
            .described(&place.dir, place.name)
            .map_err(written)?;
        self.describe(entry, &handle)?;
        self.dirs.stamp_later(place.path.to_vec(), entry.modified);
        Ok(())
    }

    /// Something is where a directory goes: keep a directory, replace the rest.
    fn reuse_directory(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), ApplyError> {
        let written = |error| write_error(entry, error);
        let stat = fs::stat_at(&place.dir, place.name).map_err(written)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            return Ok(());
        }
        let hidden = whiteout::is_whiteout(&place.dir, place.name).map_err(written)?;
        self.dirs.forget(place.path);
        fs::unlink(&place.dir, place.name).map_err(written)?;
        fs::mkdir(&place.dir, place.name, Mode::S_IRWXU).map_err(written)?;
        if hidden {
            whiteout::set_opaque(&place.dir, place.name).map_err(written)?;
        }
        Ok(())
    }

    fn make_file(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        stream: &mut Stream<impl Read>,
    ) -> Result<(), ApplyError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = None;
        self.replacing(entry, place, || {
            file = Some(fs::open_at(
                &place.dir,
                place.name,
                flags,
                Mode::S_IRUSR | Mode::S_IWUSR,
            )?);
            Ok(())
        })?;
        let Some(file) = file.map(File::from) else {
            return Ok(());
        };
        self.applied.inodes += 1;
        self.applied.bytes += entry.stored.next_multiple_of(4096);
        match &entry.sparse {
            None => write_piece(entry, &file, stream, 0, entry.stored)?,
            Some(sparse) => write_sparse(entry, &file, stream, sparse)?,
        }
        self.describe(entry, &file)?;
        fs::set_times(&file, entry.modified).map_err(|source| write_error(entry, source))
    }

    /// A second name for a file of this layer; for a file of a layer below it is noted, and made when those are known.
    fn make_link(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        target: &[u8],
    ) -> Result<(), ApplyError> {
        let target = normal(target, self.limits)
            .map_err(|reason| refused(entry, &format!("its link target: {reason}")))?;
        let (parent, name) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target[..slash], OsStr::from_bytes(&target[slash + 1..])),
            None => (&target[..0], OsStr::from_bytes(&target[..])),
        };
        if name.is_empty() || target == place.path {
            return Err(refused(
                entry,
                &format!("it is a hard link to {:?}", shown(&target)),
            ));
        }
        let dir = match self.dirs.open(parent) {
            Err(Error {
                errno: Errno::ENOENT | Errno::ENOTDIR,
                ..
            }) => return self.link_below(entry, place, &target),
            other => other.map_err(|source| write_error(entry, source))?,
        };
        match fs::stat_at(&dir, name) {
            Err(Error {
                errno: Errno::ENOENT,
                ..
            }) => return self.link_below(entry, place, &target),
            Err(source) => return Err(write_error(entry, source)),
            Ok(stat)
                if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR =>
            {
                return Err(refused(entry, "it is a hard link to a directory"));
            }
            Ok(stat) => {
                // Two names of one file already: replacing the one would only take it away.
                let same = fs::stat_at(&place.dir, place.name)
                    .is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino));
                if same {
                    return Ok(());
                }
            }
        }
        if whiteout::is_whiteout(&dir, name).map_err(|source| write_error(entry, source))? {
            return Err(refused(
                entry,
                "it is a hard link to a file that this layer deletes",
            ));
        }
        self.replacing(entry, place, || {
            fs::link(&dir, name, &place.dir, place.name)
        })
    }

    fn link_below(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        target: &[u8],
    ) -> Result<(), ApplyError> {
        self.clear(entry, place)?;
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        self.applied.links.push((path(place.path), path(target)));
        Ok(())
    }

    /// Runs `make`; where its name is taken, once more after clearing it.
    fn replacing(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        mut make: impl FnMut() -> sys::Result<()>,
    ) -> Result<(), ApplyError> {
        if !self.applied.links.is_empty() {
            let path = PathBuf::from(OsStr::from_bytes(place.path));
            self.applied.links.retain(|(link, _)| *link != path);
        }
        match make() {
            Err(Error {
                errno: Errno::EEXIST,
                ..
            }) => {}
            other => return other.map_err(|source| write_error(entry, source)),
        }
        self.clear(entry, place)?;
        make().map_err(|source| write_error(entry, source))
    }

    /// Takes away whatever has the entry's name: the last entry of a name wins.
    fn clear(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), ApplyError> {
        self.dirs.forget(place.path);
        fs::remove_tree(&place.dir, place.name).map_err(|source| write_error(entry, source))
    }

    /// Sets owner, permissions and attributes of an open file or directory. The owner comes first: changing it clears
    /// the special bits and the file capabilities.
    fn describe(&mut self, entry: &Entry, file: &impl AsFd) -> Result<(), ApplyError> {
        let written = |source| write_error(entry, source);
        fs::chown(file, entry.uid, entry.gid).map_err(written)?;
        fs::chmod(file, Mode::from_bits_truncate(entry.mode)).map_err(written)?;
        self.set_xattrs(entry, |key, value| fs::set_xattr(file, key, value))
    }

    /// The same for what cannot be opened.
    fn describe_at(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), ApplyError> {
        let written = |source| write_error(entry, source);
        fs::chown_at(&place.dir, place.name, entry.uid, entry.gid).map_err(written)?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            fs::chmod_at(&place.dir, place.name, Mode::from_bits_truncate(entry.mode))
                .map_err(written)?;
        }
        self.set_xattrs(entry, |key, value| {
            fs::set_xattr_at(&place.dir, place.name, key, value)
        })?;
        fs::set_times_at(&place.dir, place.name, entry.modified).map_err(written)
    }

    fn set_xattrs(
        &mut self,
        entry: &Entry,
        set: impl Fn(&std::ffi::CStr, &[u8]) -> sys::Result<()>,
    ) -> Result<(), ApplyError> {
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| keeps(key)) {
            match set(key, value) {
                Ok(()) => {}
                // Lost capabilities change what a program may do: an error. The rest is decoration.
                Err(Error {
                    errno: Errno::EOPNOTSUPP | Errno::EPERM,
                    ..
                }) if key.as_c_str() != c"security.capability" => {
                    self.applied.xattrs_skipped += 1;
                }
                Err(source) => return Err(write_error(entry, source)),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Applied, ApplyError> {
        self.dirs.stamp_all().map_err(|source| ApplyError::Write {
            entry: "/".into(),
            source,
        })?;
        // The root directory counts as well; a directory takes a block.
        self.applied.inodes += self.dirs.made + 1;
        self.applied.bytes += self.applied.inodes.saturating_mul(512);
        self.applied.implicit = std::mem::take(&mut self.dirs.implicit);
        Ok(self.applied)
    }
}

/// A handle of a directory that its `O_PATH` descriptor does not give.
fn root_handle(root: &OwnedFd) -> sys::Result<OwnedFd> {
    let beneath = sys::path::Root::from_fd(
        root.try_clone()
            .map_err(|error| Error::from_io(&error, "dup"))?,
    );
    beneath.open_at(
        "/".as_ref(),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
}

fn refused(entry: &Entry, reason: &str) -> ApplyError {
    ApplyError::Refused {
        entry: shown(&entry.path),
        reason: reason.to_owned(),
    }
}

pub(super) fn write_error(entry: &Entry, source: Error) -> ApplyError {
    ApplyError::Write {
        entry: shown(&entry.path),
        source,
    }
}

/// A parent that cannot be a directory is the archive's fault, a full disk is not.
fn parent_error(entry: &Entry, source: Error) -> ApplyError {
    match source.errno {
        Errno::ENOTDIR | Errno::EINVAL => {
            refused(entry, "something on the way to it is not a directory")
        }
        Errno::ELOOP => refused(entry, "symbolic links on the way to it form a loop"),
        Errno::ENAMETOOLONG => refused(entry, "links on the way to it make its path too long"),
        _ => write_error(entry, source),
    }
}
