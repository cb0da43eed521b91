//! Arguments as they come: bytes. All but a program's own are text here, and one that is none is refused by its place:
//! quietly changed bytes would name another file or container.
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::commands::Command;
use super::flags::Parsed;
use crate::error::{Error, Result};

/// The arguments as text, with stand-ins for what is none.
pub(super) fn as_text(args: &[OsString]) -> Vec<String> {
    args.iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect()
}

/// Checks that everything which is not text is an argument of a program that `exec` runs, and keeps those as they came.
///
/// # Errors
/// The first other argument that is not text.
pub(super) fn check(args: &[OsString], command: &Command, parsed: &mut Parsed) -> Result<()> {
    // Operands are the end of the command line; the first one of `exec` is the container.
    let first_of_program = match command.name {
        "exec" => args.len() - parsed.operands.len().saturating_sub(1),
        _ => args.len(),
    };
    let (own, program) = args.split_at(first_of_program);
    refuse_bytes(own)?;
    if program.iter().any(|argument| argument.to_str().is_none()) {
        parsed.program = program.to_vec();
    }
    Ok(())
}

/// Refuses the first argument that is not text.
///
/// # Errors
/// Its number, counted from 1, and what it looks like.
pub(super) fn refuse_bytes(args: &[OsString]) -> Result<()> {
    let bad = |argument: &&OsString| argument.to_str().is_none();
    let Some((index, argument)) = args.iter().enumerate().find(|(_, one)| bad(one)) else {
        return Ok(());
    };
    let shown = argument.as_bytes().escape_ascii();
    Err(Error::new(format!(
        "argument {} is not UTF-8: \"{shown}\"",
        index + 1
    )))
}
