//! What can go wrong between this program and systemd.

use std::fmt;

/// The result of a request to systemd.
pub type Result<T> = std::result::Result<T, Error>;

/// A request to systemd that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// This host was not booted with systemd.
    NotRunning,
    /// Nobody can be reached at any of the places where the service manager listens.
    Connect {
        /// Whose service manager: `system` or `user`.
        bus: &'static str,
        /// Each address that was tried, and why that failed.
        tried: String,
    },
    /// The peer does not accept who we are.
    Rejected {
        /// Where.
        address: String,
        /// What it said.
        answer: String,
    },
    /// The connection broke.
    Closed {
        /// What was being done.
        doing: String,
        /// Why, where that is known.
        why: String,
    },
    /// No answer in time.
    Timeout {
        /// What was being done.
        doing: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The peer does not speak D-Bus.
    Malformed {
        /// What is wrong with what it said.
        why: &'static str,
    },
    /// systemd refuses a request.
    Refused {
        /// What was asked for, such as `StartTransientUnit("web.scope")`.
        call: String,
        /// The name of the error, such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// The words of systemd.
        message: String,
    },
    /// systemd accepted a request and could not fulfil it.
    Job {
        /// `creating` or `removing`.
        doing: &'static str,
        /// The unit.
        unit: String,
        /// What became of it, such as `failed`.
        result: String,
    },
}

impl Error {
    /// Whether systemd refused with this error of its own.
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.strip_prefix("org.freedesktop.systemd1.") == Some(wanted))
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning => {
                Some("leave --systemd-cgroup out: the cgroup is then made directly")
            }
            Self::Connect { bus: "user", .. } => Some(
                "a rootless container with --systemd-cgroup needs a systemd user session: log in, or \"loginctl enable-linger\", and set XDG_RUNTIME_DIR",
            ),
            Self::Connect { .. } | Self::Closed { .. } => Some(
                "is systemd being restarted? \"systemctl is-system-running\" shows whether it answers",
            ),
            Self::Timeout { .. } => {
                Some("\"systemctl list-jobs\" shows what systemd is waiting for")
            }
            Self::Refused { .. } if self.is("UnitExists") => {
                Some("another container or service has this unit; \"systemctl status\" shows it")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => {
                f.write_str("systemd not running on this host, cannot use systemd cgroups manager")
            }
            Self::Connect { bus, tried } => {
                write!(f, "cannot connect to the {bus} service manager: {tried}")
            }
            Self::Rejected { address, answer } => {
                write!(f, "{address} does not accept this user: {answer:?}")
            }
            Self::Closed { doing, why } if why.is_empty() => {
                write!(f, "{doing}: systemd closed the connection")
            }
            Self::Closed { doing, why } => write!(f, "{doing}: {why}"),
            Self::Timeout { doing, seconds } => {
                write!(f, "{doing}: no answer from systemd within {seconds} s")
            }
            Self::Malformed { why } => write!(f, "systemd sent a message that is none: {why}"),
            Self::Refused {
                call,
                name,
                message,
            } => write!(f, "{call}: {message} ({name})"),
            Self::Job {
                doing,
                unit,
                result,
            } => write!(f, "error {doing} systemd unit `{unit}`: got `{result}`"),
        }
    }
}

impl std::error::Error for Error {}

impl From<super::reader::Malformed> for Error {
    fn from(malformed: super::reader::Malformed) -> Self {
        Self::Malformed { why: malformed.0 }
    }
}
