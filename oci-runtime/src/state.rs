//! What is known of each container: one directory below the root directory, one versioned JSON file in it.
//!
//! ```text
//! <root>/<id>/state.json   written before anything is acquired, and again when the container is created
//!             exec.fifo    the gate: there from created until started
//!             seccomp.bpf  the filter, where there is one, for `exec`
//! ```
//! The status is not stored: it follows from the process, the gate and the freezer, so it cannot go stale.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use sys::cgroup::{Cgroup, Hierarchies};
use sys::seccomp::FilterFlags;

use crate::error::{Error, Result, Within};
use crate::id::ContainerId;
use crate::plan::ExecDefaults;
use crate::seccomp::{Listener, SeccompPlan, stored};
use crate::spec::Hooks;
use crate::systemd::UnitState;

/// The format of the file.
const VERSION: u32 = 1;

/// The contents of `state.json`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The format of the file.
    pub version: u32,
    /// The version of the spec that the container's configuration follows.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Its first process; 0 while it is being created.
    pub pid: i32,
    /// When that process started, so that a later one with the same id is not taken for it.
    pub start_time: u64,
    /// The directory of the bundle.
    pub bundle: PathBuf,
    /// Its configuration, where that is not the `config.json` of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The directory of the root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The user who created it.
    pub owner: u32,
    /// Free text of the configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Its cgroup, one directory per controller.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The unit of systemd that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<UnitState>,
    /// Its resource control group, of a container with `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::rdt::Rdt>,
    /// The namespaces that it does not share with the runtime, as `CLONE_NEW…` flags.
    pub namespaces: i32,
    /// Whether its mount namespace is not its own: then its root is not that of the namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_mounts: bool,
    /// Whether the pid namespace was made for it: then the end of its first process ends all others.
    pub own_pid_namespace: bool,
    /// Whether `noNewPrivileges` was set.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// How the filter of its processes is loaded, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<FilterState>,
    /// Hooks that run later.
    #[serde(default)]
    pub hooks: Hooks,
    /// What `exec` gives to processes that say nothing else.
    #[serde(default)]
    pub exec_defaults: ExecDefaults,
}

