//! Starting and stopping `davit-cri`.
//!
//! A daemon leads its own session, works in `/` and logs to a file. There is no unsafe `pre_exec` for that: `davit`
//! starts itself once more, as `davit exec-daemon`, which calls setsid(2) and becomes the daemon; the process id stays.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cni::BuiltinOptions;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::args::ExecOptions;
use crate::client::Client;
use crate::node::{self, Node};
use crate::{Error, Result};

/// The daemon's file name.
pub const PROGRAM: &str = "davit-cri";
/// Its configuration file, if no flag names another.
const CONFIG: &str = "/etc/davit/config.toml";
/// A log that grew past this is moved to `<log>.1` before the daemon starts.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;
/// How much of the log an error shows.
const TAIL: u64 = 2048;
/// How often a starting daemon is asked.
const POLL: Duration = Duration::from_millis(20);

/// A file of Davit: beside this program, then in /usr/local/bin, then in PATH.
///
/// # Errors
/// It is in none of them.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = own
        .into_iter()
        .chain([PathBuf::from("/usr/local/bin")])
        .chain(std::env::split_paths(&path));
    let mut candidates = dirs.map(|dir| dir.join(name));
    candidates
        .find(|file| file.is_file())
        .ok_or_else(|| Error::NoProgram {
            name: name.to_owned(),
        })
}

/// What a daemon was told, as far as `down` must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The whole command line.
    pub args: Vec<OsString>,
    /// The bridge of the built-in network.
    pub bridge: String,
    /// Its subnet, if it is not the default one.
    pub subnet: Option<Ipv4Net>,
    /// The cgroup of pods without a parent of their own.
    pub cgroup_root: String,
    /// Where CNI keeps results and addresses.
    pub cni_cache_dir: PathBuf,
}

impl Settings {
    /// Reads the flags of a `davit-cri` and its configuration file; what is in neither has its default.
    #[must_use]
    pub fn of_args(args: &[OsString]) -> Settings {
        let flag =
            |name: &str| value_of(args, name).map(|value| value.to_string_lossy().into_owned());
        let file =
            fs::read_to_string(flag("--config").as_deref().unwrap_or(CONFIG)).unwrap_or_default();
        // The daemon has judged the file; what it refused never ran.
        let file: toml::Table = file.parse().unwrap_or_default();
        let network = |key: &str| {
            file.get("network")
                .and_then(|table| table.get(key)?.as_str())
                .map(str::to_owned)
        };
        let root_in_file = file
            .get("cgroup_root")
            .and_then(|root| root.as_str())
            .map(str::to_owned);
        Settings {
            args: args.to_vec(),
            bridge: flag("--bridge")
                .or(network("bridge"))
                .unwrap_or(BuiltinOptions::default().bridge_name),
            subnet: flag("--subnet")
                .or(network("subnet"))
                .and_then(|subnet| subnet.parse().ok()),
            cgroup_root: flag("--cgroup-root")
                .or(root_in_file)
                .unwrap_or("/davit".to_owned()),
            cni_cache_dir: flag("--cni-cache-dir")
                .unwrap_or("/var/lib/cni".to_owned())
                .into(),
        }
    }

    /// The built-in network as the daemon makes it: on another bridge it is another network, named after that.
    #[must_use]
    pub fn builtin_network(&self) -> BuiltinOptions {
        let mut network = BuiltinOptions::default();
        if self.bridge != network.bridge_name {
            network.name.clone_from(&self.bridge);
        }
        network.bridge_name.clone_from(&self.bridge);
        network.subnet = self.subnet.unwrap_or(network.subnet);
        network
    }

    /// What the running daemon was told; failing that, what `up` wrote down; failing that, nothing.
    #[must_use]
    pub fn of_node(node: &Node, pid: Option<i32>) -> Settings {
        let running = pid.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
        let recorded = || fs::read(record(node)).ok();
        let line = running.or_else(recorded).unwrap_or_default();
        Settings::of_args(&split(&line))
    }
}

/// `--name value` or `--name=value`, the last one as clap would take it.
fn value_of(args: &[OsString], name: &str) -> Option<OsString> {
    let joined = format!("{name}=");
    let at = args
        .iter()
        .rposition(|arg| arg == name || arg.to_string_lossy().starts_with(&joined))?;
    match args[at].to_string_lossy().strip_prefix(&joined) {
        Some(value) => Some(value.into()),
        None => args.get(at + 1).cloned(),
    }
}

/// The processes that are this node's daemon, by their command lines: for when nobody answers at the socket.
#[must_use]
pub fn running(node: &Node) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_daemon_of(*pid, &node.run_dir))
        .collect()
}

