//! What is said on `<pod-dir>/shim.sock`, version 1.
//!
//! `SOCK_SEQPACKET`; every packet is one JSON object of at most [`MAX_PACKET`] bytes; descriptors travel as
//! `SCM_RIGHTS` of the packet that needs them.
//!
//! ```text
//! client                                                      shim
//!   {"seq":1,"op":{"hello":{"version":1}}}            ──▶
//!                     ◀──  {"seq":1,"ok":{"version":1,"pid":7,"pod_id":"p"}}
//!   {"seq":2,"op":{"start":{"container_id":"c"}}}     ──▶
//!                     ◀──  {"seq":2,"err":{"kind":"runtime","message":"…"}}
//!   {"seq":3,"op":{"subscribe":{}}}                   ──▶
//!                     ◀──  {"seq":3,"ok":{}}
//!                     ◀──  {"event":{"exit":{"container_id":"c","exit":{…}}}}
//! ```
//!
//! - Replies come in the order in which operations end, so `seq` is what pairs them; many may run at once, on one
//!   connection or on several.
//! - An unknown operation is answered with `invalid` and its name, so that a newer daemon can try and fall back.
//!   Unknown fields are ignored for the same reason. Anything that is not such an object ends the connection, no more.
//! - Events carry no history: a client that (re)connects subscribes first and then asks for `status`; what it sees twice is
//!   the same exit. An `exec_exit` may overtake the reply of its `exec`, which is why the client names the exec.
//! - A subscriber that does not read until the socket's buffer is full is disconnected.
//!
//! **A dead shim** (SIGKILL, OOM) leaves `shim.pid` and `shim.sock` behind. The socket then refuses connections
//! (`ECONNREFUSED`) and the process of `shim.pid` is gone or has another start time; [`crate::files::probe`] tells. Its
//! containers may still run without a reader for their output. Pinned namespaces stay until they are unmounted.
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version that this code speaks.
pub const VERSION: u32 = 1;

/// The largest packet, either way.
pub const MAX_PACKET: usize = 64 * 1024;

/// A request: a number that comes back in the reply, and an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client.
    pub seq: u64,
    /// What to do.
    pub op: Op,
}

/// Every operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Says which version the client speaks; answers with [`Hello`].
    Hello {
        /// The client's version.
        version: u32,
    },
    /// Creates a container; answers with [`Created`].
    Create(Create),
    /// Runs the container's program.
    Start {
        /// Which container.
        container_id: String,
    },
    /// Sends a signal; answers with [`Signalled`].
    Signal {
        /// Which container.
        container_id: String,
        /// The signal's number.
        signal: i32,
        /// To every process of the container's cgroup, also after its init ended.
        #[serde(default)]
        all: bool,
    },
    /// Removes a container from the runtime; an unknown one is no error.
    Delete {
        /// Which container.
        container_id: String,
        /// Kills it first.
        #[serde(default)]
        force: bool,
    },
    /// Runs another program in a container; answers with [`ExecStarted`]. Carries descriptors:
    /// stdin, stdout, stderr, or only the last two for an empty stdin. With a terminal it carries none, and the answer
    /// carries the terminal's master.
    Exec(Exec),
    /// Kills an exec with all its descendants and its session, also after its first process ended.
    KillExec {
        /// Which container.
        container_id: String,
        /// Which exec.
        exec_id: String,
    },
    /// Changes the resources of a running container.
    Update {
        /// Which container.
        container_id: String,
        /// A file with the OCI `linux.resources` object.
        resources_path: PathBuf,
    },
    /// Opens the log file again, after it was renamed; answers when the new file is open.
    ReopenLog {
        /// Which container.
        container_id: String,
    },
    /// Tells what runs; answers with [`Status`].
    Status {},
    /// Sends events on this connection from now on.
    Subscribe {},
    /// Attaches to a container's streams; answers with [`Attached`]. Carries the writing ends of pipes for what is asked
    /// for: stdout, then stderr. They are closed when the container ends, when its output does, and when a pipe is full:
    /// nobody who reads slowly holds up a container's log.
    Attach(Attach),
    /// Ends the shim: namespaces are unpinned, its files removed.
    Shutdown {
        /// Kills and deletes what still runs; without it, running containers refuse the shutdown.
        #[serde(default)]
        force: bool,
    },
}

/// The OCI runtime to use for a container: `<path> [--root <root>] <args…> create …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The program, an absolute path.
    pub path: PathBuf,
    /// Where it keeps its state; its own default when absent.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// More global arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Operands of `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The new container's id.
    pub container_id: String,
    /// Who creates it.
    pub runtime: Runtime,
    /// The OCI bundle, an absolute path. The shim writes `init.pid`, `runtime.log` and `exit` there.
    pub bundle: PathBuf,
    /// The CRI log file; without one the output is read and dropped.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Whether the process has a terminal (`process.terminal` of the bundle must say the same).
    #[serde(default)]
    pub terminal: bool,
    /// Whether stdin is an open pipe rather than empty.
    #[serde(default)]
    pub stdin: bool,
    /// More arguments after `create`.
    #[serde(default)]
    pub create_args: Vec<String>,
}

/// Operands of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Where to run.
    pub container_id: String,
    /// The client's name for this exec, unique in its container.
    pub exec_id: String,
    /// A file with an OCI `process` object.
    pub process_json_path: PathBuf,
    /// Whether it has a terminal (`process.terminal` of the file must say the same). Old shims refuse it.
    #[serde(default)]
    pub terminal: bool,
}

