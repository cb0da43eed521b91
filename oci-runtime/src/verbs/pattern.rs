//! `--regex` of `kill` and `delete`, as crun has it: every container whose id matches.
use std::ffi::CString;

use sys::regex::Regex;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// Does it to every container whose id matches, whatever happens to the others.
///
/// # Errors
/// A pattern that is none; all that went wrong, in one.
pub fn each(
    global: &Global,
    pattern: &str,
    mut act: impl FnMut(&ContainerId) -> Result<u8>,
) -> Result<u8> {
    let invalid = |why: String| Error::new(format!("--regex {pattern:?}: {why}"));
    let text = CString::new(pattern).map_err(|_| invalid("holds a NUL byte".to_owned()))?;
    let regex = Regex::new(&text).map_err(invalid)?;
    let mut problems = Vec::new();
    for id in global.store.ids()? {
        // An id holds no NUL byte.
        let matches = CString::new(id.as_str()).is_ok_and(|text| regex.matches(&text));
        if matches && let Err(error) = act(&id) {
            problems.push(error.within(format!("{:?}", id.as_str())).message);
        }
    }
    if problems.is_empty() {
        Ok(0)
    } else {
        Err(Error::new(problems.join("; ")))
    }
}
