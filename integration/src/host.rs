//! Other kinds of host on this one: threads whose private mount namespace shows other cgroups.
//!
//! A program started from such a thread, and all it starts, takes the machine for such a host. The machine's own
//! mounts stay as they are.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// What /sys/fs/cgroup shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// What it shows anyway.
    AsIs,
    /// The v1 hierarchies alone; for tools that refuse a hybrid host, such as crun.
    V1,
    /// cgroup2 alone; on a host whose controllers are on v1, without controllers.
    V2,
}

// === impl Cgroups ===

impl Cgroups {
    /// A name for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cgroups::AsIs => "this host",
            Cgroups::V1 => "cgroup v1",
            Cgroups::V2 => "cgroup v2",
        }
    }

    /// Runs `action` on a thread of its own that sees these cgroups. Programs inherit its view.
    ///
    /// # Panics
    /// As `action` does, and when the namespace cannot be made.
    pub fn run<T: Send>(self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()
                    .unwrap_or_else(|error| panic!("a private view of {}: {error}", self.name()));
                action()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Changes what the calling thread sees, for good.
    fn enter(self) -> nix::Result<()> {
        let none: Option<&str> = None;
        if self == Cgroups::AsIs {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        if self == Cgroups::V1 {
            let unified = "/sys/fs/cgroup/unified";
            return match umount2(unified, MntFlags::MNT_DETACH) {
                Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno),
                // crun makes directories where the mount was: it gets a file system for them that goes with us.
                Ok(()) => mount(Some("none"), unified, Some("tmpfs"), MsFlags::empty(), none),
            };
        }
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
        let (kind, at) = (Some("cgroup2"), "/sys/fs/cgroup");
        mount(kind, at, kind, MsFlags::empty(), none)
    }
}
