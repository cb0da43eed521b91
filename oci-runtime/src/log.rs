//! Where errors go: one line on stderr for people, one entry in `--log` for the program that called.
//!
//! Podman reads the whole log as one JSON document, so a failed command writes exactly one entry, and warnings go
//! there only with `--debug`.
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

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
    path: Option<PathBuf>,
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
    /// Uses this file, which is made where missing, so that its reader finds it even without an error.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(&mut self, path: &Path) -> Result<()> {
        let path =
            std::path::absolute(path).map_err(|error| Error::new(format!("--log: {error}")))?;
        append(&path, "").map_err(|error| Error::from(error).within("--log"))?;
        self.path = Some(path);
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
        if let Some(path) = &self.path
            && let Err(failed) = append(path, &self.entry("error", &message))
        {
            say(&format!("davit-oci: --log: {failed}\n"));
        }
        let hint = error
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        say(&format!("davit-oci: {}\n{hint}", error.message));
    }

    /// Reports what is odd but not wrong.
    pub fn warning(&self, message: &str) {
        match &self.path {
            Some(path) if self.debug => {
                if let Err(failed) = append(path, &self.entry("warning", message)) {
                    say(&format!("davit-oci: --log: {failed}\n"));
                }
            }
            Some(_) => {}
            None => say(&format!("davit-oci: warning: {message}\n")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_writes_exactly_one_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let mut log = Log::default();
        log.open(&path).unwrap();
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
