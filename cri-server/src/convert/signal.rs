//! Stop signals: CRI numbers them in alphabetical order, everybody else names them.

use proto::runtime::v1::Signal;

use super::{Converted, known};

/// `SIGTERM`, `SIGRTMIN+3`; `None` for the runtime's own choice.
pub(crate) fn name(field: &str, value: i32) -> Converted<Option<String>> {
    let signal: Signal = known(field, value)?;
    if signal == Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = signal.as_str_name().trim_start_matches("SIGNAL_");
    Ok(Some(
        name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-"),
    ))
}

/// The number for a name with or without `SIG`; the runtime's own choice for a name that CRI has no number for.
pub(crate) fn number(name: &str) -> i32 {
    let upper = name
        .to_ascii_uppercase()
        .replace("MIN+", "MINPLUS")
        .replace("MAX-", "MAXMINUS");
    let short = upper.trim_start_matches("SIG");
    Signal::from_str_name(&format!("SIGNAL_SIG{short}")).unwrap_or(Signal::RuntimeDefault) as i32
}
