//! `create`: lifecycle steps 1 to 5, <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle>.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;
use sys::cgroup::Cgroup;
use sys::namespace::{self, NamespaceKind};
use sys::process::Child;

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::exe;
use crate::hooks::{self, Output};
use crate::id::ContainerId;
use crate::init::child::Init;
use crate::init::late_birth;
use crate::init::protocol::{self, FromChild, ToChild};
use crate::init::spawn::{self, Birth};
use crate::init::{
    Inherited, Preserved, bare_namespace, clocks, console, idmaps, lsm, net_devices, sources,
};
use crate::plan::{Plan, ProcessPlan};
use crate::seccomp::listener;
use crate::spec::Spec;
use crate::state::{self, State, Status};
use crate::systemd::Making;
use crate::undo::{self, Undo};
use crate::verbs::notify;
use crate::verbs::pidfd::{self, Receivers};

/// How a container is made, as the flags say.
#[derive(Debug)]
pub struct Options {
    /// The directory of the bundle, absolute.
    pub bundle: PathBuf,
    /// The configuration, where it is not the `config.json` of the bundle.
    pub config: Option<PathBuf>,
    /// Where the terminal goes.
    pub console_socket: Option<PathBuf>,
    /// Where a descriptor of the process goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the id of the process goes.
    pub pid_file: Option<PathBuf>,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// Descriptors of the caller that the program gets.
    pub preserved: Preserved,
    /// What the first process waits for `start` as, if not as this program; decided with the plan.
    pub doorkeeper: Option<OwnedFd>,
}

impl Options {
    /// Reads the flags that `create` and `run` share.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn new(parsed: &Parsed) -> Result<Self> {
        let bundle = parsed.get("bundle").unwrap_or(".");
        let bundle = crate::paths::canonical(bundle)
            .map_err(|error| sys::Error::from_io(&error, format!("realpath({bundle:?})")))
            .within(|| "--bundle".to_owned())?;
        Ok(Self {
            config: parsed.get("config").map(absolute).transpose()?,
            console_socket: parsed.get("console-socket").map(PathBuf::from),
            pidfd_socket: parsed.get("pidfd-socket").map(PathBuf::from),
            pid_file: parsed.get("pid-file").map(absolute).transpose()?,
            no_pivot: parsed.is_on("no-pivot"),
            no_new_keyring: parsed.is_on("no-new-keyring"),
            preserved: preserved(parsed)?,
            ..Self::in_bundle(bundle)
        })
    }

    /// No flags at all, for the bundle in this directory.
    pub fn in_bundle(bundle: PathBuf) -> Self {
        Self {
            bundle,
            config: None,
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserved: Preserved::default(),
            doorkeeper: None,
        }
    }
}

/// A path that stays right when the working directory changes.
///
/// # Errors
/// There is no working directory.
pub fn absolute(path: &str) -> Result<PathBuf> {
    crate::paths::absolute(path)
        .map_err(|error| sys::Error::from_io(&error, format!("absolute({path:?})")).into())
}

/// Descriptors that the program gets: those of the service manager, and N more.
///
/// # Errors
/// One of them is not open.
pub fn preserved(parsed: &Parsed) -> Result<Preserved> {
    let extra = parsed
        .number::<u16>("preserve-fds")
        .map_err(Error::new)?
        .unwrap_or(0);
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    let listen = std::env::var("LISTEN_FDS")
        .ok()
        .filter(|_| own)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    let preserved = Preserved { listen, extra };
    for number in 3..preserved.end() {
        if !sys::fd::is_open(number) {
            let many = u32::from(listen) + u32::from(extra);
            return Err(Error::new(format!(
                "--preserve-fds: descriptor {number} of 3 to {} is not open",
                2 + many
            )));
        }
    }
    Ok(preserved)
}

/// Hands the names of the service manager's descriptors on, with the descriptors themselves.
fn pass_names(spec: &mut Spec, preserved: Preserved) {
    if let Ok(names) = std::env::var("LISTEN_FDNAMES")
        && preserved.listen > 0
        && let Some(process) = &mut spec.process
    {
        process.env.push(format!("LISTEN_FDNAMES={names}"));
    }
}

