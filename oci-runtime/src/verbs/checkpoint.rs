//! `checkpoint`: saves a running container with criu, see [`crate::criu`].
use std::os::fd::AsFd;
use std::path::Path;

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::criu::{self, Directories, Kind, Message, Session, StatusFd, feature, opt};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::init::Preserved;
use crate::plan::Plan;
use crate::state::{State, Status};
use crate::verbs::{create, delete};

const LOG: &str = "dump.log";

/// The oldest criu that can be asked for its version.
pub(super) const OLDEST: i32 = 30_000;

/// The first criu that freezes with cgroup v2.
const FREEZES_V2: i32 = 31_400;

/// The first criu that says when pages can be fetched.
const SAYS_READY: i32 = 31_500;

/// How long the container may take to end once it is saved, in milliseconds.
const PATIENCE_MS: i32 = 10_000;

/// `checkpoint ID`
///
/// # Errors
/// Why not; the container runs on.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    if global.rootless {
        global.warn("checkpoint is untested with rootless containers");
    }
    let state = global.store.load(id)?;
    let status = global.store.status(id, &state)?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::new(format!(
            "container cannot be checkpointed in {status} state"
        )));
    }
    let mut ready = StatusFd::take(parsed)?;
    let version = need_version()?;
    let plan = create::read_plan(global, id, &as_created(&state))?;
    let directories = Directories::open(parsed, true)?;
    let pre_dump = parsed.is_on("pre-dump");
    if pre_dump {
        Session::need(&[(feature::MEM_TRACK, "MemTrack")])?;
    }
    if parsed.is_on("lazy-pages") {
        Session::need(&[(feature::LAZY_PAGES, "LazyPages")])?;
    }
    let mut options = options(parsed, &state, &plan, &directories, version)?;
    let tells_itself = version < SAYS_READY;
    if let Some(number) = ready.number().filter(|_| tells_itself) {
        options.int(opt::STATUS_FD, number);
    }
    if !pre_dump {
        criu::mounts_of_dump(&mut options, &plan, state.init())?;
        let descriptors = criu::Descriptors::of(state.pid);
        for file in descriptors.files() {
            options.bytes(opt::EXTERNAL, file);
        }
        descriptors.save(&directories.images)?;
    }
    let kind = if pre_dump { Kind::PreDump } else { Kind::Dump };
    dump(kind, &options, &directories, &mut ready)
        .map_err(|error| criu::explain(error, &directories.log(LOG)))?;
    if pre_dump || parsed.is_on("leave-running") {
        return Ok(0);
    }
    wait_for_end(&state)?;
    delete::remove(global, id, &state, state.cgroup())?;
    Ok(0)
}

/// Refuses a criu that is too old to be spoken to.
///
/// # Errors
/// There is none, or it is too old.
pub(super) fn need_version() -> Result<i32> {
    let version = Session::version()?;
    if version < OLDEST {
        return Err(Error::new(format!(
            "CRIU version {version} must be {OLDEST} or higher"
        )));
    }
    Ok(version)
}

/// The flags with which the container's configuration was read.
fn as_created(state: &State) -> create::Options {
    create::Options {
        bundle: state.bundle.clone(),
        config: state.config.clone(),
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserved: Preserved {
            listen: 0,
            extra: 0,
        },
        doorkeeper: None,
    }
}

fn options(
    parsed: &Parsed,
    state: &State,
    plan: &Plan,
    directories: &Directories,
    version: i32,
) -> Result<Message> {
    let mut options = criu::common(parsed, directories, LOG, &state.annotations)?;
    options
        .int(opt::PID, state.pid)
        .bytes(opt::ROOT, path_bytes(&state.rootfs));
    if let Some(parent) = directories.parent(parsed)? {
        options
            .bytes(opt::PARENT_IMG, parent)
            .bool(opt::TRACK_MEM, true);
    }
    criu::dumped(&mut options, plan, state.init(), version)?;
    if let Some(cgroup) = freezer(state, version) {
        options.bytes(opt::FREEZE_CGROUP, path_bytes(cgroup));
    }
    Ok(options)
}

/// The cgroup by which criu can stop all processes at once; without one it traces each.
fn freezer(state: &State, version: i32) -> Option<&Path> {
    let v2 = || state.cgroup_paths.get("").filter(|_| version >= FREEZES_V2);
    let found = state.cgroup_paths.get("freezer").or_else(v2);
    found.map(std::path::PathBuf::as_path)
}

pub(super) fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

fn dump(
    kind: Kind,
    options: &Message,
    directories: &Directories,
    ready: &mut StatusFd,
) -> Result<()> {
    let mut keep = directories.numbers();
    keep.extend(ready.number());
    let session = Session::start(&keep, || Ok(()))?;
    let request = criu::request(kind, Some(options));
    let answer = session.ask(kind, &request, |notify, _| {
        if notify.script == "status-ready" {
            ready.tell();
        }
        Ok(())
    });
    ready.close();
    let exit = session.finish()?;
    answer?;
    // After a pre-dump it waits for the next one, and takes the end of the conversation for a failure.
    if kind != Kind::PreDump && exit.code() != 0 {
        return Err(Error::new(format!(
            "criu failed: exit status {}",
            exit.code()
        )));
    }
    Ok(())
}

/// criu has killed the processes; the last of them may still be on their way.
fn wait_for_end(state: &State) -> Result<()> {
    let Ok(pidfd) = state.open_init() else {
        return Ok(());
    };
    let ended = sys::fd::wait_readable(&[pidfd.as_fd()], PATIENCE_MS)?;
    if ended == [true] {
        return Ok(());
    }
    Err(Error::new(format!(
        "process {} did not end within 10 s of the checkpoint",
        state.pid
    )))
}