/// Operands of `attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which container.
    pub container_id: String,
    /// Copies its stdout, or its terminal.
    #[serde(default)]
    pub stdout: bool,
    /// Copies its stderr, which a container with a terminal has not.
    #[serde(default)]
    pub stderr: bool,
    /// Hands out its stdin.
    #[serde(default)]
    pub stdin: bool,
    /// With `stdin`: hands it out for good, so that the container's stdin ends with this client.
    #[serde(default)]
    pub stdin_once: bool,
}

/// Answer to `attach`. It carries one descriptor if the container has a terminal (its master, whatever was asked for), or
/// if its stdin was asked for and is open (the writing end).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whether the descriptor is a terminal.
    #[serde(default)]
    pub terminal: bool,
}

/// Answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The shim's version.
    pub version: u32,
    /// Its process id.
    pub pid: i32,
    /// The pod that it serves.
    pub pod_id: String,
}

/// Answer to `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The container's init process.
    pub pid: i32,
}

/// Answer to `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// The new process.
    pub pid: i32,
}

/// Answer to `signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// Whether a process was there to receive it.
    pub delivered: bool,
}

/// Answer to operations that have nothing to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Every container that was not deleted.
    pub containers: Vec<ContainerStatus>,
    /// Whether the init of the shared pid namespace lives; absent without one.
    #[serde(default)]
    pub pod_init_alive: Option<bool>,
    /// Its process id.
    #[serde(default)]
    pub pod_init_pid: Option<i32>,
}

/// One container of a `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its id.
    pub id: String,
    /// Its init process; 0 while it is being created.
    pub pid: i32,
    /// Where it stands.
    pub state: State,
    /// How it ended, in state `exited`.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// When `start` succeeded, nanoseconds since 1970; 0 before.
    #[serde(default)]
    pub started_at_ns: i64,
    /// Log lines that could not be written (a full disk).
    #[serde(default)]
    pub log_lines_lost: u64,
    /// Execs whose first process still runs.
    #[serde(default)]
    pub execs: Vec<String>,
    /// The last execs that ended, with their codes: for a client that was not connected. Old shims do not say.
    #[serde(default)]
    pub ended_execs: Vec<(String, i32)>,
}

/// The states of a container, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// `create` runs.
    Creating,
    /// The init waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The init ended, its output is in the log, and the exit file is written.
    Exited,
}

/// How a container's init ended. The content of `<bundle>/exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, 128 + signal when it was killed.
    pub code: i32,
    /// The signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory, and the init ended with 137.
    #[serde(default)]
    pub oom: bool,
    /// When, nanoseconds since 1970.
    pub finished_at_ns: i64,
}

/// What subscribers are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container ended; its log is complete and its exit file written.
    Exit {
        /// Which container.
        container_id: String,
        /// How.
        exit: Exit,
    },
    /// The first process of an exec ended.
    ExecExit {
        /// Which container.
        container_id: String,
        /// Which exec.
        exec_id: String,
        /// Its code, 128 + signal when it was killed.
        exit_code: i32,
    },
    /// The init of the shared pid namespace ended, and with it every process of the pod.
    PodInitExit {},
}

/// The kinds of errors, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No such container or exec.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The OCI runtime refused; the message is its own.
    Runtime,
    /// The request makes no sense, or not now.
    Invalid,
    /// The shim itself met an error.
    Internal,
    /// The OCI runtime did not end in time and was killed.
    Timeout,
    /// A kind that a newer shim invented.
    #[serde(other)]
    Unknown,
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

/// What comes from the shim: a reply or an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// The operation succeeded.
    Ok {
        /// The request's number.
        seq: u64,
        /// The operation's answer.
        ok: serde_json::Value,
    },
    /// It did not.
    Err {
        /// The request's number.
        seq: u64,
        /// Why.
        err: WireError,
    },
    /// Something happened (only after `subscribe`).
    Event {
        /// What.
        event: Event,
    },
}

/// Why a packet is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not `{"seq":number,"op":{"name":{…}}}` at all: the connection cannot be trusted.
    #[error("not a request: {0}")]
    Garbage(String),
    /// It is, but the operation or its operands are not known: answerable.
    #[error("{message}")]
    Operation {
        /// The number to answer to.
        seq: u64,
        /// What is wrong, naming the operation.
        message: String,
    },
}

/// Decodes one packet.
///
/// # Errors
/// [`Malformed`], which tells whether it can be answered.
pub fn decode_request(packet: &[u8]) -> Result<Request, Malformed> {
    #[derive(Deserialize)]
    struct Envelope {
        seq: u64,
        op: serde_json::Map<String, serde_json::Value>,
    }
    let Envelope { seq, op } =
        serde_json::from_slice(packet).map_err(|error| Malformed::Garbage(error.to_string()))?;
    let name = match op.keys().next() {
        Some(name) if op.len() == 1 => bounded(name),
        _ => {
            return Err(Malformed::Garbage(format!(
                "\"op\" has {} members, not one",
                op.len()
            )));
        }
    };
    match serde_json::from_value(serde_json::Value::Object(op)) {
        Ok(op) => Ok(Request { seq, op }),
        Err(error) if error.to_string().starts_with("unknown variant") => {
            let message =
                format!("unknown operation \"{name}\" (this shim speaks version {VERSION})");
            Err(Malformed::Operation { seq, message })
        }
        Err(error) => Err(Malformed::Operation {
            seq,
            message: format!("operation \"{name}\": {}", bounded(&error.to_string())),
        }),
    }
}

/// Encodes anything of this protocol; `None` when it exceeds a packet.
pub fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(message)
        .ok()
        .filter(|packet| packet.len() <= MAX_PACKET)
}

/// A text that came from outside, short enough for a message.
fn bounded(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
#[path = "protocol/tests.rs"]
mod tests;
