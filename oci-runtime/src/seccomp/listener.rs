//! The descriptor on which another process answers for some calls, and its way to that process.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::socket::{self, Kind};

use super::Listener;
use crate::error::{Error, Result, Within};
use crate::state::{HookState, State, Status};

/// What comes with the descriptor: `ContainerProcessState` of the runtime spec.
#[derive(serde::Serialize)]
struct Message<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: HookState<'a>,
}

/// Sends the descriptor of a process's filter to who answers for it. `pid` is that process, which for `exec` is not
/// the one of `state`.
///
/// # Errors
/// Nobody listens at the socket, or it was closed again.
pub fn send(
    listener: &Listener,
    state: &State,
    status: Status,
    pid: i32,
    fd: &OwnedFd,
) -> Result<()> {
    let what = || "linux.seccomp.listenerPath".to_owned();
    let message = Message {
        oci_version: state.oci_version.as_str(),
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state: state.hook_state(status),
    };
    let text = serde_json::to_vec(&message).map_err(|error| Error::new(error.to_string()))?;
    let socket = socket::connect(Path::new(&listener.path), Kind::Stream)
        .within(|| {
            "failed to connect with seccomp agent specified in the seccomp profile".to_owned()
        })
        .map_err(|error| error.within(what()))?;
    socket::send(&socket, &text, &[fd.as_fd()]).within(what)
}
