//! Where errors go: one line on stderr for people, one entry in `--log` for the program that called.
//!
//! Podman reads the whole log as one JSON document, so a failed command writes exactly one entry, and warnings go
//! there only with `--debug`.
mod target;

use std::io::Write;

use crate::error::{Error, Result};
use target::{Severity, Target};

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// The log and how to write it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    target: Option<Target>,
    format: Format,
    /// Whether warnings are wanted.
    pub debug: bool,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

impl Log {
    /// Uses this file (`PATH` or `file:PATH`), which is made where missing, so that its reader finds it even without an
    /// error; or `syslog:NAME` or `journald:NAME`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(&mut self, target: &str) -> Result<()> {
        let target = Target::parse(target)?;
        target
            .open()
            .map_err(|error| Error::from(error).within("--log"))?;
        self.target = Some(target);
        Ok(())
    }

    /// Uses this format.
    ///
    /// # Errors
    /// An unknown one.
    pub fn set_format(&mut self, name: &str) -> Result<()> {
        self.format = crate::cli::parse_format(name)?;
        Ok(())
    }

    /// Reports why the command failed.
    pub fn error(&self, error: &Error) {
        let message = match &error.hint {
            Some(hint) => format!("{} (hint: {hint})", error.message),
            None => error.message.clone(),
        };
        if let Some(target) = &self.target {
            self.write(target, Severity::Error, &message);
        }
        let hint = error
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        say(&format!("davit-oci: {}\n{hint}", error.message));
    }

    /// Reports what is odd but not wrong.
    pub fn warning(&self, message: &str) {
        match &self.target {
            Some(target) if self.debug => self.write(target, Severity::Warning, message),
            Some(_) => {}
            None => say(&format!("davit-oci: warning: {message}\n")),
        }
    }

    fn write(&self, target: &Target, severity: Severity, message: &str) {
        let line = self.entry(severity.name(), message);
        if let Err(failed) = target.write(severity, message, &line) {
            say(&format!("davit-oci: --log: {failed}\n"));
        }
    }

    fn entry(&self, level: &str, message: &str) -> String {
        let time = crate::time::now_seconds();
        match self.format {
            Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            Format::Json => {
                let entry = Entry {
                    level,
                    msg: message,
                    time: &time,
                };
                // Three strings cannot fail to serialize.
                serde_json::to_string(&entry).unwrap_or_default() + "\n"
            }
        }
    }
}

/// Writes to stderr. With stderr closed there is nobody to tell.
fn say(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_writes_exactly_one_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let mut log = Log::default();
        log.open(path.to_str().unwrap()).unwrap();
        log.set_format("json").unwrap();
        log.warning("not here without --debug");
        log.error(&Error::new("create \"x\": broken\nin two lines").hint("look"));
        let text = std::fs::read_to_string(&path).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(entry["level"], "error");
        assert_eq!(
            entry["msg"],
            "create \"x\": broken\nin two lines (hint: look)"
        );
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert!(
            Log::default()
                .set_format("xml")
                .unwrap_err()
                .message
                .contains("invalid log-format")
        );
    }
}
