//! What can go wrong between a runtime and its network plugins, in words for the person who must act.
use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// The error object of the CNI protocol, as a plugin printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// Codes below 100 are the specification's, the rest the plugin's own.
    pub code: u64,
    /// Short message.
    pub msg: String,
    /// Longer text, often empty.
    pub details: String,
}

impl PluginError {
    /// "Try again later" of the specification.
    pub const TRY_AGAIN: u64 = 11;
    /// "The plugin is not available" of STATUS.
    pub const NOT_AVAILABLE: u64 = 50;
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        write!(f, " (code {})", self.code)
    }
}

/// An error of the executor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read, written or removed.
    #[error("{op} {path:?}: {source}")]
    Io {
        /// The operation.
        op: &'static str,
        /// Its operand.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A network configuration that cannot be used.
    #[error("network configuration {origin}: {reason}")]
    Config {
        /// The file, or the name of the network.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration directory in which no file can be used.
    #[error("no usable network configuration in {dir:?}: {reasons}")]
    NoUsableConfig {
        /// The directory.
        dir: PathBuf,
        /// Each file and what is wrong with it.
        reasons: String,
    },
    /// A parameter of the attachment that no plugin may see.
    #[error("{field} {value:?}: {reason}")]
    InvalidAttachment {
        /// Which parameter.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No executable with the plugin's name.
    #[error(
        "network {network:?}: plugin {plugin:?} not found in {searched}\n\
         hint: install it there (reference plugins: package containernetworking-plugins), or start the daemon with --cni-bin-dir DIR where it is"
    )]
    MissingPlugin {
        /// The network whose configuration names it.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// The directories searched, in order.
        searched: String,
    },
    /// The plugin's executable could not be started.
    #[error("plugin {plugin:?} {command}: start {path:?}: {source}")]
    Spawn {
        /// The plugin's type.
        plugin: String,
        /// The CNI verb.
        command: &'static str,
        /// The executable.
        path: PathBuf,
        /// Why it could not be started.
        source: std::io::Error,
    },
    /// The plugin did not end in time; its process group was killed.
    #[error("plugin {plugin:?} {command}: no answer after {}, killed{}", Seconds(.timeout), Stderr(.stderr))]
    Timeout {
        /// The plugin's type.
        plugin: String,
        /// The CNI verb.
        command: &'static str,
        /// The time it was given.
        timeout: Duration,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The plugin answered with an error object.
    #[error("plugin {plugin:?} {command}: {error}")]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// The CNI verb.
        command: &'static str,
        /// Its answer.
        error: PluginError,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The plugin ended badly and said nothing in the protocol's form.
    #[error("plugin {plugin:?} {command}: {status} and no error object on stdout{}{}", Output(.stdout), Stderr(.stderr))]
    Died {
        /// The plugin's type.
        plugin: String,
        /// The CNI verb.
        command: &'static str,
        /// Its exit status.
        status: ExitStatus,
        /// The start of what it wrote to stdout.
        stdout: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The plugin ended well, but its answer is not what the specification says.
    #[error("plugin {plugin:?} {command}: unusable answer: {reason}{}{}", Output(.stdout), Stderr(.stderr))]
    BadAnswer {
        /// The plugin's type.
        plugin: String,
        /// The CNI verb.
        command: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The start of what it wrote to stdout.
        stdout: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// A system call of the executor itself.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

impl Error {
    /// The code of the plugin's error object, if the error came from a plugin in that form.
    #[must_use]
    pub fn plugin_code(&self) -> Option<u64> {
        match self {
            Error::Plugin { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Timeout { .. } => true,
            Error::Plugin { error, .. } => {
                matches!(
                    error.code,
                    PluginError::TRY_AGAIN | PluginError::NOT_AVAILABLE
                )
            }
            _ => false,
        }
    }

    pub(crate) fn io(
        op: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { op, path, source }
    }
}

struct Stderr<'a>(&'a str);

impl fmt::Display for Stderr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim() {
            "" => Ok(()),
            text => write!(f, "; stderr: {text}"),
        }
    }
}

struct Output<'a>(&'a str);

impl fmt::Display for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim() {
            "" => write!(f, "; stdout is empty"),
            text => write!(f, "; stdout: {text:?}"),
        }
    }
}

struct Seconds<'a>(&'a Duration);

impl fmt::Display for Seconds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
