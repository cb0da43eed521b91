//! `linux.timeOffsets`: how the clocks of a new time namespace differ from the host's.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use sys::namespace::NamespaceKind;

use super::{NamespacePlan, Problems};
use crate::spec::TimeOffset;

/// The text for `/proc/<pid>/timens_offsets`, `time_namespaces(7)`; empty where the clocks are the host's.
pub fn plan(
    offsets: &BTreeMap<String, TimeOffset>,
    namespaces: &NamespacePlan,
    problems: &mut Problems,
) -> String {
    let mut text = String::new();
    if offsets.is_empty() {
        return text;
    }
    let reason = if namespaces.has(NamespaceKind::Time) {
        "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
    } else {
        "time namespace offsets specified, but time namespace isn't enabled in the config"
    };
    problems.require(
        namespaces.is_new(NamespaceKind::Time),
        "linux.timeOffsets",
        reason,
    );
    for (clock, offset) in offsets {
        let field = format!("linux.timeOffsets[{clock:?}]");
        let known = matches!(clock.as_str(), "monotonic" | "boottime");
        problems.require(
            known,
            &field,
            "no such clock; there are monotonic and boottime",
        );
        problems.require(
            offset.nanosecs < 1_000_000_000,
            &format!("{field}.nanosecs"),
            "more than 999999999",
        );
        // Writing to a String cannot fail.
        writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs).unwrap_or_default();
    }
    text
}
