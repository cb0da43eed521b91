//! `ps`: the processes of a container, as ids or as `ps(1)` shows them.
use std::process::Command;

use crate::cli::flags::Parsed;
use crate::cli::{Global, print};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::members;

/// `ps ID [OPTION…]`
///
/// # Errors
/// The processes cannot be listed, or `ps(1)` fails.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let state = global.store.load(id)?;
    let processes = members::processes(&state)?;
    match parsed.get("format").unwrap_or("table") {
        "json" => print(&json(&processes))?,
        "table" => {
            let options = parsed.operands.get(1..).unwrap_or_default();
            print(&filter(&shown(options)?, &processes)?)?;
        }
        _ => return Err(Error::new("invalid format option").hint("--format is table or json")),
    }
    Ok(0)
}

/// As Go writes a list of numbers; an empty one is `null`.
fn json(processes: &[i32]) -> String {
    if processes.is_empty() {
        return "null\n".to_owned();
    }
    let ids: Vec<String> = processes.iter().map(i32::to_string).collect();
    format!("[{}]\n", ids.join(","))
}

/// What `ps(1)` says of every process.
fn shown(options: &[String]) -> Result<String> {
    let mut command = Command::new("ps");
    if options.is_empty() {
        command.arg("-ef");
    } else {
        command.args(options);
    }
    let output = command.output().map_err(|error| {
        Error::from(sys::Error::from_io(&error, "execve(\"ps\")")).hint("install procps")
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(Error::new(format!(
        "ps: {}: {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr).trim_end()
    )))
}

/// The header, and the lines of these processes by their column `PID`.
fn filter(table: &str, processes: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::new("couldn't find PID field in ps output"))?;
    let mut text = format!("{header}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let pid = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = pid
            .parse()
            .map_err(|_| Error::new(format!("unable to parse pid: {line:?}")))?;
        if processes.binary_search(&pid).is_ok() {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "UID        PID  PPID CMD\nroot         1     0 init\n\nroot        12     1 sh -c 7\nroot       112     1 x\n";

    #[test]
    fn only_lines_of_the_container_are_kept_whatever_else_looks_like_an_id() {
        let shown = filter(TABLE, &[7, 12]).unwrap();
        assert_eq!(
            shown,
            "UID        PID  PPID CMD\nroot        12     1 sh -c 7\n"
        );
    }

    #[test]
    fn a_table_without_ids_is_refused() {
        let error = filter("COMMAND\nsh\n", &[1]).unwrap_err();
        assert_eq!(error.message, "couldn't find PID field in ps output");
        assert!(filter("PID\nx\n", &[1]).is_err());
    }

    #[test]
    fn no_processes_are_null_as_go_has_it() {
        assert_eq!(json(&[]), "null\n");
        assert_eq!(json(&[3, 12]), "[3,12]\n");
    }

    proptest::proptest! {
        #[test]
        fn no_output_makes_it_panic(table in "(PID|UID| |[0-9]{1,4}|\n){0,40}") {
            if let Ok(shown) = filter(&table, &[1, 2, 3]) {
                proptest::prop_assert!(shown.lines().count() >= 1);
            }
        }
    }
}
