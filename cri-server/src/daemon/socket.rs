//! The CRI socket: made with its final mode before anybody can see it, put in the place of a stale one, never in the
//! place of a live one or of anything that is no socket.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Group members may speak CRI; that is as good as root, so the group is root's until somebody changes it.
const SOCKET_MODE: u32 = 0o660;
/// For a directory that does not exist yet: others may pass through, not look around.
const DIRECTORY_MODE: u32 = 0o711;
/// How long a live but busy daemon may take to show that it is there.
const PROBE: Duration = Duration::from_secs(2);

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody listens there.
    #[error("{}: another process serves on this socket; stop it, or use another --run-dir and --socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it, or choose another --socket", .path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// No parent directory, or no file name.
    #[error("{} cannot be the path of a socket", .path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// A file operation.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
}

/// The socket in the file system. Dropping it removes the name, if it is still this socket's.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "remove the socket");
        }
    }
}

/// Listens on `path`.
///
/// The directory is locked from the first look until the new socket stands, so that of two daemons that start together
/// one sees the other's socket alive.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, Bound), Error> {
    let fail = |action| {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::BadPath {
            path: path.to_owned(),
        });
    };
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        .map_err(fail("make the directory of"))?;
    let directory = File::open(parent).map_err(fail("open the directory of"))?;
    directory.lock().map_err(fail("lock the directory of"))?;
    refuse_if_taken(path).await?;

    // Through the descriptor the path is short, however deep the directory lies: sun_path holds 108 bytes.
    let new_name = format!(".{}.new", name.to_string_lossy());
    let new = PathBuf::from(format!(
        "/proc/self/fd/{}/{new_name}",
        directory.as_raw_fd()
    ));
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(fail("remove what a dead daemon left beside")(e));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(fail("bind"))?;
    fs::set_permissions(&new, Permissions::from_mode(SOCKET_MODE))
        .map_err(fail("set the mode of"))?;
    let identity = identity(&new).map_err(fail("look at"))?;
    fs::rename(&new, parent.join(name)).map_err(fail("move into place"))?;
    Ok((
        listener,
        Bound {
            path: path.to_owned(),
            identity,
        },
    ))
}

/// A name without a listener behind it is stale and may be replaced.
async fn refuse_if_taken(path: &Path) -> Result<(), Error> {
    let fail = |action| {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(fail("look at"))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket {
            path: path.to_owned(),
        });
    }
    match tokio::time::timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a daemon that is gone");
            Ok(())
        }
        // It could not be reached for another reason: that is no proof that nobody is there.
        Ok(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => Err(fail("connect to")(e)),
        _ => Err(Error::InUse {
            path: path.to_owned(),
        }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests;
