//! What a person is told when it did not work: what happened, to what, why, and what to do.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use tonic::{Code, Status};

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the system refused; `what` says the operation with its operands.
    #[error("{what}: {}", reason(.source))]
    Io {
        /// Such as `open "/var/log/x"`.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A system call refused.
    #[error("{what}: {source}")]
    Sys {
        /// What it was for.
        what: String,
        /// The call with its operands.
        source: sys::Error,
    },
    /// Nobody answers at the node's socket.
    #[error("no node answers at {}: {why}", socket.display())]
    NoNode {
        /// Where.
        socket: PathBuf,
        /// The innermost reason.
        why: String,
        /// Whether the socket's file is there.
        stale: bool,
    },
    /// The node refused a request.
    #[error("{}", answer(.call, .status.message()))]
    Refused {
        /// The request with its operands.
        call: String,
        /// The answer.
        status: Box<Status>,
    },
    /// The command needs root.
    #[error("`davit {command}` makes namespaces, mounts and cgroups: it needs root")]
    NotRoot {
        /// The command.
        command: &'static str,
    },
    /// The host cannot run containers.
    #[error("this host cannot run containers:\n{}", indent(.faults))]
    Host {
        /// One sentence each.
        faults: Vec<String>,
    },
    /// A binary or file that comes with Davit is not there.
    #[error("no {name} beside davit, in /usr/local/bin or in PATH")]
    NoProgram {
        /// Its file name.
        name: String,
    },
    /// The daemon ended before it answered.
    #[error("davit-cri ended while starting ({status}); the end of {}:\n{tail}", log.display())]
    DaemonEnded {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The daemon runs and does not answer.
    #[error("davit-cri (process {pid}) runs, but nothing answers at {} after {seconds} s; the end of {}:\n{tail}", socket.display(), log.display())]
    DaemonSilent {
        /// Its process id.
        pid: u32,
        /// Where it should answer.
        socket: PathBuf,
        /// How long it was waited for.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The sample runs and does not serve its page.
    #[error("the sample pod does not serve its page at {url}: {why}")]
    Sample {
        /// Where it should be.
        url: String,
        /// What happened instead.
        why: String,
    },
    /// The node has no pod network.
    #[error("{what}")]
    Unfinished {
        /// What could not be done, and why.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A directory is not a node's.
    #[error("{} holds what no node puts there: {}", dir.display(), entries.join(", "))]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// What is in it, by name.
        entries: Vec<String>,
    },
    /// `down` could not remove everything.
    #[error("these are left behind:\n{}", indent(.left))]
    Left {
        /// One sentence each.
        left: Vec<String>,
    },
}

impl Error {
    /// Wraps an error of the system; `what` is the operation with its operands.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// Wraps an answer of the node; `call` is the request with its operands.
    pub fn refused(call: impl Into<String>) -> impl FnOnce(Status) -> Error {
        let call = call.into();
        move |status| Error::Refused {
            call,
            status: Box::new(status),
        }
    }

    /// Whether the reader of our output went away.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The message with its hint, as `main` prints it.
    #[must_use]
    pub fn report(&self) -> String {
        match self.hint() {
            Some(hint) => format!("davit: {self}\nhint: {hint}"),
            None => format!("davit: {self}"),
        }
    }

    /// What the person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoNode { stale: true, .. } => Some("it was there once: `davit up` starts it again and finds its pods, `davit down` clears the rest away".to_owned()),
            Error::NoNode { why, .. } if why.contains("EACCES") => Some("the socket is root's: try as root".to_owned()),
            Error::NoNode { .. } => Some("`davit up` starts a node; --socket or --run-dir name another one".to_owned()),
            Error::Refused { status, .. } => refused_hint(status),
            Error::NotRoot { command } => Some(format!("`sudo davit {command}`")),
            Error::Host { .. } => Some("`davit doctor` shows everything that was looked at".to_owned()),
            Error::NoProgram { .. } => Some("`cargo xtask build` puts all of them into target/dist; keep them in one directory".to_owned()),
            Error::DaemonEnded { .. } => Some("`davit doctor` looks for what the host lacks".to_owned()),
            Error::DaemonSilent { .. } => Some("it may be busy recovering pods: watch the log; `davit down` stops it".to_owned()),
            Error::Sample { .. } => Some("`davit status` shows the pod; `crictl logs` its log; a firewall on this host may drop what comes from the bridge".to_owned()),
            Error::Unfinished { hint, .. } => Some(hint.clone()),
            Error::ForeignDirectory { .. } => Some("a node needs directories of its own, such as /run/davit: --run-dir and --state-dir name them".to_owned()),
            Error::Left { .. } => Some("run `davit down` again; what then still stays is held by a process that the line names".to_owned()),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some("try as root".to_owned()),
            Error::Io { .. } | Error::Sys { .. } => None,
        }
    }
}

fn refused_hint(status: &Status) -> Option<String> {
    match status.code() {
        Code::Unimplemented => Some(
            "this node speaks CRI but not davit.v1: is it davit-cri, and of this version?"
                .to_owned(),
        ),
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("--username asks the registry in your name".to_owned())
        }
        Code::Unavailable if status.source().is_some() => {
            Some("the node went away in the middle: `davit status` says whether it runs".to_owned())
        }
        _ => None,
    }
}

/// The errno by its name, as every other message of Davit has it.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let errno = nix::errno::Errno::from_raw(code);
            format!(
                "{} ({})",
                errno.desc().to_lowercase(),
                sys::error::errno_name(errno)
            )
        }
        None => error.to_string(),
    }
}

/// The request with the answer to it; an answer that names the request itself stands alone.
fn answer(call: &str, message: &str) -> String {
    if message.starts_with(call) {
        return message.to_owned();
    }
    format!("{call}: {message}")
}

fn indent(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("  - {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_why_and_what_to_do() {
        let error =
            Error::io("open \"/var/log/davit/davit-cri.log\"")(io::Error::from_raw_os_error(13));
        assert_eq!(
            error.report(),
            "davit: open \"/var/log/davit/davit-cri.log\": permission denied (EACCES)\nhint: try as root"
        );
    }

    #[test]
    fn what_the_node_answered_is_told_with_the_request_and_without_grpc_words() {
        let error =
            Error::refused("pull \"nosuch:1\"")(Status::not_found("nosuch:1: no such image"));
        assert_eq!(
            error.report(),
            "davit: pull \"nosuch:1\": nosuch:1: no such image"
        );
    }

    #[test]
    fn an_answer_that_names_the_request_itself_is_not_given_its_name_twice() {
        let error = Error::refused("pull \"x:1\"")(Status::not_found(
            "pull \"x:1\": registry r: manifest unknown",
        ));
        assert_eq!(
            error.to_string(),
            "pull \"x:1\": registry r: manifest unknown"
        );
    }

    #[test]
    fn a_node_that_never_was_and_one_that_died_get_different_advice() {
        let no_node = |stale| Error::NoNode {
            socket: "/s".into(),
            why: "connection refused (ECONNREFUSED)".into(),
            stale,
        };
        assert!(no_node(false).report().contains("`davit up` starts a node"));
        assert!(no_node(true).report().contains("it was there once"));
    }
}
