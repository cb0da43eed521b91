//! `restore`: a container from what `checkpoint` saved, see [`crate::criu`]. Its first process is a child of this
//! program, as that of `create` is, so that whoever adopts our children can wait for it.
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;
use sys::cgroup::Cgroup;
use sys::namespace::{self, NamespaceKind};
use sys::process::Child;

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::criu::{self, Descriptors, Directories, Kind, Message, Notify, Session, opt};
use crate::error::{Error, Result, Within};
use crate::hooks;
use crate::id::ContainerId;
use crate::init::restored_root;
use crate::plan::Plan;
use crate::state::{self, State, Status};
use crate::systemd::Making;
use crate::undo::{self, Undo};
use crate::verbs::checkpoint::{need_version, path_bytes};
use crate::verbs::create::{self, Created, Options};
use crate::verbs::delete;
use crate::verbs::foreground::{self, Relay};

const LOG: &str = "restore.log";

/// The first criu that sets another LSM profile as it should.
const SETS_LSM: i32 = 31_600;

/// The directory in the container's state at which criu finds the root filesystem.
const ROOT: &str = "criu-root";

/// What is restored from what.
struct Wanted<'a> {
    parsed: &'a Parsed,
    plan: &'a Plan,
    options: &'a Options,
    directories: &'a Directories,
    descriptors: &'a Descriptors,
    version: i32,
}

/// `restore ID`
///
/// # Errors
/// Why not; nothing is left behind.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    if global.rootless {
        global.warn("restore is untested with rootless containers");
    }
    let detach = parsed.is_on("detach");
    let options = Options::new(parsed)?;
    let plan = create::read_plan(global, id, &options)?;
    let console = create::connect_console(&plan, options.console_socket.as_deref())?;
    if !detach && console.is_some() {
        return Err(Error::new(
            "cannot use console socket if runc will not detach or allocate tty",
        ));
    }
    if detach && plan.process.terminal && console.is_none() {
        return Err(Error::new(
            "cannot allocate tty if runc will detach without setting console socket",
        ));
    }
    let directories = Directories::open(parsed, false)?;
    let descriptors = criu::read_descriptors(&directories.images)?;
    let version = need_version()?;
    let wanted = Wanted {
        parsed,
        plan: &plan,
        options: &options,
        directories: &directories,
        descriptors: &descriptors,
        version,
    };
    if detach {
        restore(global, id, &wanted, console)?;
        return Ok(0);
    }
    in_foreground(global, id, &wanted)
}

fn in_foreground(global: &Global, id: &ContainerId, wanted: &Wanted<'_>) -> Result<u8> {
    if !wanted.parsed.is_on("no-subreaper") {
        sys::process::set_child_subreaper(true)?;
    }
    let signals = foreground::catch_signals()?;
    let (ours, theirs) = if wanted.plan.process.terminal {
        let (ours, theirs) = sys::fd::seqpacket_pair()?;
        (Some(ours), Some(theirs))
    } else {
        (None, None)
    };
    let restored = restore(global, id, wanted, theirs)?;
    let code = ours
        .as_ref()
        .map(Relay::receive)
        .transpose()
        .and_then(|relay| foreground::wait(&restored.child, &signals, relay, None));
    let removed = delete::remove(global, id, &restored.state, Ok(restored.cgroup));
    let code = code?;
    removed?;
    Ok(code)
}

fn restore(
    global: &Global,
    id: &ContainerId,
    wanted: &Wanted<'_>,
    console: Option<OwnedFd>,
) -> Result<Created> {
    undo::attempt(|undo| steps(global, id, wanted, console, undo))
}

