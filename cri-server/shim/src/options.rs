//! The command line.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use id_map::id_map;
pub use id_map::{IdMap, IdMaps};

mod id_map;

/// What `--help` prints.
pub const HELP: &str = "\
davit-shim supervises the containers of one pod. It is started by davit-cri, not by people.

usage: davit-shim --pod-id ID --pod-dir DIR [options]

  --pod-id ID               the pod that it serves
  --pod-dir DIR             where it keeps shim.sock, shim.pid and ns/
  --new-net                 makes a network namespace, with lo up, and pins it at DIR/ns/net
  --new-ipc                 makes an IPC namespace and pins it at DIR/ns/ipc
  --new-uts                 makes a UTS namespace and pins it at DIR/ns/uts
  --new-pid                 makes a PID namespace with an init that reaps, and pins it at DIR/ns/pid
  --uid-map C:H:N           makes a user namespace that owns the other new ones, with N user ids from C inside and H
                            outside, and pins it at DIR/ns/user
  --gid-map C:H:N           the same for its group ids
  --hostname NAME           the host name of the new UTS namespace
  --sysctl KEY=VALUE        a sysctl of the new namespaces; may be repeated
  --cgroup-parent PATH      puts the init of --new-pid into the cgroup PATH/init
  --runtime-deadline SECS   how long one OCI runtime command may take (default 100)
  --version, --help