/// What is known of a container's filter besides its program, which has a file of its own.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct FilterState {
    /// `SECCOMP_FILTER_FLAG_…`
    pub flags: u32,
    /// Who answers for some calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// Where a container is in its life, in the words of the spec and runc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` has not returned yet.
    Creating,
    /// Waits for `start`.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The containers below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one container.
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The gate of one container.
    pub fn fifo(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join("exec.fifo")
    }

    /// Takes the id: makes its directory.
    ///
    /// # Errors
    /// "container with given ID already exists".
    pub fn reserve(&self, id: &ContainerId) -> Result<()> {
        let dir = self.dir(id);
        let make = |dir: &Path, mode| std::fs::DirBuilder::new().mode(mode).create(dir);
        let made = match make(&dir, 0o711) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(&self.root)
                    .and_then(|()| make(&dir, 0o711))
            }
            other => other,
        };
        made.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new("container with given ID already exists")
            }
            _ => Error::from(sys::Error::from_io(&error, format!("mkdir({dir:?}, 0711)")))
                .hint("the state of containers must be writable; --root DIR says where it is"),
        })
    }

    /// Says that the container is being made, until what is returned is dropped or this process and the container's first
    /// one have ended.
    ///
    /// # Errors
    /// The directory is gone.
    pub fn hold(&self, id: &ContainerId) -> Result<Flock<File>> {
        let dir = self.dir(id);
        let open = File::open(&dir)
            .map_err(|error| sys::Error::from_io(&error, format!("open({dir:?})")))?;
        // Nobody else makes it; who asks whether somebody does has it for a moment.
        Flock::lock(open, FlockArg::LockExclusive)
            .map_err(|(_, errno)| sys::Error::new(errno, format!("flock({dir:?})")).into())
    }

    /// Whether somebody is making this container.
    pub fn is_held(&self, id: &ContainerId) -> bool {
        File::open(self.dir(id)).is_ok_and(|open| {
            let lock = Flock::lock(open, FlockArg::LockExclusiveNonblock);
            matches!(lock, Err((_, Errno::EWOULDBLOCK)))
        })
    }

    /// Makes the gate.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn make_fifo(&self, id: &ContainerId) -> Result<()> {
        let path = self.fifo(id);
        // 0622: the container's root may be nobody special here, and opens it for writing.
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o622))
            .map_err(|errno| sys::Error::new(errno, format!("mkfifo({path:?}, 0622)")).into())
    }

    /// Keeps the filter of a container for `exec`, for its owner only.
    ///
    /// # Errors
    /// The directory is not writable, or full.
    pub fn save_filter(&self, id: &ContainerId, filter: &SeccompPlan) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.filter(id);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&stored::encode(&filter.program)))
            .map_err(|error| sys::Error::from_io(&error, format!("write({path:?})")).into())
    }

    /// The filter of a container, as its first process has it.
    ///
    /// # Errors
    /// The file is gone, or not what was written.
    pub fn load_filter(&self, id: &ContainerId, state: &State) -> Result<Option<SeccompPlan>> {
        let Some(known) = &state.seccomp else {
            return Ok(None);
        };
        let path = self.filter(id);
        let bytes = std::fs::read(&path)
            .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))?;
        let program = stored::decode(&bytes).filter(|program| !program.is_empty());
        let program =
            program.ok_or_else(|| Error::new(format!("{}: is no filter", path.display())))?;
        Ok(Some(SeccompPlan {
            program,
            flags: FilterFlags::from_bits_retain(known.flags),
            listener: known.listener.clone(),
        }))
    }

    fn filter(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join("seccomp.bpf")
    }

    /// Writes the state, replacing an older one in one step.
    ///
    /// # Errors
    /// The directory is not writable, or full.
    pub fn save(&self, id: &ContainerId, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state)
            .map_err(|error| Error::new(format!("state.json: {error}")))?;
        write_atomically(&self.dir(id).join("state.json"), &text)
    }

    /// Reads the state.
    ///
    /// # Errors
    /// "container does not exist".
    pub fn load(&self, id: &ContainerId) -> Result<State> {
        let path = self.dir(id).join("state.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(format!(
                    "container {:?} does not exist",
                    id.as_str()
                )));
            }
            Err(error) => return Err(sys::Error::from_io(&error, format!("read({path:?})")).into()),
        };
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| Error::new(format!("{}: {error}", path.display())))
            .map_err(|error| error.hint("this state was not written by davit-oci; is --root the directory of another runtime?"))?;
        if state.version == VERSION {
            return Ok(state);
        }
        Err(Error::new(format!(
            "{}: format {} is not {VERSION}",
            path.display(),
            state.version
        ))
        .hint("this container was made by another version of davit-oci; use that one to delete it"))
    }

    /// The ids of all containers, sorted; those of broken directories too.
    ///
    /// # Errors
    /// The directory cannot be read. A missing one is an empty list.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let read = || format!("readdir({:?})", self.root);
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(sys::Error::from_io(&error, read()).into()),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| sys::Error::from_io(&error, read()))?;
            if entry.path().is_dir()
                && let Some(id) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| ContainerId::new(name).ok())
            {
                ids.push(id);
            }
        }
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }

    /// Forgets a container; success where it is gone already.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn remove(&self, id: &ContainerId) -> Result<()> {
        let dir = self.dir(id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(sys::Error::from_io(&error, format!("remove({dir:?})")).into())
            }
            _ => Ok(()),
        }
    }

    /// Where the container is in its life.
    ///
    /// # Errors
    /// The freezer cannot be read.
    pub fn status(&self, id: &ContainerId, state: &State) -> Result<Status> {
        if state.pid == 0 {
            return Ok(Status::Creating);
        }
        if !state.is_alive() {
            return Ok(Status::Stopped);
        }
        if state.is_frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.fifo(id).exists() {
            Status::Created
        } else {
            Status::Running
        })
    }
}