fn steps<'a>(
    global: &'a Global,
    id: &'a ContainerId,
    wanted: &'a Wanted<'a>,
    console: Option<OwnedFd>,
    undo: &mut Undo<'a>,
) -> Result<Created> {
    let plan = wanted.plan;
    let mut request = options(wanted)?;
    let namespaces = criu::joined(&mut request, plan, wanted.version)?;
    let mut unit = Making::new(plan)?;
    let (_, mut cgroup) = match &unit {
        Some(unit) => unit.place(),
        None => crate::cgroup::place(global, plan)?,
    };

    // The id is unique from here on.
    global.store.reserve(id)?;
    undo.push("the state directory", move || {
        global.store.remove(id).map_err(|error| error.message)
    });
    let _held = global.store.hold(id)?;
    let mut state = State::creating(id, plan, &cgroup);
    state.config.clone_from(&wanted.options.config);
    if unit.is_some() {
        state.cgroup_paths.clear();
    }
    global.store.save(id, &state)?;
    let dir = global.store.dir(id);
    let root = make_dir(&dir, ROOT)?;
    let manager = make_dir(&dir, "notify")?;
    criu::mounts_of_restore(&mut request, plan, &cgroup, &manager)?;
    request.bytes(opt::ROOT, path_bytes(&root));

    // As in `create`: the cgroup with its limits, and criu in it, from which the restored processes come.
    if let Some(unit) = &unit {
        unit.prepare(undo)?;
    } else if crate::cgroup::make(global, plan, &mut cgroup, undo)? {
        state.cgroup_paths = cgroup.paths();
    }
    if let Some(asked) = &plan.rdt {
        state.rdt = Some(crate::rdt::make(asked, id.as_str(), undo)?);
    }
    global.store.save(id, &state)?;
    let mut keep = wanted.directories.numbers();
    keep.extend(namespaces.iter().map(AsRawFd::as_raw_fd));
    let session = Session::start(&keep, || {
        restored_root::prepare(plan, &root)?;
        wanted.directories.reopen()
    })?;
    let criu = session.child().pid;
    let first = RefCell::new(None);
    let answer = enter_cgroup(plan, unit.as_mut(), &cgroup, criu, &mut state)
        .and_then(|()| crate::rdt::join(state.rdt.as_ref(), criu.as_raw()))
        .and_then(|()| add_cgroup_roots(&mut request, criu, &cgroup))
        .and_then(|()| {
            let restoring = Restoring {
                global,
                id,
                wanted,
                cgroup: &cgroup,
                console,
                first: &first,
            };
            ask(&session, &request, restoring, &mut state)
        });
    let exit = session.finish()?;
    let first = first.into_inner();
    if let Some(child) = &first {
        let pidfd = child
            .pidfd
            .try_clone()
            .map_err(|error| Error::new(error.to_string()))?;
        undo.push("the first process", move || create::end(&pidfd));
    }
    answer?;
    let child = first.ok_or_else(|| Error::new("criu failed: it names no restored process"))?;
    if exit.code() != 0 {
        return Err(Error::new(format!(
            "criu failed: exit status {}",
            exit.code()
        )));
    }
    if let Some(filter) = &plan.seccomp {
        global.store.save_filter(id, filter)?;
    }
    // Empty for everybody but criu.
    std::fs::remove_dir(&root)
        .map_err(|error| sys::Error::from_io(&error, format!("rmdir({root:?})")))?;
    if let Some(path) = &wanted.options.pid_file {
        state::write_atomically(path, child.pid.to_string().as_bytes())
            .within(|| "--pid-file".to_owned())?;
    }
    Ok(Created {
        state,
        child,
        cgroup,
    })
}

/// What criu is asked for, but for what is known only once the container has its cgroup.
fn options(wanted: &Wanted<'_>) -> Result<Message> {
    let mut options = criu::common(
        wanted.parsed,
        wanted.directories,
        LOG,
        &wanted.plan.annotations,
    )?;
    options
        .bool(opt::EVASIVE_DEVICES, true)
        .bool(opt::RST_SIBLING, true);
    let labels = [
        ("lsm-profile", opt::LSM_PROFILE),
        ("lsm-mount-context", opt::LSM_MOUNT_CONTEXT),
    ];
    for (flag, field) in labels {
        let Some(label) = wanted.parsed.get(flag).filter(|text| !text.is_empty()) else {
            continue;
        };
        if wanted.version < SETS_LSM {
            return Err(Error::new(format!("--{flag} requires at least CRIU 3.16")));
        }
        options.bytes(field, label);
    }
    for (key, number) in wanted.descriptors.inherited() {
        criu::inherit(&mut options, key, number);
    }
    Ok(options)
}

fn make_dir(dir: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("mkdir({path:?})")))?;
    // criu wants a path without links.
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

