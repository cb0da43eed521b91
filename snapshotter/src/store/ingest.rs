//! `<root>/ingest`: layers on their way in, and layers on their way out. Whatever is in it at a start is rubbish.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sys::fs::{Mode, OFlag};

use crate::error::{Error, IoContext};

/// The directory.
pub(crate) struct Ingest {
    path: PathBuf,
    handle: OwnedFd,
    next: AtomicU64,
}

/// A new directory in it, removed with all its contents unless it is moved away before.
pub(crate) struct IngestDir {
    ingest: Arc<Ingest>,
    name: OsString,
    moved: bool,
}

impl Ingest {
    /// Opens `<root>/ingest` and empties it.
    pub(super) fn open(root: &Path) -> Result<Ingest, Error> {
        let path = root.join("ingest");
        std::fs::create_dir_all(&path).on("create", &path)?;
        let handle: OwnedFd = File::open(&path).on("open", &path)?.into();
        for entry in std::fs::read_dir(&path).on("list", &path)? {
            let name = entry.on("list", &path)?.file_name();
            match sys::fs::remove_tree(&handle, &name) {
                // The last thread of the store before this one may still be deleting the same.
                Err(error) if error.errno() == sys::Errno::ENOENT => {}
                removed => removed?,
            }
        }
        Ok(Ingest {
            path,
            handle,
            next: AtomicU64::new(0),
        })
    }

    /// A name that nothing in here has.
    fn name(&self, what: &str) -> OsString {
        format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// Makes a new directory.
    pub(crate) fn make(self: &Arc<Ingest>) -> Result<IngestDir, Error> {
        let name = self.name("new");
        sys::fs::mkdir(&self.handle, &name, Mode::S_IRWXU)?;
        Ok(IngestDir {
            ingest: self.clone(),
            name,
            moved: false,
        })
    }

    /// A file without a name, gone when it is closed.
    pub(crate) fn unnamed_file(&self) -> Result<File, Error> {
        Ok(sys::fs::unnamed_file(&self.handle)?.into())
    }

    /// Moves `name` of `from` in here, to be deleted. `None`: there is no such thing.
    pub(crate) fn take(
        self: &Arc<Ingest>,
        from: &OwnedFd,
        name: &OsStr,
    ) -> Result<Option<IngestDir>, Error> {
        let target = self.name("old");
        match sys::fs::rename_new(from, name, &self.handle, &target) {
            Ok(()) => Ok(Some(IngestDir {
                ingest: self.clone(),
                name: target,
                moved: false,
            })),
            Err(error) if error.errno() == sys::Errno::ENOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes everything on this file system to its disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        Ok(sys::fs::syncfs(&self.handle)?)
    }
}

impl IngestDir {
    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.ingest.path.join(&self.name)
    }

    /// Makes the directory `fs` in it, and opens that.
    pub(crate) fn make_fs(&self) -> Result<OwnedFd, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let handle = sys::fs::open_at(&self.ingest.handle, &self.name, flags, Mode::empty())?;
        sys::fs::mkdir(&handle, OsStr::new("fs"), Mode::from_bits_truncate(0o755))?;
        Ok(sys::fs::open_at(
            &handle,
            OsStr::new("fs"),
            flags,
            Mode::empty(),
        )?)
    }

    /// Moves it to `name` in `target`. An existing `name` is an error, and this stays where it is.
    pub(crate) fn move_to(&mut self, target: &OwnedFd, name: &OsStr) -> Result<(), Error> {
        sys::fs::rename_new(&self.ingest.handle, &self.name, target, name)?;
        self.moved = true;
        Ok(())
    }

    /// Takes back a [`IngestDir::move_to`].
    pub(crate) fn move_back(&mut self, target: &OwnedFd, name: &OsStr) -> Result<(), Error> {
        sys::fs::rename_new(target, name, &self.ingest.handle, &self.name)?;
        self.moved = false;
        Ok(())
    }
}

impl Drop for IngestDir {
    fn drop(&mut self) {
        if self.moved {
            return;
        }
        if let Err(error) = sys::fs::remove_tree(&self.ingest.handle, &self.name) {
            // The next start tries again.
            tracing::warn!(path = %self.path().display(), %error, "an unfinished layer could not be removed");
        }
    }
}
