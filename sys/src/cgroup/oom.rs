//! Being told when the kernel kills for want of memory, and when the cgroup has ended.
//!
//! - v1: an eventfd, registered for `memory.oom_control` in `cgroup.event_control`; it also wakes when the cgroup goes
//!   (<https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control>).
//! - v2: inotify on `memory.events`, and on `cgroup.events`, whose `populated` falls to 0 with the last process.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Cgroup, Error, Result, Version, file};

/// A watch on a cgroup.
#[derive(Debug)]
pub struct OomWatch {
    dir: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1 {
        eventfd: EventFd,
        /// The kernel holds the event by this descriptor, too.
        _control: File,
    },
    V2 {
        inotify: Inotify,
        killed: u64,
    },
}

/// What a watch saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// Nothing that matters.
    Nothing,
    /// The cgroup ran out of memory.
    Oom,
    /// The cgroup is gone, or on v2 its last process.
    Ended,
}

impl Cgroup {
    /// Watches for the want of memory, and for the end of the cgroup. On v2 without the memory controller only the end
    /// is seen: nobody is killed there.
    ///
    /// # Errors
    /// A v1 host without the memory controller, or a watch that the kernel refuses.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        if let Some(node) = self.v1_controller("memory") {
            return watch_v1(&node.dir);
        }
        match self.v2() {
            Some(node) => watch_v2(&node.dir),
            None => Err(Error::NoController {
                controller: "memory",
                path: None,
            }),
        }
    }
}

fn watch_v1(dir: &Path) -> Result<OomWatch> {
    let path = dir.join("memory.oom_control");
    let control = File::open(&path).map_err(|e| Error::call("open", &path, file::errno(&e)))?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let eventfd = EventFd::from_value_and_flags(0, flags)
        .map_err(|errno| Error::call("eventfd", &path, errno))?;
    let pair = format!("{} {}", eventfd.as_fd().as_raw_fd(), control.as_raw_fd());
    file::write(dir, "cgroup.event_control", &pair)?;
    Ok(OomWatch {
        dir: dir.to_owned(),
        kind: Kind::V1 {
            eventfd,
            _control: control,
        },
    })
}

fn watch_v2(dir: &Path) -> Result<OomWatch> {
    let refused = |call: &'static str, path: PathBuf| move |errno| Error::call(call, &path, errno);
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .map_err(refused("inotify_init", dir.to_owned()))?;
    let watch = |name: &str| {
        let path = dir.join(name);
        inotify
            .add_watch(&path, AddWatchFlags::IN_MODIFY)
            .map_err(refused("inotify_add_watch", path))
    };
    watch("cgroup.events")?;
    match watch("memory.events") {
        Err(error) if error.is(Errno::ENOENT) => {}
        result => drop(result?),
    }
    Ok(OomWatch {
        dir: dir.to_owned(),
        kind: Kind::V2 {
            inotify,
            killed: killed(dir),
        },
    })
}

/// How many were killed so far; none where nobody counts.
fn killed(dir: &Path) -> u64 {
    file::read_key(dir, "memory.events", "oom_kill")
        .ok()
        .flatten()
        .unwrap_or_default()
}

impl OomWatch {
    /// Takes what has happened; to be called when the descriptor is readable.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn take(&mut self) -> Result<OomEvent> {
        let read = |dir: &Path, result: nix::Result<()>| match result {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::call("read", dir, errno)),
        };
        match &mut self.kind {
            Kind::V1 { eventfd, .. } => {
                let event = eventfd.read();
                let happened = event.is_ok();
                read(&self.dir, event.map(drop))?;
                Ok(if !self.dir.join("cgroup.event_control").exists() {
                    OomEvent::Ended
                } else if happened {
                    OomEvent::Oom
                } else {
                    OomEvent::Nothing
                })
            }
            Kind::V2 {
                inotify,
                killed: before,
            } => {
                read(&self.dir, inotify.read_events().map(drop))?;
                let now = killed(&self.dir);
                if now > *before {
                    *before = now;
                    return Ok(OomEvent::Oom);
                }
                let populated = file::read_key(&self.dir, "cgroup.events", "populated");
                Ok(match populated {
                    Ok(Some(0)) | Err(_) => OomEvent::Ended,
                    Ok(_) => OomEvent::Nothing,
                })
            }
        }
    }

    /// Whether the cgroup's directory is gone, which v2 does not tell.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.dir.exists()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::V1 { eventfd, .. } => eventfd.as_fd(),
            Kind::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

impl Cgroup {
    /// The directory and the version of the hierarchy that has a controller, for whoever reads its statistics. `""` is
    /// the v2 cgroup whatever its controllers.
    #[must_use]
    pub fn place(&self, controller: &str) -> Option<(&Path, Version)> {
        let node = if controller.is_empty() {
            self.v2()
        } else {
            self.controller(controller)
        };
        node.map(|node| (node.dir.as_path(), node.version))
    }
}