impl State {
    /// The state of a container that is about to be made from `plan`.
    pub fn creating(id: &ContainerId, plan: &crate::plan::Plan, cgroup: &Cgroup) -> Self {
        let namespaces = plan
            .namespaces
            .join
            .iter()
            .fold(plan.namespaces.new, |flags, (kind, _)| flags | kind.flag());
        Self {
            version: VERSION,
            oci_version: plan.oci_version.clone(),
            id: id.as_str().to_owned(),
            pid: 0,
            start_time: 0,
            bundle: plan.bundle.clone(),
            config: None,
            rootfs: plan.rootfs.clone(),
            created: crate::time::now(),
            owner: nix::unistd::geteuid().as_raw(),
            annotations: plan.annotations.clone(),
            cgroup_paths: cgroup.paths(),
            systemd: None,
            rdt: None,
            namespaces: namespaces.bits(),
            shares_mounts: !plan.namespaces.is_new(sys::namespace::NamespaceKind::Mnt),
            own_pid_namespace: plan.namespaces.is_new(sys::namespace::NamespaceKind::Pid),
            no_new_privileges: plan.process.no_new_privileges,
            seccomp: plan.seccomp.as_ref().map(|filter| FilterState {
                flags: filter.flags.bits(),
                listener: filter.listener.clone(),
            }),
            hooks: Hooks {
                start_container: Vec::new(),
                poststart: plan.hooks.poststart.clone(),
                poststop: plan.hooks.poststop.clone(),
                ..Hooks::default()
            },
            exec_defaults: plan.exec_defaults.clone(),
        }
    }

    /// The container's first process.
    pub fn init(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Whether the first process is there, is the same, and has not ended.
    pub fn is_alive(&self) -> bool {
        self.pid > 0
            && sys::process::stat(self.init())
                .is_ok_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }

    /// A descriptor of the first process, if it is still that one and has not ended.
    ///
    /// # Errors
    /// "container not running".
    pub fn open_init(&self) -> Result<std::os::fd::OwnedFd> {
        let gone = || Error::new("container not running");
        if self.pid <= 0 {
            return Err(gone());
        }
        let pidfd = sys::process::pidfd_open(self.init()).map_err(|_| gone())?;
        // Only now: from here on the descriptor and the id mean the same process.
        if self.is_alive() {
            Ok(pidfd)
        } else {
            Err(gone())
        }
    }

    /// The container's cgroup.
    ///
    /// # Errors
    /// No cgroup filesystem is mounted.
    pub fn cgroup(&self) -> Result<Cgroup> {
        if self.cgroup_paths.is_empty() {
            return Ok(Cgroup::none());
        }
        let hierarchies = Hierarchies::detect()?;
        Ok(Cgroup::from_paths(&hierarchies, &self.cgroup_paths))
    }

    fn is_frozen(&self) -> Result<bool> {
        // One file tells, and its path is known: no need to look at all mounts.
        if let Some(dir) = self.cgroup_paths.get("freezer") {
            let state = std::fs::read_to_string(dir.join("freezer.state")).unwrap_or_default();
            return Ok(matches!(state.trim(), "FROZEN" | "FREEZING"));
        }
        if let Some(dir) = self.cgroup_paths.get("") {
            let events = std::fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            return Ok(events.lines().any(|line| line == "frozen 1"));
        }
        Ok(false)
    }

    /// The state as hooks and `state` report it, <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>.
    pub fn report(&self, status: Status) -> Report<'_> {
        let pid = if status == Status::Stopped {
            0
        } else {
            self.pid
        };
        Report {
            oci_version: &self.oci_version,
            id: &self.id,
            pid,
            status: status.as_str(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner: "",
        }
    }

    /// The state that a hook reads.
    pub fn hook_input(&self, status: Status) -> Vec<u8> {
        // These types cannot fail to serialize; a hook would read an empty document.
        serde_json::to_vec(&self.hook_state(status)).unwrap_or_default()
    }

    /// The state as the spec has it, for who is told of the container.
    pub fn hook_state(&self, status: Status) -> HookState<'_> {
        HookState {
            oci_version: &self.oci_version,
            id: &self.id,
            status: status.as_str(),
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}

/// What `state` prints; `list` prints several. The order of the fields is runc's.
#[derive(Debug, serde::Serialize)]
pub struct Report<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// The name of the user who made it, in lists.
    pub owner: &'a str,
}

/// The state that the spec defines.
#[derive(Debug, serde::Serialize)]
pub struct HookState<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// Writes a file so that a reader sees the old or the new content, never a part.
///
/// # Errors
/// The directory is not writable, or full; the old file stays.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = std::fs::write(&temporary, content)
        .map_err(|error| sys::Error::from_io(&error, format!("write({temporary:?})")))
        .and_then(|()| {
            std::fs::rename(&temporary, path).map_err(|error| {
                sys::Error::from_io(&error, format!("rename({temporary:?}, {path:?})"))
            })
        });
    if write.is_err() {
        // Already failing: the error that matters is the first one.
        drop(std::fs::remove_file(&temporary));
    }
    write.within(|| format!("{}", path.display()))
}
