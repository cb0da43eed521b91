//! `state`: <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#query-state>.
use crate::cli::{Global, print};
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// `state ID`
///
/// # Errors
/// There is no such container.
pub fn run(global: &Global, id: &ContainerId) -> Result<u8> {
    let state = global.store.load(id)?;
    let status = global.store.status(id, &state)?;
    let text = serde_json::to_string_pretty(&state.report(status))
        .map_err(|error| Error::new(error.to_string()))?;
    print(&text)?;
    Ok(0)
}