/// A container that waits for `start`.
pub struct Created {
    /// Its state, as it is on disk.
    pub state: State,
    /// Its first process, a child of this one.
    pub child: Child,
    /// Its cgroup.
    pub cgroup: Cgroup,
}

/// `create ID`
///
/// # Errors
/// Why not; nothing is left behind.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let mut options = Options::new(parsed)?;
    let plan = read_plan(global, id, &options)?;
    options.doorkeeper = exe::doorkeeper(&plan)?;
    let console = connect_console(&plan, options.console_socket.as_deref())?;
    if plan.process.terminal && console.is_none() {
        return Err(Error::new(
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .hint("process.terminal is true: give --console-socket, or set it to false"));
    }
    create(global, id, &plan, &options, console)?;
    Ok(0)
}

/// Connects to the console socket, if there is one.
///
/// # Errors
/// A socket without a terminal to send, or nobody listens.
pub fn connect_console(plan: &Plan, socket: Option<&Path>) -> Result<Option<OwnedFd>> {
    let Some(socket) = socket else {
        return Ok(None);
    };
    if !plan.process.terminal {
        return Err(Error::new(
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("process.terminal is false: leave --console-socket out, or set it to true"));
    }
    console::connect(socket).map(Some)
}

/// Groups that a user without privileges cannot give to anybody.
///
/// # Errors
/// The caller is such a user, and there are some.
pub fn check_groups(process: &ProcessPlan) -> Result<()> {
    if process.groups.is_empty() || nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let text = "cannot set any additional groups in a rootless container";
    Err(Error::new(text)
        .within("process.user.additionalGids")
        .hint("leave them out, or run as root of a user namespace that has them"))
}

/// Reads `config.json` and decides.
///
/// # Errors
/// Every field that is wrong.
pub fn read_plan(global: &Global, id: &ContainerId, options: &Options) -> Result<Plan> {
    let path = match &options.config {
        Some(path) => path.clone(),
        None => options.bundle.join("config.json"),
    };
    let mut spec = read_spec(&path)?;
    notify::configure(&mut spec, &global.store.dir(id));
    pass_names(&mut spec, options.preserved);
    if crate::rootless::add_user_namespace(&mut spec) {
        global.warn("config.json has no user namespace, which a caller without privileges needs: one is added");
    }
    let mut plan = Plan::with_manager(global.cgroup_manager, id.as_str(), &options.bundle, &spec)?;
    let unlabelled = lsm::label_mounts(&mut plan).map(str::to_owned);
    plan.warnings.extend(unlabelled);
    for warning in &plan.warnings {
        global.warn(warning);
    }
    check_groups(&plan.process)?;
    if !plan.rootfs.is_dir() {
        let text = format!(
            "config.json: root.path: {:?}: no such file or directory (ENOENT)",
            plan.rootfs
        );
        return Err(Error::new(if plan.rootfs.exists() {
            text.replace(
                "no such file or directory (ENOENT)",
                "not a directory (ENOTDIR)",
            )
        } else {
            text
        }));
    }
    Ok(plan)
}

/// Reads a configuration.
///
/// # Errors
/// A missing file, and JSON that is none or does not fit the specification.
pub fn read_spec(path: &Path) -> Result<Spec> {
    let text = std::fs::read(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = Error::from(sys::Error::from_io(&error, format!("read({path:?})")));
        if missing {
            error.hint("\"davit-oci spec\" writes a config.json to start from")
        } else {
            error
        }
    })?;
    serde_json::from_slice(&text).map_err(|error| Error::new(format!("config.json: {error}")))
}

/// Makes the container.
///
/// # Errors
/// Why not; everything that was made is taken back, and what could not be is part of the error.
pub fn create(
    global: &Global,
    id: &ContainerId,
    plan: &Plan,
    options: &Options,
    console: Option<OwnedFd>,
) -> Result<Created> {
    undo::attempt(|undo| steps(global, id, plan, options, console, undo))
}

