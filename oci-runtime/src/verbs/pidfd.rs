//! Sending a descriptor of a process to whoever wants to watch it without trusting its number.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::socket::Kind;

use crate::error::{Result, Within};

/// crun's annotation with the path of a socket.
pub const ANNOTATION: &str = "run.oci.pidfd_receiver";

/// Sockets that wait for the descriptor.
#[derive(Debug, Default)]
pub struct Receivers(Vec<(&'static str, OwnedFd)>);

impl Receivers {
    /// Connects to the sockets, before anything is made that a missing one would have to undo: to the one of
    /// `--pidfd-socket`, and to the one of the annotation.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(flag: Option<&Path>, annotation: Option<&str>) -> Result<Self> {
        let mut receivers = Self::default();
        let wanted = [
            ("--pidfd-socket", flag),
            (ANNOTATION, annotation.map(Path::new)),
        ];
        for (name, path) in wanted {
            let Some(path) = path else { continue };
            let socket = sys::socket::connect(path, Kind::Stream).within(|| name.to_owned())?;
            receivers.0.push((name, socket));
        }
        Ok(receivers)
    }

    /// Sends the descriptor, with `label` as the text of the message: "standard" for a container's first process and
    /// "setns" for an added one, as runc says.
    ///
    /// # Errors
    /// The receiver has gone.
    pub fn send(&self, pidfd: &OwnedFd, label: &str) -> Result<()> {
        for (name, socket) in &self.0 {
            sys::socket::send(socket, label.as_bytes(), &[pidfd.as_fd()])
                .within(|| (*name).to_owned())?;
        }
        Ok(())
    }
}