fn is_daemon_of(pid: i32, run_dir: &Path) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<OsString> = split(&line);
    let given = value_of(&words, "--run-dir");
    comm.trim() == PROGRAM
        && given.map_or(run_dir == Path::new(node::RUN_DIR), |dir| {
            run_dir == Path::new(&dir)
        })
}

/// A command line as /proc and our record have it: each word ends with a zero byte.
fn split(line: &[u8]) -> Vec<OsString> {
    let words = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Where `up` writes down the daemon's command line, for a `down` that finds it dead. In the run directory: it goes with the pods.
fn record(node: &Node) -> PathBuf {
    node.run_dir.join("up.cmdline")
}

/// CNI configuration of a node that `up` starts. Not `/etc/cni/net.d`: what another program left there (Debian's podman
/// brings a network of its own) must not decide how the first pod is connected. `up -- --cni-conf-dir DIR` says otherwise.
const OWN_NETWORKS: &str = "/etc/davit/net.d";

/// Starts `davit-cri` and waits until it answers.
///
/// # Errors
/// The program is missing, it ended (the end of its log is in the error), or it does not answer in time.
pub async fn start(node: &Node, args: &[OsString], patience: Duration) -> Result<Client> {
    let mut command: Vec<OsString> = vec![find(PROGRAM)?.into()];
    for (flag, dir) in [
        ("--run-dir", &node.run_dir),
        ("--state-dir", &node.state_dir),
        ("--socket", &node.socket),
        ("--cni-conf-dir", &PathBuf::from(OWN_NETWORKS)),
    ] {
        command.extend([flag.into(), dir.into()]);
    }
    command.extend(args.iter().cloned());
    launch(node, &command, patience).await
}

/// Starts a daemon that died once more, by the command line that was written down; by the defaults if none was.
///
/// # Errors
/// As [`start`].
pub async fn restart(node: &Node, command: &[OsString], patience: Duration) -> Result<Client> {
    match command.first() {
        Some(program) if Path::new(program).is_file() => launch(node, command, patience).await,
        _ => start(node, &[], patience).await,
    }
}

async fn launch(node: &Node, command: &[OsString], patience: Duration) -> Result<Client> {
    let log = open_log(&node.log)?;
    let start_of_log = log.metadata().map_or(0, |m| m.len());
    let child = spawn(command, log)?;
    let client = wait_ready(node, child, start_of_log, patience).await?;
    let line: Vec<u8> = command
        .iter()
        .flat_map(|word| [word.as_encoded_bytes(), b"\0"].concat())
        .collect();
    fs::write(record(node), line)
        .map_err(Error::io(format!("write {}", record(node).display())))?;
    Ok(client)
}

fn spawn(command: &[OsString], log: File) -> Result<Child> {
    let own = std::env::current_exe().map_err(Error::io("find the file of this program"))?;
    let stderr = log
        .try_clone()
        .map_err(Error::io("duplicate the log's descriptor"))?;
    let mut start = Command::new(&own);
    start
        .args(["exec-daemon", "--"])
        .args(command)
        .current_dir("/");
    start
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(stderr)
        .spawn()
        .map_err(Error::io(format!("start {}", own.display())))
}

/// The hidden half of [`start`]: leads a session, and becomes the program.
///
/// # Errors
/// It returns only when the program could not be executed.
pub fn become_daemon(options: &ExecOptions) -> Result<u8> {
    nix::unistd::setsid().map_err(|errno| Error::Io {
        what: "setsid()".to_owned(),
        source: errno.into(),
    })?;
    let program = options
        .command
        .first()
        .map(OsString::as_os_str)
        .unwrap_or(OsStr::new(PROGRAM));
    let error = Command::new(program).args(&options.command[1..]).exec();
    Err(Error::Io {
        what: format!("execve({})", program.display()),
        source: error,
    })
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    }
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_LIMIT) {
        let old = path.with_extension("log.1");
        fs::rename(path, &old).map_err(Error::io(format!(
            "rename {} to {}",
            path.display(),
            old.display()
        )))?;
    }
    let open = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path);
    open.map_err(Error::io(format!("open {}", path.display())))
}

async fn wait_ready(
    node: &Node,
    mut child: Child,
    start_of_log: u64,
    patience: Duration,
) -> Result<Client> {
    let deadline = Instant::now() + patience;
    loop {
        let gone = child
            .try_wait()
            .map_err(Error::io(format!("wait for process {}", child.id())))?;
        if let Some(status) = gone {
            return Err(Error::DaemonEnded {
                status,
                log: node.log.clone(),
                tail: tail(&node.log, start_of_log),
            });
        }
        match Client::connect_ready(node).await {
            Ok(client) => return Ok(client),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(_) => {
                return Err(Error::DaemonSilent {
                    pid: child.id(),
                    socket: node.socket.clone(),
                    seconds: patience.as_secs(),
                    log: node.log.clone(),
                    tail: tail(&node.log, start_of_log),
                });
            }
        }
    }
}

