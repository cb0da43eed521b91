//! Finding and starting the program.
use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::AccessFlags;
use sys::process::{Birth, Doorkeeper};

use super::Preserved;
use super::filter::Filter;
use crate::error::{Error, Result};
use crate::plan::ProcessPlan;
use crate::seccomp::{SeccompPlan, stored};

/// The file that `args[0]` names: itself where it holds a slash, else the first fit in the `PATH` of its environment.
/// Looked up before `create` returns, as the user that will run it.
///
/// # Errors
/// `exec: "x": executable file not found in $PATH`, and the like.
pub(super) fn find(process: &ProcessPlan) -> Result<CString> {
    let name = process
        .args
        .first()
        .map(|name| name.to_bytes())
        .unwrap_or_default();
    let name = OsStr::from_bytes(name);
    let refuse = |errno: Errno| {
        let text = format!(
            "exec: {name:?}: {} ({})",
            errno.desc().to_lowercase(),
            sys::error::errno_name(errno)
        );
        Error::new(text)
    };
    if name.as_bytes().contains(&b'/') {
        check(Path::new(name)).map_err(refuse)?;
        return Ok(process.args[0].clone());
    }
    let path = process.variable("PATH").unwrap_or_default();
    let mut denied = false;
    for dir in path.split(|byte| *byte == b':') {
        let dir = if dir.is_empty() {
            Path::new(".")
        } else {
            Path::new(OsStr::from_bytes(dir))
        };
        let candidate: PathBuf = dir.join(name);
        match check(&candidate) {
            Ok(()) => {
                // No NUL byte can come in: both halves come from C strings.
                return CString::new(candidate.into_os_string().into_encoded_bytes())
                    .map_err(|_| refuse(Errno::EINVAL));
            }
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(refuse(Errno::EACCES));
    }
    Err(Error::new(format!(
        "exec: {name:?}: executable file not found in $PATH"
    )))
}

/// Whether the caller may start this file.
fn check(path: &Path) -> std::result::Result<(), Errno> {
    let stat = nix::sys::stat::stat(path)?;
    if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(Errno::EISDIR);
    }
    nix::unistd::eaccess(path, AccessFlags::X_OK)
}

/// Forgets the environment of the runtime's caller, and closes every descriptor but the program's and those of `keep`. From here on paths are resolved that the container
/// controls (its working directory, hooks, the program), and `/proc/self/fd/N/..` of a directory of the host would lead
/// out of the container (CVE-2024-21626); close-on-exec comes too late for that. The owners of what is closed here are
/// in frames of the parent, which never run again in this process.
///
/// # Errors
/// Only on kernels before 5.9.
pub(super) fn let_go(preserved: Preserved, keep: &[RawFd]) -> Result<()> {
    sys::process::forget_environment();
    Ok(sys::fd::close_all_but(preserved.end(), keep)?)
}

/// Makes everything that is not for the program close with execve, whoever opened it.
///
/// # Errors
/// Only on kernels before 5.9.
pub(super) fn seal(preserved: Preserved) -> Result<()> {
    sys::fd::close_on_exec_from(preserved.end())?;
    Ok((3..preserved.end()).try_for_each(sys::fd::keep_on_exec)?)
}

/// Becomes the program. Returns only to say why not.
pub(super) fn start(
    program: &CString,
    process: &ProcessPlan,
    env: &[CString],
    preserved: Preserved,
    (filter, socket): (&mut Filter<'_>, Option<&OwnedFd>),
) -> Error {
    let mut ready = || -> Result<()> {
        if !filter.is_loaded() {
            seal(preserved)?;
        }
        // From here on a signal ends the process as it would end the program.
        sys::process::reset_signals()?;
        // The very last thing: whatever comes after it is filtered.
        filter.load(socket)
    };
    if let Err(error) = ready() {
        return error;
    }
    let error = sys::process::execve(program, &process.args, env);
    Error::new(format!(
        "exec: {:?}: {} ({})",
        name_of(process),
        error.errno.desc().to_lowercase(),
        sys::error::errno_name(error.errno)
    ))
}

fn name_of(process: &ProcessPlan) -> String {
    let name = process.args.first();
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The doorkeeper, who waits at the gate and then becomes the program.
pub(super) struct Keeper<'a> {
    /// The file that it is made in.
    pub(super) file: &'a OwnedFd,
    /// The gate.
    pub(super) gate: &'a OwnedFd,
    /// Whether, and how, it is born into a pid namespace first.
    pub(super) birth: Option<Birth>,
}

impl Keeper<'_> {
    /// Does all but to become it. The doorkeeper loads `filter`, if it is not there already.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn prepare(
        &self,
        process: &ProcessPlan,
        preserved: Preserved,
        filter: Option<&SeccompPlan>,
    ) -> Result<()> {
        seal(preserved)?;
        // From here on a signal ends the process as it would end the program.
        sys::process::reset_signals()?;
        sys::fd::keep_on_exec(self.gate.as_raw_fd())?;
        let program = filter.map(|filter| stored::encode(&filter.program));
        let flags = filter.map_or(0, |filter| filter.flags.bits());
        // What is born tells its parent, which says who speaks; the other has nobody but its reader of stderr.
        let speaker = self.birth.map_or("davit-oci: ", |_| "");
        let keeper = Doorkeeper {
            gate: self.gate.as_raw_fd(),
            filter: program.as_deref().map(|program| (program, flags)),
            prefix: &format!("{speaker}exec: {:?}: ", name_of(process)),
            birth: self.birth,
        };
        Ok(keeper.fill(self.file)?)
    }

    /// Becomes it. Returns only to say why not.
    pub(super) fn take_over(
        &self,
        program: &CString,
        process: &ProcessPlan,
        env: &[CString],
    ) -> Error {
        Error::from(Doorkeeper::take_over(
            self.file,
            program,
            &process.args,
            env,
        ))
        .hint("does a security module of this host forbid to execute files in memory?")
    }
}

/// The environment of the program: the plan's, `HOME` where it has none, and what `LISTEN_FDS` needs.
pub(super) fn environment(
    process: &ProcessPlan,
    home: impl FnOnce() -> Vec<u8>,
    preserved: Preserved,
    pid: i32,
) -> Vec<CString> {
    let mut env: Vec<CString> = Vec::with_capacity(process.env.len() + 3);
    env.extend(
        process
            .env
            .iter()
            .filter(|entry| entry.to_bytes() != b"HOME=")
            .cloned(),
    );
    if process.variable("HOME").is_none_or(<[u8]>::is_empty) {
        // A home directory from a line of text holds no NUL byte; if it did, there is simply no HOME.
        env.extend(CString::new([b"HOME=", home().as_slice()].concat()));
    }
    if preserved.listen > 0 {
        let entries = [
            format!("LISTEN_FDS={}", preserved.listen),
            format!("LISTEN_PID={pid}"),
        ];
        env.extend(
            entries
                .into_iter()
                .filter_map(|entry| CString::new(entry).ok()),
        );
    }
    env
}
