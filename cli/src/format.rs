//! Numbers and tables for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// A size in the decimal units that disks and registries use: `1.2 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000 {
            return if unit == "B" {
                format!("{value} B")
            } else {
                format!("{value}.{} {unit}", rest / 100)
            };
        }
        (value, rest) = (value / 1000, value % 1000);
    }
    format!("{value}.{} PB", rest / 100)
}

/// How long ago a moment was, in its largest unit: `3 h ago`.
pub(crate) fn age(nanoseconds: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let then = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0);
    let seconds = now.saturating_sub(then);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// The first twelve characters of an id, without its algorithm: as crictl and docker show them.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.rsplit(':').next().unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Left-aligned columns, two spaces apart; the last one is not padded.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let last = cells.len().saturating_sub(1);
        let padded = cells.iter().enumerate().map(|(i, cell)| {
            if i == last {
                (*cell).to_owned()
            } else {
                format!("{cell:<width$}", width = widths[i])
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Writes to stdout; a reader that went away is an error that `main` knows how to take.
pub(crate) fn print(text: &str) -> crate::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(crate::Error::io("write to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_234_567, "1.2 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_table_lines_up_and_has_no_trailing_blanks() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID    NAME\na     x\nlong\n");
    }

    #[test]
    fn ids_are_cut_without_their_algorithm() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("short"), "short");
    }
}