/// The end of what this daemon logged; an empty text is said in words.
fn tail(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    match read() {
        Ok(text) if text.is_empty() => "  (nothing)".to_owned(),
        Ok(text) => text
            .lines()
            .map(|line| format!("  {line}"))
            .collect::<Vec<_>>()
            .join("\n"),
        Err(error) => format!("  (it cannot be read: {error})"),
    }
}

/// Asks the process to end, and kills it when it does not.
///
/// # Errors
/// The signal may not be sent, or the process outlives even SIGKILL.
pub async fn stop(pid: i32, patience: Duration) -> Result<()> {
    let Some(process) = Process::open(pid)? else {
        return Ok(());
    };
    process.signal(Signal::SIGTERM)?;
    if process.ends_within(patience).await? {
        return Ok(());
    }
    process.signal(Signal::SIGKILL)?;
    if process.ends_within(patience).await? {
        return Ok(());
    }
    Err(Error::Left {
        left: vec![format!(
            "process {pid}, which does not end by SIGKILL (in uninterruptible sleep?)"
        )],
    })
}

/// A process by its pidfd: its number cannot come to mean another one meanwhile.
struct Process {
    pid: i32,
    fd: Arc<OwnedFd>,
}

impl Process {
    /// `None` if it has ended already.
    fn open(pid: i32) -> Result<Option<Process>> {
        match sys::process::pidfd_open(Pid::from_raw(pid)) {
            Ok(fd) => Ok(Some(Process {
                pid,
                fd: Arc::new(fd),
            })),
            Err(error) if error.errno == Errno::ESRCH => Ok(None),
            Err(source) => Err(Error::Sys {
                what: format!("watch process {pid}"),
                source,
            }),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match sys::process::pidfd_send_signal(&self.fd, signal as i32) {
            Err(error) if error.errno == Errno::ESRCH => Ok(()),
            other => other.map_err(|source| Error::Sys {
                what: format!("end process {}", self.pid),
                source,
            }),
        }
    }

    /// A pidfd becomes readable when its process ends.
    async fn ends_within(&self, patience: Duration) -> Result<bool> {
        let fd = Arc::clone(&self.fd);
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let polled = tokio::task::spawn_blocking(move || {
            poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout)
        })
        .await;
        let failed = |source| Error::Io {
            what: format!("wait for process {}", self.pid),
            source,
        };
        match polled.map_err(|error| failed(error.into()))? {
            Ok(ready) => Ok(ready > 0),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn flags_of_a_daemon_are_read_in_both_spellings_and_default_when_absent() {
        let settings = Settings::of_args(&words(
            "davit-cri --bridge=b7 --cgroup-root /x --log-level debug",
        ));
        assert_eq!(settings.bridge, "b7");
        assert_eq!(settings.cgroup_root, "/x");
        assert_eq!(settings.cni_cache_dir, Path::new("/var/lib/cni"));
    }

    #[test]
    fn the_network_of_a_daemon_is_read_from_its_configuration_file_and_a_flag_wins() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        fs::write(
            &config,
            "[network]\nbridge = \"file0\"\nsubnet = \"10.7.0.0/24\"\n",
        )
        .unwrap();
        let line = format!("davit-cri --config {}", config.display());
        let settings = Settings::of_args(&words(&line));
        assert_eq!(
            (settings.bridge.as_str(), settings.subnet),
            ("file0", "10.7.0.0/24".parse().ok())
        );
        assert_eq!(
            Settings::of_args(&words(&format!("{line} --bridge flag0"))).bridge,
            "flag0"
        );
    }

    #[test]
    fn a_flag_without_its_value_is_as_if_absent() {
        assert_eq!(
            Settings::of_args(&words("davit-cri --bridge")).bridge,
            "davit0"
        );
    }

    #[test]
    fn the_tail_shows_only_what_this_start_logged() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old line\nnew line\n").unwrap();
        assert_eq!(tail(&log, 9), "  new line");
        assert_eq!(tail(&log, 18), "  (nothing)");
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed_after_the_patience() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        stop(
            i32::try_from(child.id()).unwrap(),
            Duration::from_millis(100),
        )
        .await
        .unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(9)
        );
    }

    #[tokio::test]
    async fn a_process_that_ended_already_needs_no_stopping() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        stop(i32::try_from(child.id()).unwrap(), Duration::from_secs(1))
            .await
            .unwrap();
    }
}
