//! Where `--log` leads: a file, or a system's log, in crun's spelling.
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The socket of syslog(3).
const SYSLOG: &str = "/dev/log";

/// The socket of the journal's own protocol.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Facility "daemon" of syslog, shifted to its place.
const DAEMON: u8 = 3 << 3;

/// Where entries go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Appended to this file.
    File(PathBuf),
    /// Sent to the system's log under this name.
    Syslog(String),
    /// Sent to systemd's journal under this name.
    Journal(String),
}

/// How bad it is, as syslog counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
}

impl Severity {
    /// The word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Target {
    /// `file:PATH`, `syslog:NAME`, `journald:NAME`, or a path.
    ///
    /// # Errors
    /// There is no working directory to count a path from.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let named = |name: &str| {
            if name.is_empty() {
                "davit-oci".to_owned()
            } else {
                name.to_owned()
            }
        };
        if let Some(name) = text.strip_prefix("syslog:") {
            return Ok(Self::Syslog(named(name)));
        }
        if let Some(name) = text.strip_prefix("journald:") {
            return Ok(Self::Journal(named(name)));
        }
        let path = text.strip_prefix("file:").unwrap_or(text);
        crate::paths::absolute(path)
            .map(Self::File)
            .map_err(|error| Error::new(format!("--log: {error}")))
    }

    /// Makes a file, so that its reader finds it even without an error.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn open(&self) -> sys::Result<()> {
        match self {
            Self::File(path) => append(path, ""),
            Self::Syslog(_) | Self::Journal(_) => Ok(()),
        }
    }

    /// Writes an entry: `line` to a file, `message` to a system's log, which adds the time itself.
    ///
    /// # Errors
    /// A full disk, a log that nobody reads.
    pub(super) fn write(&self, severity: Severity, message: &str, line: &str) -> sys::Result<()> {
        match self {
            Self::File(path) => append(path, line),
            Self::Syslog(name) => send(SYSLOG, &syslog(name, severity, message)),
            Self::Journal(name) => send(JOURNAL, &journal(name, severity, message)),
        }
    }
}

fn append(path: &Path, text: &str) -> sys::Result<()> {
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| sys::Error::from_io(&error, format!("write({path:?})")))
}

fn send(path: &str, message: &[u8]) -> sys::Result<()> {
    sys::socket::send(
        sys::socket::connect_datagram(Path::new(path))?,
        message,
        &[],
    )
}

/// One message of RFC 3164 as it is spoken on the local socket: without host, in one line.
fn syslog(name: &str, severity: Severity, message: &str) -> Vec<u8> {
    let priority = DAEMON | severity as u8;
    let message = message.replace(['\n', '\0'], " ");
    format!("<{priority}>{name}[{}]: {message}", std::process::id()).into_bytes()
}

/// One entry of the journal's protocol, <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>. A text with its length in front may
/// hold newlines, and so cannot be taken for further fields.
fn journal(name: &str, severity: Severity, message: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    let priority = (severity as u8).to_string();
    for (field, value) in [
        ("MESSAGE", message),
        ("PRIORITY", priority.as_str()),
        ("SYSLOG_IDENTIFIER", name),
    ] {
        entry.extend_from_slice(field.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_names_its_target() {
        assert_eq!(Target::parse("file:/x").unwrap(), Target::File("/x".into()));
        assert_eq!(Target::parse("/y:z").unwrap(), Target::File("/y:z".into()));
        assert_eq!(
            Target::parse("syslog:web").unwrap(),
            Target::Syslog("web".to_owned())
        );
        assert_eq!(
            Target::parse("journald:").unwrap(),
            Target::Journal("davit-oci".to_owned())
        );
    }

    #[test]
    fn a_syslog_message_stays_one_line() {
        let text = String::from_utf8(syslog("web", Severity::Error, "a\nb")).unwrap();
        assert!(
            text.starts_with("<27>web[") && text.ends_with("]: a b"),
            "{text}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_a_field_of_the_journal(message: String) {
            let entry = journal("web", Severity::Warning, &message);
            let mut rest = entry.as_slice();
            let mut fields = Vec::new();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (name, after) = rest.split_at(end);
                let length = u64::from_le_bytes(after[1..9].try_into().unwrap());
                let end = 9 + usize::try_from(length).unwrap();
                fields.push((name.to_vec(), after[9..end].to_vec()));
                rest = &after[end + 1..];
            }
            proptest::prop_assert_eq!(fields.len(), 3);
            proptest::prop_assert_eq!(&fields[0].1, message.as_bytes());
        }
    }
}
