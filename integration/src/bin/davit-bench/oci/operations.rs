//! What the runtimes are timed at, each in bundles and state directories of one stage.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::subjects::Subject;
use crate::contest::Contender;
use integration::bundle::Bundle;
use integration::oci::fresh_id;

/// containerd's default seccomp profile for a container without extra capabilities, as its CRI plugin writes it.
const PROFILE: &str =
    include_str!("../../../../../oci-runtime/tests/seccomp/profiles/containerd.json");

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `run` of /bin/true.
    Run,
    /// The same with containerd's default seccomp profile.
    RunFiltered,
    /// `create`, `start` and `delete` as three commands.
    Lifecycle,
    /// `exec` of /bin/true.
    Exec,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Run => "run /bin/true",
            Operation::RunFiltered => "run /bin/true with seccomp",
            Operation::Lifecycle => "create, start, delete",
            Operation::Exec => "exec /bin/true",
        }
    }

    /// Whether the program of bare system calls does the same.
    pub(crate) fn has_floor(self) -> bool {
        matches!(self, Operation::Run | Operation::RunFiltered)
    }
}

/// Bundles and state directories; dropped, everything is gone.
pub(crate) struct Stage {
    /// In memory, as /run is on every distribution, so that no disk is measured.
    scratch: tempfile::TempDir,
    plain: Bundle,
    filtered: Bundle,
    sleeping: Bundle,
    residents: std::sync::Mutex<Vec<Resident>>,
}

impl Stage {
    pub(crate) fn new() -> Result<Stage> {
        let profile: Value = serde_json::from_str(PROFILE)?;
        Ok(Stage {
            scratch: scratch()?,
            plain: Bundle::new(&["/bin/true"]),
            filtered: Bundle::changed(&["/bin/true"], |config| {
                config["linux"]["seccomp"] = profile;
            }),
            sleeping: Bundle::new(&["/bin/sleep", "100000"]),
            residents: std::sync::Mutex::default(),
        })
    }

    /// The program of bare system calls, in the same root file system.
    pub(crate) fn floor(&self, program: &Path) -> Contender {
        let (program, rootfs) = (program.to_owned(), self.plain.rootfs());
        Contender::new("bare system calls", move || {
            let mut command = Command::new(&program);
            command.arg(&rootfs);
            vec![command]
        })
    }

    /// A runtime at an operation.
    pub(crate) fn contender(&self, operation: Operation, subject: &Subject) -> Contender {
        let runtime = self.command_line(subject);
        let bundle = match operation {
            Operation::RunFiltered => self.filtered.path(),
            _ => self.plain.path(),
        };
        let bundle = bundle.to_string_lossy().into_owned();
        match operation {
            Operation::Run | Operation::RunFiltered => Contender::new(subject.name, move || {
                vec![runtime.command(&["run", "--bundle", &bundle, &fresh_id()])]
            }),
            Operation::Lifecycle => Contender::new(subject.name, move || {
                let id = fresh_id();
                vec![
                    runtime.command(&["create", "--bundle", &bundle, &id]),
                    runtime.command(&["start", &id]),
                    runtime.command(&["delete", "--force", &id]),
                ]
            }),
            Operation::Exec => {
                let id = self.resident(&runtime);
                Contender::new(subject.name, move || {
                    vec![runtime.command(&["exec", &id, "/bin/true"])]
                })
            }
        }
    }

    /// A runtime with its state directory.
    pub(super) fn command_line(&self, subject: &Subject) -> CommandLine {
        CommandLine {
            program: subject.path.clone(),
            root: self.scratch.path().join(subject.name),
        }
    }

    /// A container that runs until the stage is dropped. One that does not start is noticed by the first `exec`.
    pub(super) fn resident(&self, runtime: &CommandLine) -> String {
        let id = fresh_id();
        let bundle = self.sleeping.path().to_string_lossy().into_owned();
        let made = runtime
            .command(&["run", "--detach", "--bundle", &bundle, &id])
            .status();
        if let (Ok(_), Ok(mut residents)) = (made, self.residents.lock()) {
            residents.push(Resident(runtime.command(&["delete", "--force", &id])));
        }
        id
    }
}

/// A container to be deleted.
struct Resident(Command);

impl Drop for Resident {
    fn drop(&mut self) {
        if let Err(error) = self.0.status() {
            eprintln!("davit-bench: {:?}: {error}", self.0);
        }
    }
}

/// A runtime with its state directory.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) root: PathBuf,
}

impl CommandLine {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// A directory in memory.
pub(crate) fn scratch() -> Result<tempfile::TempDir> {
    let in_memory = Path::new("/dev/shm");
    let parent = if in_memory.is_dir() {
        in_memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("davit-bench-")
        .tempdir_in(parent)
        .context("a directory for the runtimes' state")
}

/// A bundle with a memory limit.
pub(crate) fn limited(kb: u64) -> Bundle {
    Bundle::changed(&["/bin/true"], |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": kb * 1024});
    })
}
