//! From the command line to a running supervisor: going to the background, making the pod's environment, saying "ready".
//!
//! ```text
//! launcher ──fork──▶ session leader ──fork──▶ shim: pod, socket, pid file ──▶ loop
//!    ▲                     exits at once              │
//!    └───────── one line of JSON over a pipe ─────────┘
//! prints the line, exits 0 or 1
//! ```
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use sys::error::Context;
use sys::process::{self, Forked};
use sys::{Pid, fd, socket};

use crate::files::{self, Liveness};
use crate::options::Options;
use crate::pod::{self, Pod};
use crate::protocol::VERSION;
use crate::supervisor::Supervisor;

/// The longest line that the shim reports.
const LINE_MAX: usize = 64 * 1024;

/// Why the shim did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another shim serves this pod.
    #[error("pod directory {dir}: a shim runs there already (pid {pid})")]
    Running {
        /// The pod's directory.
        dir: String,
        /// The other shim.
        pid: i32,
    },
    /// A system call was refused.
    #[error("{what}")]
    Call {
        /// What it was for.
        what: &'static str,
        /// What the kernel says.
        source: sys::Error,
    },
    /// The pod's namespaces or its init could not be made.
    #[error(transparent)]
    Pod(#[from] PodError),
}

/// Why the pod's namespaces or its init could not be made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PodError(#[from] pod::Error);

/// Starts a shim in the background and prints its line. Returns in the launcher with whether it is ready; in the shim
/// itself it returns when the shim ended.
///
/// # Errors
/// Only of the launcher's own steps: an error of the shim is in the line.
pub fn launch(options: Options) -> Result<bool, Error> {
    let call = |what| move |source| Error::Call { what, source };
    // Whatever the daemon forgot to mark close-on-exec would live as long as the pod.
    fd::close_range_now(3, i32::MAX).map_err(call("inherited descriptors"))?;
    let (line, line_write) = fd::pipe().map_err(call("the launcher's pipe"))?;
    match process::fork().map_err(call("going to the background"))? {
        Forked::Parent(leader) => {
            drop(line_write);
            let ready = relay(&line);
            process::wait(&leader.pidfd).map_err(call("going to the background"))?;
            ready
        }
        Forked::Child => {
            drop(line);
            lead(options, line_write)
        }
    }
}

/// Copies the line to stdout and tells whether it said "ready".
fn relay(line: &OwnedFd) -> Result<bool, Error> {
    let call = |source| Error::Call {
        what: "the shim's report",
        source,
    };
    let mut text = fd::read_to_end(line, LINE_MAX).map_err(call)?;
    if text.is_empty() {
        text = b"{\"error\":\"the shim died before it was ready\"}\n".to_vec();
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&text)
        .and_then(|()| stdout.flush())
        .call(|| "write(stdout)".to_owned())
        .map_err(call)?;
    Ok(text.starts_with(READY))
}

/// A session of its own, then a child that is not its leader and thus can never acquire a terminal.
fn lead(options: Options, line: OwnedFd) -> Result<bool, Error> {
    let call = |source| Error::Call {
        what: "going to the background",
        source,
    };
    process::setsid().map_err(call)?;
    match process::fork().map_err(call)? {
        Forked::Parent(_) => Ok(true),
        Forked::Child => {
            serve(options, line);
            Ok(true)
        }
    }
}

/// The shim's whole life.
fn serve(options: Options, line: OwnedFd) {
    let (text, supervisor) = match become_shim(options) {
        Ok(supervisor) => (ready_line(), Some(supervisor)),
        Err(error) => (error_line(&error), None),
    };
    // A launcher that was killed does not hear it; the daemon finds the shim by its pid file.
    drop(fd::write_all(&line, text.as_bytes()));
    drop(line);
    if let Some(supervisor) = supervisor {
        supervisor.run();
    }
}

/// The first member tells the launcher how it went.
const READY: &[u8] = br#"{"ready":true"#;

fn ready_line() -> String {
    format!(
        "{{\"ready\":true,\"version\":{VERSION},\"pid\":{}}}\n",
        std::process::id()
    )
}

/// The line that reports an error: `{"error":"…"}`.
pub fn error_line(error: &dyn std::error::Error) -> String {
    format!("{}\n", serde_json::json!({"error": chain(error)}))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn become_shim(options: Options) -> Result<Supervisor, Error> {
    let call = |what| move |source| Error::Call { what, source };
    detach().map_err(call("leaving the launcher's surroundings"))?;
    process::set_child_subreaper(true).map_err(call("becoming the subreaper"))?;
    claim(&options.pod_dir)?;
    let pod = Pod::make(&options).map_err(PodError)?;
    // From here on the supervisor owns the pod; dropped on an error it gives everything back.
    Supervisor::new(options, pod).map_err(call("the shim's socket"))
}

fn detach() -> sys::Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .call(|| "open(\"/dev/null\", O_RDWR)".to_owned())?;
    for number in 0..=2 {
        fd::duplicate_onto(&null, number)?;
    }
    std::env::set_current_dir("/").call(|| "chdir(\"/\")".to_owned())?;
    process::reset_signals()?;
    // Rust's runtime ignores it, and the line above undid that: a vanished client must not kill the shim.
    process::ignore_signal(sys::Signal::SIGPIPE)?;
    process::umask(sys::Mode::from_bits_truncate(0o022));
    Ok(())
}

/// Makes sure that this pod has no other shim, and clears what a dead one left.
fn claim(pod_dir: &Path) -> Result<(), Error> {
    let call = |what| move |source| Error::Call { what, source };
    let found = files::probe(pod_dir).call(|| format!("read({:?})", files::pid_file(pod_dir)));
    if let Liveness::Alive { pid } = found.map_err(call("the pid file"))? {
        return Err(Error::Running {
            dir: pod_dir.display().to_string(),
            pid,
        });
    }
    pod::release_stale(pod_dir).map_err(call("namespaces of a dead shim"))?;
    for path in [files::socket(pod_dir), files::pid_file(pod_dir)] {
        remove(&path).map_err(call("files of a dead shim"))?;
    }
    Ok(())
}

/// Removes a file; a missing one is success.
pub(crate) fn remove(path: &Path) -> sys::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(sys::Error::from_io(&error, format!("unlink({path:?})")))
        }
        _ => Ok(()),
    }
}

/// Opens the socket and writes the pid file: from now on the shim can be found.
pub(crate) fn publish(pod_dir: &Path) -> sys::Result<OwnedFd> {
    let listener = socket::listen(&files::socket(pod_dir), socket::Kind::SeqPacket)?;
    let start = process::start_time(Pid::this())?;
    write_atomically(
        &files::pid_file(pod_dir),
        format!("{} {start}\n", std::process::id()).as_bytes(),
    )?;
    Ok(listener)
}

/// Writes a file under a temporary name and renames it: readers see all of it or nothing.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> sys::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)
        .call(|| format!("write({temporary:?}, {} bytes)", content.len()))?;
    fs::rename(&temporary, path).call(|| format!("rename({temporary:?}, {path:?})"))
}
