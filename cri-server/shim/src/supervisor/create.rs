//! `create`: pipes or a console socket, the runtime's `create`, the init's process id.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sys::cgroup::{Cgroup, CgroupPath};
use sys::error::Context;
use sys::{process, socket};

use super::commands::{self, Command, Invocation, Log, Purpose};
use super::connections::ReplyTo;
use super::containers::{Container, Phase, separate};
use super::{Supervisor, Token, UNKNOWN, is_ours, wire, words};
use crate::launch;
use crate::log::{LogFile, Source};
use crate::protocol::{Create, Created, ErrorKind, WireError};

/// The longest socket path that any runtime can connect to.
const SUN_PATH_MAX: usize = 107;

/// Waits for the terminal of a container that is being created.
pub(super) struct Console {
    listener: OwnedFd,
    path: PathBuf,
    /// Keeps the short name of a long path valid.
    directory: File,
}

/// The one field of `config.json` that matters here; the runtime reads the rest.
#[derive(Deserialize)]
struct Config {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

/// What the runtime gets as stdio, to be closed here when it runs.
struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Supervisor {
    pub(super) fn create(&mut self, reply: ReplyTo, create: Create) {
        if let Err(error) = self.begin_create(reply, create) {
            self.reply(reply, Err(error));
        }
    }

    fn begin_create(&mut self, reply: ReplyTo, create: Create) -> Result<(), WireError> {
        self.check(&create)?;
        let internal = |error: sys::Error| wire(ErrorKind::Internal, error.to_string());
        for stale in ["exit", "init.pid", "runtime.log"] {
            launch::remove(&create.bundle.join(stale)).map_err(internal)?;
        }
        let log = LogFile::open(create.log_path.as_deref()).map_err(internal)?;
        let serial = self.serial();
        let mut container = Container::new(
            serial,
            create.container_id.clone(),
            create.runtime.clone(),
            create.bundle.clone(),
            log,
        );
        container.terminal = create.terminal;
        container.cgroup = self.planned_cgroup(&create.bundle);
        self.containers.push(container);
        let begun = self.run_create(serial, reply, &create);
        if begun.is_err() {
            self.drop_container(serial);
        }
        begun
    }

    fn check(&self, create: &Create) -> Result<(), WireError> {
        let invalid = |message: String| Err(wire(ErrorKind::Invalid, message));
        if !is_id(&create.container_id) {
            return invalid(format!(
                "container id {:?}: not a file name of letters, digits, '_', '+', '-', '.'",
                create.container_id
            ));
        }
        if self.container(&create.container_id).is_some() {
            return Err(wire(
                ErrorKind::AlreadyExists,
                format!("container \"{}\" exists already", create.container_id),
            ));
        }
        for path in [&create.bundle, &create.runtime.path]
            .into_iter()
            .chain(&create.log_path)
        {
            if !path.is_absolute() {
                return invalid(format!(
                    "create \"{}\": {path:?} is not an absolute path",
                    create.container_id
                ));
            }
        }
        if !create.bundle.is_dir() {
            return invalid(format!(
                "create \"{}\": the bundle {:?} is not a directory",
                create.container_id, create.bundle
            ));
        }
        Ok(())
    }

    fn run_create(
        &mut self,
        serial: u64,
        reply: ReplyTo,
        create: &Create,
    ) -> Result<(), WireError> {
        let internal = |error: sys::Error| {
            wire(
                ErrorKind::Internal,
                format!("create \"{}\": {error}", create.container_id),
            )
        };
        let pid_file = create.bundle.join("init.pid");
        let mut arguments: Vec<OsString> = vec![
            "--bundle".into(),
            create.bundle.clone().into(),
            "--pid-file".into(),
            pid_file.clone().into(),
        ];
        let console = if create.terminal {
            Some(Console::listen(&create.bundle, "console.sock").map_err(internal)?)
        } else {
            None
        };
        if let Some(console) = &console {
            arguments.extend(["--console-socket".into(), console.address().into()]);
        }
        arguments.extend(create.create_args.iter().map(OsString::from));
        arguments.push(create.container_id.clone().into());
        let stdio = self.make_stdio(serial, create).map_err(internal)?;
        let started = commands::start(Invocation {
            runtime: &create.runtime,
            verb: "create",
            log: Log::Keep(create.bundle.join("runtime.log")),
            arguments,
            stdio: Some([
                stdio.stdin.as_fd(),
                stdio.stdout.as_fd(),
                stdio.stderr.as_fd(),
            ]),
        })?;
        drop(stdio);
        self.watch(
            started,
            (serial, &create.container_id),
            Purpose::Create { pid_file, console },
            Some(reply),
        );
        Ok(())
    }

    /// Pipes; with a terminal only stderr, which is the runtime's own until the container has its terminal.
    fn make_stdio(&mut self, serial: u64, create: &Create) -> sys::Result<Stdio> {
        let null = || {
            File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .call(|| "open(\"/dev/null\", O_RDWR)".into())
        };
        let (stderr_read, stderr) = sys::fd::pipe()?;
        self.watch_output(serial, Source::Stderr, stderr_read)?;
        if create.terminal {
            return Ok(Stdio {
                stdin: null()?.into(),
                stdout: null()?.into(),
                stderr,
            });
        }
        let (stdout_read, stdout) = sys::fd::pipe()?;
        self.watch_output(serial, Source::Stdout, stdout_read)?;
        let stdin = if create.stdin {
            let (stdin, ours) = sys::fd::pipe()?;
            if let Some(container) = self.by_serial(serial) {
                container.stdin = Some(ours);
            }
            stdin
        } else {
            null()?.into()
        };
        Ok(Stdio {
            stdin,
            stdout,
            stderr,
        })
    }

    /// The cgroup that `config.json` names, if it is not there yet: what a creation that hangs will have put its
    /// processes in.
    fn planned_cgroup(&mut self, bundle: &Path) -> Option<Cgroup> {
        let text = fs::read(bundle.join("config.json")).ok()?;
        let path = serde_json::from_slice::<Config>(&text)
            .ok()?
            .linux?
            .cgroups_path?;
        if !path.starts_with('/') {
            return None;
        }
        let path = CgroupPath::new(&path).ok()?;
        let hierarchies = self.hierarchies()?;
        let cgroup = Cgroup::new(hierarchies, &path);
        if cgroup.exists() {
            return None;
        }
        let shim: BTreeMap<String, PathBuf> =
            Cgroup::of_process(hierarchies, i32::try_from(std::process::id()).ok()?)
                .ok()?
                .paths();
        separate(hierarchies, cgroup.paths(), &shim)
    }

    pub(super) fn create_ended(&mut self, command: Command, result: Result<(), WireError>) {
        let Command {
            container: serial,
            container_id,
            purpose,
            reply,
            ..
        } = command;
        let Purpose::Create { pid_file, console } = purpose else {
            return;
        };
        let outcome = result.and_then(|()| self.adopt(serial, &container_id, &pid_file, console));
        match outcome {
            Ok(pid) => {
                self.reply_if(
                    reply,
                    serde_json::to_value(Created { pid })
                        .map_err(|error| wire(ErrorKind::Internal, error.to_string())),
                );
                match self.ended_already(pid) {
                    Some(stray) => self.init_ended(serial, stray.ended),
                    None => self.watch_foreign(serial, pid),
                }
            }
            Err(error) => self.undo_create(serial, reply, error),
        }
    }

    /// The runtime succeeded: the init is our child now.
    fn adopt(
        &mut self,
        serial: u64,
        id: &str,
        pid_file: &Path,
        console: Option<Console>,
    ) -> Result<i32, WireError> {
        let pid = words::read_pid(pid_file)?;
        if let Some(console) = console {
            let master = console
                .receive()
                .map_err(|error| wire(ErrorKind::Runtime, format!("create \"{id}\": {error}")))?;
            self.watch_output(serial, Source::Stdout, master)
                .map_err(|error| wire(ErrorKind::Internal, format!("create \"{id}\": {error}")))?;
        }
        self.hierarchies();
        let hierarchies = self.hierarchies.take();
        if let Some(container) = self.by_serial(serial) {
            container.pid = pid;
            container.phase = Phase::Created;
            container.early = Vec::new();
            if let Some(hierarchies) = &hierarchies {
                container.remember_cgroup(hierarchies);
            }
        }
        self.hierarchies = hierarchies;
        Ok(pid)
    }

    /// An init that did not become our child sends us no SIGCHLD; its pidfd tells of its end, though not how it was.
    fn watch_foreign(&mut self, serial: u64, pid: i32) {
        let pid = sys::Pid::from_raw(pid);
        if process::stat(pid).is_ok_and(|stat| is_ours(&stat)) {
            return;
        }
        let watched = process::pidfd_open(pid).and_then(|pidfd| {
            self.epoll.add(&pidfd, Token::Foreign(serial).encode())?;
            Ok(pidfd)
        });
        match watched {
            Ok(pidfd) => {
                if let Some(container) = self.by_serial(serial) {
                    container.foreign = Some(pidfd);
                }
            }
            // It ended since.
            Err(_) => self.init_ended(serial, UNKNOWN),
        }
    }

    /// Leaves nothing of a failed creation. A runtime that failed by itself has cleaned up; one that was killed, or whose
    /// success is of no use, has not: it is told to delete, and the client hears of the failure after that.
    fn undo_create(&mut self, serial: u64, reply: Option<ReplyTo>, error: WireError) {
        let Some(container) = self
            .containers
            .iter()
            .find(|container| container.serial == serial)
        else {
            self.reply_if(reply, Err(error));
            return;
        };
        container.kill_rest();
        let exists = matches!(error.kind, ErrorKind::Runtime) && error.message.contains("exist");
        let started = if exists {
            Err(error.clone())
        } else {
            delete_by_force(container)
        };
        match started {
            Ok(started) => {
                let id = container.id.clone();
                self.watch(started, (serial, &id), Purpose::UndoCreate(error), reply);
            }
            Err(_) => {
                self.drop_container(serial);
                self.reply_if(reply, Err(error));
            }
        }
    }

    pub(super) fn undo_create_ended(&mut self, command: Command) {
        let Purpose::UndoCreate(error) = command.purpose else {
            return;
        };
        if let Some(container) = self
            .containers
            .iter()
            .find(|container| container.serial == command.container)
        {
            container.kill_rest();
            if let Some(cgroup) = &container.cgroup {
                // Runtimes leave the cgroup of a container that they have no record of.
                drop(cgroup.remove_within(std::time::Duration::ZERO));
            }
        }
        self.drop_container(command.container);
        self.reply_if(command.reply, Err(error));
    }
}

fn delete_by_force(container: &Container) -> Result<commands::Started, WireError> {
    commands::start(Invocation {
        runtime: &container.runtime,
        verb: "delete",
        log: Log::None,
        arguments: vec!["--force".into(), container.id.clone().into()],
        stdio: None,
    })
}

/// What OCI runtimes accept as an id.
fn is_id(text: &str) -> bool {
    let character = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    !text.is_empty()
        && text.len() <= 255
        && text != "."
        && text != ".."
        && text.chars().all(character)
}

// === impl Console ===

impl Console {
    pub(super) fn listen(bundle: &Path, name: &str) -> sys::Result<Self> {
        let path = bundle.join(name);
        launch::remove(&path)?;
        let directory =
            File::open(bundle).call(|| format!("open({bundle:?}, O_RDONLY|O_CLOEXEC)"))?;
        let listener = socket::listen(&path, socket::Kind::Stream)?;
        Ok(Self {
            listener,
            path,
            directory,
        })
    }

    /// The path to give to the runtime; not every runtime can connect to a long one.
    pub(super) fn address(&self) -> PathBuf {
        if self.path.as_os_str().len() <= SUN_PATH_MAX {
            return self.path.clone();
        }
        let name = self.path.file_name().unwrap_or_default();
        let (pid, directory) = (std::process::id(), self.directory.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{directory}")).join(name)
    }

    /// The terminal that the runtime sent before it ended.
    pub(super) fn receive(self) -> Result<OwnedFd, String> {
        let connection = socket::accept(&self.listener).map_err(|error| error.to_string())?;
        let connection =
            connection.ok_or("the OCI runtime did not connect to the console socket")?;
        let mut payload = [0; 4096];
        let got = socket::receive(&connection, &mut payload).map_err(|error| error.to_string())?;
        got.fds
            .into_iter()
            .next()
            .ok_or_else(|| "the OCI runtime sent no terminal over the console socket".to_owned())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It goes with the bundle otherwise.
        drop(launch::remove(&self.path));
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Console").field(&self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_no_file_names_are_refused() {
        for good in ["a", "web-1", "0123456789abcdef", "A_b+c.d"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