It goes to the background, prints one line of JSON ({\"ready\":true,...} or {\"error\":\"...\"}) and exits 0 or 1.
";

/// How long one runtime command may take by default: less than the two minutes after which a kubelet gives up, so
/// that it hears what happened.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(100);

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The pod that this shim serves.
    pub pod_id: String,
    /// Where its files are; absolute.
    pub pod_dir: PathBuf,
    /// Make a network namespace.
    pub new_net: bool,
    /// Make an IPC namespace.
    pub new_ipc: bool,
    /// Make a UTS namespace.
    pub new_uts: bool,
    /// Make a PID namespace with an init.
    pub new_pid: bool,
    /// Make a user namespace that owns the others.
    pub new_user: Option<IdMaps>,
    /// The host name of the new UTS namespace.
    pub hostname: Option<String>,
    /// Sysctls of the new namespaces.
    pub sysctls: Vec<(String, String)>,
    /// The cgroup under which the pod's init gets its own.
    pub cgroup_parent: Option<PathBuf>,
    /// How long one runtime command may take.
    pub runtime_deadline: Duration,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To serve a pod.
    Serve(Box<Options>),
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// Why a command line is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not parse.
    #[error("{0}")]
    Syntax(#[from] lexopt::Error),
    /// A required option is absent.
    #[error("{0} is required")]
    Missing(&'static str),
    /// An option has a value that makes no sense.
    #[error("{option} {value:?}: {why}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// The first option that is unknown, incomplete or senseless.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut pod_id, mut pod_dir) = (None, None);
    let (mut uids, mut gids) = (None, None);
    let mut options = Options {
        pod_id: String::new(),
        pod_dir: PathBuf::new(),
        new_net: false,
        new_ipc: false,
        new_uts: false,
        new_pid: false,
        new_user: None,
        hostname: None,
        sysctls: Vec::new(),
        cgroup_parent: None,
        runtime_deadline: RUNTIME_DEADLINE,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("pod-id") => pod_id = Some(parser.value()?.string()?),
            Long("pod-dir") => pod_dir = Some(PathBuf::from(parser.value()?)),
            Long("new-net") => options.new_net = true,
            Long("new-ipc") => options.new_ipc = true,
            Long("new-uts") => options.new_uts = true,
            Long("new-pid") => options.new_pid = true,
            Long("uid-map") => uids = Some(id_map("--uid-map", &parser.value()?.string()?)?),
            Long("gid-map") => gids = Some(id_map("--gid-map", &parser.value()?.string()?)?),
            Long("hostname") => options.hostname = Some(parser.value()?.string()?),
            Long("sysctl") => options
                .sysctls
                .push(key_and_value(&parser.value()?.string()?)?),
            Long("cgroup-parent") => options.cgroup_parent = Some(PathBuf::from(parser.value()?)),
            Long("runtime-deadline") => {
                options.runtime_deadline = seconds(&parser.value()?.string()?)?
            }
            Long("version") | Short('V') => return Ok(Request::Version),
            Long("help") | Short('h') => return Ok(Request::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    options.pod_id = pod_id.ok_or(Error::Missing("--pod-id"))?;
    options.pod_dir = pod_dir.ok_or(Error::Missing("--pod-dir"))?;
    options.new_user = match (uids, gids) {
        (None, None) => None,
        (uids, gids) => Some(IdMaps {
            uids: uids.ok_or(Error::Missing("--uid-map"))?,
            gids: gids.ok_or(Error::Missing("--gid-map"))?,
        }),
    };
    check(&options)?;
    Ok(Request::Serve(Box::new(options)))
}

fn check(options: &Options) -> Result<(), Error> {
    let bad = |option, value: &str, why: &str| {
        Err(Error::Value {
            option,
            value: value.into(),
            why: why.into(),
        })
    };
    if !options.pod_dir.is_absolute() {
        return bad(
            "--pod-dir",
            &options.pod_dir.to_string_lossy(),
            "not an absolute path",
        );
    }
    if let Some(hostname) = options.hostname.as_ref().filter(|_| !options.new_uts) {
        return bad(
            "--hostname",
            hostname,
            "needs --new-uts: without it the name of this host would change",
        );
    }
    if let Some(parent) = options
        .cgroup_parent
        .as_ref()
        .filter(|parent| !parent.is_absolute())
    {
        return bad(
            "--cgroup-parent",
            &parent.to_string_lossy(),
            "not an absolute path",
        );
    }
    for (key, _) in &options.sysctls {
        sysctl_path(key, options).map_err(|why| Error::Value {
            option: "--sysctl",
            value: key.clone(),
            why,
        })?;
    }
    Ok(())
}

fn key_and_value(text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::Value {
            option: "--sysctl",
            value: text.to_owned(),
            why: "not KEY=VALUE".into(),
        }),
    }
}

fn seconds(text: &str) -> Result<Duration, Error> {
    let parsed = text
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match parsed {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(Error::Value {
            option: "--runtime-deadline",
            value: text.to_owned(),
            why: "not a positive number of seconds".into(),
        }),
    }
}

/// The file of a sysctl, relative to /proc/sys, if it belongs to a namespace that this pod gets for itself.
///
/// As sysctl(8): the first separator decides; in `net.ipv4.conf.eth0/1.forwarding` the slash stands for a dot of a name.
pub(crate) fn sysctl_path(key: &str, options: &Options) -> Result<String, String> {
    let path: String = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("not a sysctl name".into());
    }
    let needs = match path.as_str() {
        p if p.starts_with("net/") => ("--new-net", options.new_net),
        p if p.starts_with("fs/mqueue/") => ("--new-ipc", options.new_ipc),
        p if p.starts_with("kernel/shm") || p.starts_with("kernel/msg") => {
            ("--new-ipc", options.new_ipc)
        }
        "kernel/sem" => ("--new-ipc", options.new_ipc),
        "kernel/domainname" => ("--new-uts", options.new_uts),
        "kernel/hostname" => return Err("use --hostname".into()),
        _ => return Err("belongs to no namespace of a pod: it would change the host".into()),
    };
    if needs.1 {
        Ok(path)
    } else {
        Err(format!(
            "needs {}: without it the host would change",
            needs.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Request, Error> {
        parse(words.iter().map(OsString::from))
    }

    fn refused(words: &[&str]) -> String {
        let required = ["--pod-id", "p", "--pod-dir", "/run/p"];
        parse_words(&[&required, words].concat())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_whole_command_line_of_a_pod_is_understood() {
        let words = "--pod-id p --pod-dir /run/p --new-net --new-ipc --new-uts --new-pid --hostname web \
                     --sysctl net.ipv4.ip_forward=1 --sysctl kernel.sem=1=2 --cgroup-parent /kube/p --runtime-deadline 1.5";
        let Request::Serve(options) = parse_words(
            &words
                .split(' ')
                .filter(|w| !w.is_empty())
                .collect::<Vec<_>>(),
        )
        .unwrap() else {
            panic!("not a request to serve")
        };
        assert!(options.new_net && options.new_ipc && options.new_uts && options.new_pid);
        assert_eq!(options.new_user, None);
        assert_eq!(options.sysctls[1], ("kernel.sem".into(), "1=2".into()));
        assert_eq!(options.runtime_deadline, Duration::from_millis(1500));
    }

    #[test]
    fn what_would_change_the_host_is_refused_with_the_reason() {
        assert_eq!(
            refused(&["--hostname", "x"]),
            "--hostname \"x\": needs --new-uts: without it the name of this host would change"
        );
        assert_eq!(
            refused(&["--sysctl", "net.core.somaxconn=1"]),
            "--sysctl \"net.core.somaxconn\": needs --new-net: without it the host would change"
        );
        assert!(
            refused(&["--new-net", "--sysctl", "vm.swappiness=1"])
                .contains("belongs to no namespace")
        );
        assert!(
            refused(&["--new-net", "--sysctl", "net/../vm/swappiness=1"])
                .contains("not a sysctl name")
        );
        assert!(refused(&["--new-net", "--sysctl", "net.ipv4"]).contains("not KEY=VALUE"));
    }

    #[test]
    fn both_separators_of_sysctl_names_work() {
        let Request::Serve(options) =
            parse_words(&["--pod-id", "p", "--pod-dir", "/p", "--new-net"]).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.forwarding", &options).unwrap(),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/forwarding", &options).unwrap(),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn missing_and_senseless_options_are_named() {
        assert_eq!(
            parse_words(&[]).unwrap_err().to_string(),
            "--pod-id is required"
        );
        assert_eq!(
            parse_words(&["--pod-id", "p", "--pod-dir", "run"])
                .unwrap_err()
                .to_string(),
            "--pod-dir \"run\": not an absolute path"
        );
        assert!(refused(&["--runtime-deadline", "0"]).contains("positive"));
        assert_eq!(refused(&["--uid-map", "0:1:2"]), "--gid-map is required");
        assert!(refused(&["--bogus"]).contains("--bogus"));
    }
}
