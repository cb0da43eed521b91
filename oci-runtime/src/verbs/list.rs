//! `list`: every container below the root directory.
use std::fmt::Write;

use crate::cli::flags::Parsed;
use crate::cli::{Global, print};
use crate::error::{Error, Result};
use crate::state::{State, Status};

/// `list`
///
/// # Errors
/// The directory given by `--root` does not exist.
pub fn run(global: &Global, parsed: &Parsed) -> Result<u8> {
    let format = parsed.get("format").unwrap_or("table");
    if !matches!(format, "table" | "json") {
        return Err(Error::new(format!("invalid format option {format:?}")));
    }
    if global.explicit_root && !global.store.root().exists() {
        let root = global.store.root();
        return Err(Error::new(format!(
            "readdir({root:?}): no such file or directory (ENOENT)"
        )));
    }
    let containers = read(global)?;
    if parsed.is_on("quiet") {
        print(
            &containers
                .iter()
                .map(|(state, _)| format!("{}\n", state.id))
                .collect::<String>(),
        )?;
    } else if format == "json" {
        print(&json(&containers)?)?;
    } else {
        print(&table(&containers))?;
    }
    Ok(0)
}

fn read(global: &Global) -> Result<Vec<(State, Status)>> {
    let mut containers = Vec::new();
    for id in global.store.ids()? {
        let read = global.store.load(&id).and_then(|state| {
            let status = global.store.status(&id, &state)?;
            Ok((state, status))
        });
        match read {
            Ok(one) => containers.push(one),
            // One broken directory must not hide the others; one that is being deleted is none.
            Err(error) if global.store.dir(&id).join("state.json").exists() => {
                global.warn(&error.message)
            }
            Err(_) => {}
        }
    }
    Ok(containers)
}

fn json(containers: &[(State, Status)]) -> Result<String> {
    // What Go writes for an empty list.
    if containers.is_empty() {
        return Ok("null\n".to_owned());
    }
    let owners: Vec<String> = containers
        .iter()
        .map(|(state, _)| owner(state.owner))
        .collect();
    let reports: Vec<_> = containers
        .iter()
        .zip(&owners)
        .map(|((state, status), owner)| {
            let mut report = state.report(*status);
            report.owner = owner;
            report
        })
        .collect();
    serde_json::to_string(&reports)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(error.to_string()))
}

/// Columns as Go's tabwriter(12, 1, 3) aligns them.
fn table(containers: &[(State, Status)]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for (state, status) in containers {
        let pid = if *status == Status::Stopped {
            0
        } else {
            state.pid
        };
        rows.push([
            state.id.clone(),
            pid.to_string(),
            status.to_string(),
            state.bundle.display().to_string(),
            state.created.clone(),
            owner(state.owner),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count() + 3)
            .max()
            .unwrap_or(0)
            .max(12)
    };
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 == row.len() {
                0
            } else {
                width(column)
            };
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{cell:<width$}");
        }
        text.push('\n');
    }
    text
}

/// The name of a user of the host, or its number. Read from the file itself: name services need a C library that
/// loads modules.
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}
