//! criu's log, where the reason of its failures is.
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::Error;

/// How many lines an error repeats.
const MAX_LINES: usize = 3;

/// How long such a line may be.
const MAX_LINE: usize = 300;

/// Adds what the log says to an error of criu.
#[must_use]
pub fn explain(mut error: Error, path: &Path) -> Error {
    let Ok(file) = std::fs::File::open(path) else {
        return error;
    };
    let found = errors(BufReader::new(file));
    if !found.is_empty() {
        error.message = format!("{}: {}", error.message, found.join("; "));
    }
    error.hint(format!("the whole log is {}", path.display()))
}

/// The last lines that tell of an error, without their time stamps.
fn errors(mut log: impl BufRead) -> Vec<String> {
    let mut found = Vec::new();
    let mut line = Vec::new();
    while log
        .read_until(b'\n', &mut line)
        .is_ok_and(|count| count > 0)
    {
        let text = String::from_utf8_lossy(&line);
        if let Some(start) = text.find("Error") {
            let line: String = text[start..].trim_end().chars().take(MAX_LINE).collect();
            found.push(line);
            let excess = found.len().saturating_sub(MAX_LINES);
            found.drain(..excess);
        }
        line.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_errors_are_repeated_without_their_times() {
        let log = "(00.1) fine\n(00.2) Error (a.c:1): one\n(00.3)     12: Error (b.c:2): two\n(00.4) Error (c.c:3): three\n(00.5) Error (d.c:4): four\n(00.6) bye\n";
        let wanted = [
            "Error (b.c:2): two",
            "Error (c.c:3): three",
            "Error (d.c:4): four",
        ];
        assert_eq!(errors(log.as_bytes()), wanted);
    }

    #[test]
    fn a_missing_log_changes_nothing() {
        let error = Error::new("criu failed: type DUMP errno 0");
        assert_eq!(
            explain(error.clone(), Path::new("/no/such/dump.log")),
            error
        );
    }

    proptest! {
        #[test]
        fn any_log_is_quoted_in_bounds(log in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let found = errors(&log[..]);
            prop_assert!(found.len() <= MAX_LINES);
            prop_assert!(found.iter().all(|line| line.chars().count() <= MAX_LINE));
        }
    }
}