fn steps<'a>(
    global: &'a Global,
    id: &'a ContainerId,
    plan: &'a Plan,
    options: &Options,
    console: Option<OwnedFd>,
    undo: &mut Undo<'a>,
) -> Result<Created> {
    // What can be refused without making anything comes first.
    let annotation = plan.annotations.get(pidfd::ANNOTATION).map(String::as_str);
    let pidfd_receivers = Receivers::connect(options.pidfd_socket.as_deref(), annotation)?;
    lsm::check(&plan.process)?;
    let joined = spawn::open_namespaces(&plan.namespaces)?;
    spawn::check_net_sysctl(&joined, &plan.sysctl)?;
    let mut unit = Making::new(plan)?;
    let (hierarchies, mut cgroup) = match &unit {
        Some(unit) => unit.place(),
        None => crate::cgroup::place(global, plan)?,
    };

    // 1. The id is unique from here on.
    global.store.reserve(id)?;
    undo.push("the state directory", move || {
        global.store.remove(id).map_err(|error| error.message)
    });
    let _held = global.store.hold(id)?;
    let mut state = State::creating(id, plan, &cgroup);
    state.config.clone_from(&options.config);
    if unit.is_some() {
        // Until systemd has made it, whatever is there belongs to somebody else.
        state.cgroup_paths.clear();
    }
    global.store.save(id, &state)?;
    global.store.make_fifo(id)?;
    notify::make_directory(&global.store.dir(id))?;

    // 2. The environment: the cgroup with its limits, then the process in its namespaces.
    if let Some(unit) = &unit {
        unit.prepare(undo)?;
    } else if crate::cgroup::make(global, plan, &mut cgroup, undo)? {
        // It is not where the state says: a rootless container goes without what its user may not have.
        state.cgroup_paths = cgroup.paths();
        global.store.save(id, &state)?;
    }
    if let Some(request) = &plan.rdt {
        state.rdt = Some(crate::rdt::make(request, id.as_str(), undo)?);
        global.store.save(id, &state)?;
    }
    let (socket, child_socket) = sys::fd::seqpacket_pair()?;
    // What systemd makes is there only once the process is.
    let (v2, joiner, inner) = match &unit {
        Some(unit) => (None, None, Some(unit.inner())),
        None => (cgroup.dir_fd_v2()?, Some(cgroup.joiner()?), None),
    };
    let init = Init {
        plan,
        inherited: Inherited {
            process: &plan.process,
            socket: child_socket,
            parent_end: socket.as_raw_fd(),
            joiner: joiner.filter(|joiner| !joiner.is_empty()),
            console,
            preserved: options.preserved,
            seccomp: plan.seccomp.as_ref(),
            keyring: keyring(id, options.no_new_keyring),
        },
        join: Vec::new(),
        state: state.clone(),
        hierarchies: &hierarchies,
        cgroup: inner.as_ref().unwrap_or(&cgroup),
        gate: open_gate(&global.store.fifo(id))?,
        no_pivot: options.no_pivot,
        bare: bare_namespace::find(plan, options.no_pivot),
        doorkeeper: options.doorkeeper.as_ref(),
    };
    let joins_user = plan.namespaces.path(NamespaceKind::User).is_some();
    let birth = Birth {
        namespaces: &plan.namespaces,
        late: late_birth::is_possible(plan, &joined),
        joined,
        cgroup: v2.as_ref().map(AsFd::as_fd),
        sets_clocks: !plan.time_offsets.is_empty(),
        bare: init.bare.is_some(),
    };
    let mut child = give_birth(birth, init)?;
    let pidfd = watch(&child)?;
    undo.push("the first process", move || end(&pidfd));
    if let Some(unit) = &mut unit {
        unit.ask(child.pid, &plan.cgroup.resources)?;
    }
    if joins_user && v2.is_some() {
        // The process that made it may not write the host's cgroups.
        cgroup.add_process(child.pid.as_raw())?;
    }
    state.pid = child.pid.as_raw();
    crate::rdt::join(state.rdt.as_ref(), state.pid)?;
    idmaps::write(child.pid, &plan.namespaces)?;
    if let Some(unit) = &mut unit {
        unit.finish(child.pid, &plan.cgroup.resources)?;
        crate::cgroup::hand_over(plan, &unit.inner())?;
        state.systemd = Some(unit.state());
        state.cgroup_paths = cgroup.paths();
    }
    if !plan.net_devices.is_empty() {
        let inside = match plan.namespaces.path(NamespaceKind::Net) {
            Some(path) => namespace::open(path, NamespaceKind::Net)?,
            None => namespace::of_process(child.pid, NamespaceKind::Net)?,
        };
        net_devices::move_all(&plan.net_devices, inside, undo)?;
    }

    // 3. to 5. The hooks, and the child's own steps.
    // On v1 the device rules are a list that is emptied first: a node made meanwhile would be refused.
    let v1_devices = cgroup.paths().contains_key("devices");
    if v1_devices {
        crate::cgroup::control_devices(global, plan, &cgroup)?;
    }
    // A child that is gone already has left the reason behind.
    let told = protocol::tell_child(&socket, &ToChild::Go(state.pid));
    // What nothing waits for but `create` itself, while the child makes its mounts on another processor.
    state.start_time = sys::process::start_time(child.pid)?;
    spawn::set_oom_score(child.pid, &plan.process).or_else(|error| tolerate(global, error))?;
    if !v1_devices {
        crate::cgroup::control_devices(global, plan, &cgroup)?;
    }
    if let Some(filter) = &plan.seccomp {
        global.store.save_filter(id, filter)?;
    }
    if let Some(pid) = wait_until_ready(&socket, &child, plan, &state, (&cgroup, unit.as_ref()))? {
        child = late_birth::adopt(pid, &child, &mut state)?;
        let pidfd = watch(&child)?;
        undo.push("the first process", move || end(&pidfd));
        // It may have been born before its maker had this.
        spawn::set_oom_score(child.pid, &plan.process).or_else(|error| tolerate(global, error))?;
        protocol::tell_child(&socket, &ToChild::Go(pid))?;
        if wait_until_ready(&socket, &child, plan, &state, (&cgroup, unit.as_ref()))?.is_some() {
            return Err(Error::new("unexpected message from the first process"));
        }
    }
    told?;

    pidfd_receivers.send(&child.pidfd, "standard")?;
    state.created = crate::time::now();
    global.store.save(id, &state)?;
    if options.doorkeeper.is_some() {
        wait_until_replaced(&socket, &child, &cgroup)?;
    }
    if let Some(path) = &options.pid_file {
        state::write_atomically(path, child.pid.to_string().as_bytes())
            .within(|| "--pid-file".to_owned())?;
    }
    Ok(Created {
        state,
        child,
        cgroup: cgroup.clone(),
    })
}

