//! Containers for programs that link this crate: load a bundle, plan, create, start, wait, delete.
//!
//! ```no_run
//! use oci_runtime::container::{Bundle, Runtime};
//!
//! let runtime = Runtime::new("/run/my-program");
//! let bundle = Bundle::load("/bundles/web")?;
//! let plan = runtime.plan("web", &bundle)?;
//! let container = runtime.create("web", &plan)?;
//! container.start()?;
//! let exit = container.wait()?;
//! container.delete()?;
//! println!("ended with {}", exit.code());
//! # Ok::<(), oci_runtime::error::Error>(())
//! ```
//!
//! The command line is made of the same steps, and containers of either can be managed by the other: they meet in the
//! state directory.
//!
//! **The caller has one thread.** [`Runtime::create`] forks, and the child does more than async-signal-safe work
//! before its `execve`: of a program with several threads it would hold copies of locks whose owners are gone.
use std::path::{Path, PathBuf};

use sys::process::Exit;

use crate::cli::Global;
use crate::error::{Error, Result, Within};
use crate::exe;
use crate::id::ContainerId;
use crate::log::Log;
use crate::plan::Plan;
use crate::plan::cgroup::Manager;
use crate::spec::Spec;
use crate::state::{Status, Store};
use crate::verbs::create::{self, Created, Options};
use crate::verbs::{delete, kill, start};

/// A directory with a `config.json`.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    /// The configuration, to be read or changed before it is planned.
    pub spec: Spec,
}

/// Where containers are kept, and how they are made.
#[derive(Debug, Clone)]
pub struct Runtime {
    global: Global,
}

/// A container that this program created.
pub struct Container {
    global: Global,
    id: ContainerId,
    created: Created,
}

// === impl Bundle ===

impl Bundle {
    /// Reads `config.json` of the bundle in `dir`.
    ///
    /// # Errors
    /// A missing directory or file, and JSON that is none or does not fit the specification.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let dir = crate::paths::canonical(dir)
            .map_err(|error| sys::Error::from_io(&error, format!("realpath({dir:?})")))?;
        let spec = create::read_spec(&dir.join("config.json"))?;
        Ok(Self { dir, spec })
    }

    /// The directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

// === impl Runtime ===

impl Runtime {
    /// Keeps containers below `root`, which is made when it is needed; best on tmpfs. Cgroups are made directly.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let global = Global {
            store: Store::new(root.into()),
            explicit_root: true,
            log: Log::default(),
            rootless: !nix::unistd::geteuid().is_root(),
            cgroup_manager: Manager::default(),
        };
        Self { global }
    }

    /// The same with another manager of cgroups.
    #[must_use]
    pub fn with_cgroup_manager(mut self, manager: Manager) -> Self {
        self.global.cgroup_manager = manager;
        self
    }

    /// Decides on everything that the bundle says. Touches nothing.
    ///
    /// # Errors
    /// An id that is none, and every bad field of the configuration, each by its name.
    pub fn plan(&self, id: &str, bundle: &Bundle) -> Result<Plan> {
        let id = ContainerId::new(id)?;
        let manager = self.global.cgroup_manager;
        Ok(Plan::with_manager(
            manager,
            id.as_str(),
            &bundle.dir,
            &bundle.spec,
        )?)
    }

    /// Makes the container: lifecycle steps 1 to 5. Its program waits for [`Container::start`], with the standard
    /// streams of the caller.
    ///
    /// # Errors
    /// Why not; nothing is left behind. `process.terminal` needs `davit-oci`, and so do `startContainer` hooks and
    /// containers without a new pid namespace: they must run from a file that they cannot write to, and a library
    /// cannot start its program again to see to that.
    pub fn create(&self, id: &str, plan: &Plan) -> Result<Container> {
        let id = ContainerId::new(id)?;
        if plan.process.terminal {
            return Err(
                Error::new("process.terminal: not supported by the library").hint("use davit-oci")
            );
        }
        let mut options = Options::in_bundle(plan.bundle.clone());
        options.doorkeeper = exe::doorkeeper_for_library(plan)?;
        let created = create::create(&self.global, &id, plan, &options, None)
            .within(|| format!("create {:?}", id.as_str()))?;
        Ok(Container {
            global: self.global.clone(),
            id,
            created,
        })
    }
}

// === impl Container ===

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The id of its first process.
    pub fn pid(&self) -> i32 {
        self.created.state.pid
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// The freezer cannot be read.
    pub fn status(&self) -> Result<Status> {
        self.global.store.status(&self.id, &self.created.state)
    }

    /// Runs its program: lifecycle steps 6 to 9.
    ///
    /// # Errors
    /// It was started before, or has ended; a failing `poststart` hook ends it.
    pub fn start(&self) -> Result<()> {
        start::open(&self.global.store, &self.id, &self.created.state)
            .and_then(|()| start::poststart(&self.global, &self.created.state))
            .within(|| format!("start {:?}", self.id.as_str()))
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// "container not running".
    pub fn kill(&self, signal: i32) -> Result<()> {
        kill::one(&self.created.state, signal).within(|| format!("kill {:?}", self.id.as_str()))
    }

    /// Waits until its first process has ended.
    ///
    /// # Errors
    /// Somebody else has reaped it (`ECHILD`).
    pub fn wait(&self) -> Result<Exit> {
        Ok(sys::process::wait(&self.created.child.pidfd)?)
    }

    /// Ends what still runs, and removes all of it: lifecycle steps 11 to 13.
    ///
    /// # Errors
    /// What could not be removed; the container is still known then, and this can be tried again.
    pub fn delete(&self) -> Result<()> {
        delete::run(&self.global, &self.id, true)
            .map(drop)
            .within(|| format!("delete {:?}", self.id.as_str()))
    }
}