fn enter_cgroup(
    plan: &Plan,
    unit: Option<&mut Making<'_>>,
    cgroup: &Cgroup,
    criu: Pid,
    state: &mut State,
) -> Result<()> {
    let Some(unit) = unit else {
        return Ok(cgroup.add_process(criu.as_raw())?);
    };
    unit.ask(criu, &plan.cgroup.resources)?;
    unit.finish(criu, &plan.cgroup.resources)?;
    crate::cgroup::hand_over(plan, &unit.inner())?;
    state.systemd = Some(unit.state());
    state.cgroup_paths = cgroup.paths();
    Ok(())
}

/// The restored processes get cgroups below those that criu is in, wherever they were before.
fn add_cgroup_roots(options: &mut Message, criu: Pid, cgroup: &Cgroup) -> Result<()> {
    if cgroup.is_none() {
        return Ok(());
    }
    let path = format!("/proc/{criu}/cgroup");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            let mut root = Message::default();
            root.bytes(1, controller).bytes(2, path);
            options.message(opt::CG_ROOT, &root);
        }
    }
    Ok(())
}

/// What is done while criu restores.
struct Restoring<'a> {
    global: &'a Global,
    id: &'a ContainerId,
    wanted: &'a Wanted<'a>,
    cgroup: &'a Cgroup,
    console: Option<OwnedFd>,
    /// The first process, once it is there.
    first: &'a RefCell<Option<Child>>,
}

fn ask(
    session: &Session,
    options: &Message,
    mut restoring: Restoring<'_>,
    state: &mut State,
) -> Result<()> {
    let request = criu::request(Kind::Restore, Some(options));
    let log = restoring.wanted.directories.log(LOG);
    let answer = session.ask(Kind::Restore, &request, |notify, fds| {
        restoring.notified(notify, fds, state)
    });
    answer.map(drop).map_err(|error| {
        if error.message.starts_with("criu failed") {
            criu::explain(error, &log)
        } else {
            error
        }
    })
}

impl Restoring<'_> {
    fn notified(&mut self, notify: &Notify, fds: Vec<OwnedFd>, state: &mut State) -> Result<()> {
        match notify.script.as_str() {
            "setup-namespaces" => {
                state.pid = notify.pid;
                let hooks = &self.wanted.plan.hooks;
                let (first, second) = (&hooks.prestart, &hooks.create_runtime);
                let output = hooks::Output::open(&[first, second], &self.wanted.plan.annotations)?;
                let input = state.hook_input(Status::Created);
                hooks::run("prestart", first, &input, &output)?;
                let input = state.hook_input(Status::Creating);
                hooks::run("createRuntime", second, &input, &output)
            }
            "orphan-pts-master" => self.send_terminal(fds),
            "post-restore" => self.restored(notify.pid, state),
            _ => Ok(()),
        }
    }

    fn send_terminal(&mut self, fds: Vec<OwnedFd>) -> Result<()> {
        // Without a terminal of its own the master goes, and the program sees its terminal hang up.
        let (Some(master), Some(console)) = (fds.first(), self.console.take()) else {
            return Ok(());
        };
        sys::socket::send(&console, b"orphan-pts-master", &[master.as_fd()])
            .within(|| "sending the terminal".to_owned())
    }

    /// All processes are there, and stand still until this is answered.
    fn restored(&self, pid: i32, state: &mut State) -> Result<()> {
        let pid = Pid::from_raw(pid);
        let pidfd = sys::process::pidfd_open(pid)?;
        self.first.replace(Some(Child { pid, pidfd }));
        state.pid = pid.as_raw();
        state.start_time = sys::process::start_time(pid)?;
        state.created = crate::time::now();
        // criu keeps the container's clocks by a namespace that its configuration need not have.
        if let (Ok(own), Ok(theirs)) = (of(nix::unistd::getpid()), of(pid))
            && own != theirs
        {
            state.namespaces |= NamespaceKind::Time.flag().bits();
        }
        crate::cgroup::control_devices(self.global, self.wanted.plan, self.cgroup)?;
        self.global.store.save(self.id, state)
    }
}

fn of(pid: Pid) -> sys::Result<(u64, u64)> {
    namespace::identity(namespace::of_process(pid, NamespaceKind::Time)?)
}