fn give_birth(birth: Birth<'_>, init: Init<'_>) -> Result<Child> {
    spawn::spawn(birth, move |join| {
        crate::init::child::run(Init { join, ..init })
    })
}

fn tolerate(global: &Global, error: Error) -> Result<()> {
    if !global.rootless {
        return Err(error);
    }
    global.warn(&format!("{} (ignored: rootless)", error.message));
    Ok(())
}

fn open_gate(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW;
    Ok(sys::path::openat2(
        AT_FDCWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlag::empty(),
    )?)
}

/// The name of the container's session keyring.
pub fn keyring(id: &ContainerId, keep_callers: bool) -> Option<std::ffi::CString> {
    // An id holds no NUL byte.
    if keep_callers {
        None
    } else {
        std::ffi::CString::new(format!("_ses.{id}")).ok()
    }
}

/// The same descriptor of a child once more.
fn watch(child: &Child) -> Result<OwnedFd> {
    child
        .pidfd
        .try_clone()
        .map_err(|error| Error::new(error.to_string()))
}

/// Kills a child and reaps it.
///
/// # Errors
/// It cannot be waited for.
pub(super) fn end(pidfd: &OwnedFd) -> std::result::Result<(), String> {
    // It may have ended by itself; all that matters is that it is reaped.
    drop(sys::process::pidfd_send_signal(pidfd, nix::libc::SIGKILL));
    match sys::process::wait(pidfd) {
        Err(error) if error.errno != nix::errno::Errno::ECHILD => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Answers the child until it is ready, or until it says which process takes its place.
fn wait_until_ready(
    socket: &OwnedFd,
    child: &Child,
    plan: &Plan,
    state: &State,
    (cgroup, unit): (&Cgroup, Option<&Making<'_>>),
) -> Result<Option<i32>> {
    loop {
        match protocol::hear_child(socket)? {
            Some(FromChild::RunHooks) => {
                let (first, second) = (&plan.hooks.prestart, &plan.hooks.create_runtime);
                let output = Output::open(&[first, second], &plan.annotations)?;
                // The validation suite of the specification, and crun, want "created" here; runc says "creating".
                let input = state.hook_input(Status::Created);
                hooks::run("prestart", first, &input, &output)?;
                let input = state.hook_input(Status::Creating);
                hooks::run("createRuntime", second, &input, &output)?;
                protocol::tell_child(socket, &ToChild::Continue)?;
            }
            Some(FromChild::SetLimits) => {
                spawn::set_rlimits(child.pid, &plan.process)?;
                protocol::tell_child(socket, &ToChild::Continue)?;
            }
            Some(FromChild::OpenSource(index)) => sources::answer(socket, child, plan, index)?,
            Some(FromChild::OpenRoot) => sources::answer_root(socket, child, plan)?,
            Some(FromChild::Delegate) => {
                if let Some(unit) = unit {
                    unit.delegate(child.pid, &plan.namespaces)?;
                }
                protocol::tell_child(socket, &ToChild::Continue)?;
            }
            Some(FromChild::Listening(fd)) => listen(socket, child, fd, plan, state)?,
            Some(FromChild::SetClocks) => {
                clocks::set(child.pid, &plan.time_offsets)?;
                protocol::tell_child(socket, &ToChild::Continue)?;
            }
            Some(FromChild::Ready) => return Ok(None),
            Some(FromChild::Failed(error)) => return Err(error),
            Some(FromChild::Pid(pid)) => return Ok(Some(pid)),
            None => return Err(died(child, cgroup)),
        }
    }
}

/// Waits until the first process is the doorkeeper: its end of the socket closes with that `execve`.
fn wait_until_replaced(socket: &OwnedFd, child: &Child, cgroup: &Cgroup) -> Result<()> {
    match protocol::hear_child(socket)? {
        Some(FromChild::Failed(error)) => Err(error),
        Some(_) => Err(Error::new("unexpected message from the first process")),
        None if sys::fd::wait_readable(&[child.pidfd.as_fd()], 0)? == [true] => {
            Err(died(child, cgroup))
        }
        None => Ok(()),
    }
}

/// Takes the listener of the child's filter to who answers for it. The child goes on meanwhile: what it does next may
/// need an answer.
fn listen(socket: &OwnedFd, child: &Child, fd: i32, plan: &Plan, state: &State) -> Result<()> {
    let listener = plan
        .seccomp
        .as_ref()
        .and_then(|seccomp| seccomp.listener.as_ref());
    let listener = listener.ok_or_else(|| Error::new("unexpected listener"))?;
    let fd = sys::process::pidfd_getfd(&child.pidfd, fd)?;
    protocol::tell_child(socket, &ToChild::Continue)?;
    listener::send(listener, state, Status::Creating, state.pid, &fd)
}

/// Why a first process ended without a word.
fn died(child: &Child, cgroup: &Cgroup) -> Error {
    let killed = match sys::process::wait(&child.pidfd) {
        Ok(sys::process::Exit::Signal(signal)) => signal,
        Ok(sys::process::Exit::Code(code)) => {
            return Error::new(format!(
                "the container's first process ended with code {code}"
            ));
        }
        Err(error) => return error.into(),
    };
    if cgroup.oom_kills().is_ok_and(|kills| kills > 0) {
        return Error::new("container init was OOM-killed (memory limit too low?)")
            .hint("linux.resources.memory.limit leaves too little memory to start");
    }
    Error::new(format!(
        "the container's first process was killed by signal {killed}"
    ))
}
