//! What an OCI runtime says: its log, its stderr, its pid files.
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::wire;
use crate::protocol::{ErrorKind, WireError};

/// What is kept of a command's stderr, and of its log.
const TEXT_MAX: usize = 4096;
const LOG_MAX: u64 = 64 * 1024;

/// Appends and keeps the last [`TEXT_MAX`] bytes.
pub(super) fn keep_tail(text: &mut Vec<u8>, data: &[u8]) {
    text.extend_from_slice(&data[data.len().saturating_sub(TEXT_MAX)..]);
    if text.len() > TEXT_MAX {
        text.drain(..text.len() - TEXT_MAX);
    }
}

/// The last `"level":"error"` entry of a runtime's JSON log, as go-runc reads it.
pub(super) fn logged_error(path: &Path) -> Option<String> {
    last_error(&read_tail(path).ok()?)
}

fn last_error(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    text.split(|byte| *byte == b'\n')
        .rev()
        .filter_map(|line| serde_json::from_slice::<Entry>(line).ok())
        .find(|entry| matches!(entry.level.as_str(), "error" | "fatal"))
        .map(|entry| bounded(&entry.msg))
}

fn read_tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_MAX)))?;
    let mut text = Vec::new();
    file.take(LOG_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// The last line that says anything.
pub(super) fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    // runc and crun without a log: a logrus line, or "program: message".
    Some(bounded(line))
}

/// Parts of a runtime's message come from the container.
fn bounded(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Reads a pid file; the runtime wrote it whole before it ended.
pub(super) fn read_pid(path: &Path) -> Result<i32, WireError> {
    let text = fs::read_to_string(path).map_err(|error| {
        wire(
            ErrorKind::Runtime,
            sys::Error::from_io(
                &error,
                format!("the OCI runtime's pid file: read({path:?})"),
            )
            .to_string(),
        )
    })?;
    match text.trim().parse() {
        Ok(pid) if pid > 1 => Ok(pid),
        _ => Err(wire(
            ErrorKind::Runtime,
            format!(
                "the OCI runtime's pid file {path:?} holds {:?}",
                bounded(&text)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_message() {
        let log = br#"{"level":"warning","msg":"w","time":"t"}
{"level":"error","msg":"first","time":"t"}
{"msg":"second","level":"error","time":"t"}
{"level":"info","msg":"i"}
not json
"#;
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error(b""), None);
        assert_eq!(last_error(b"{\"level\":\"error\"}\n"), None);
    }

    #[test]
    fn without_a_log_the_last_line_of_stderr_speaks() {
        assert_eq!(last_line(b"one\n two \n\n").as_deref(), Some("two"));
        assert_eq!(last_line(b" \n"), None);
    }

    #[test]
    fn only_the_tail_of_a_flood_is_kept() {
        let mut text = Vec::new();
        for _ in 0..100 {
            keep_tail(&mut text, &[b'x'; 1000]);
        }
        keep_tail(&mut text, b"end");
        assert_eq!(text.len(), TEXT_MAX);
        assert!(text.ends_with(b"end"));
        keep_tail(&mut text, &[b'y'; 100_000]);
        assert_eq!(text, [b'y'; TEXT_MAX]);
    }
}
