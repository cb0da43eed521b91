//! Unsafe code stays in `sys`: every other library and binary forbids it, and no test takes back the lint that denies it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;
use crate::workspace::Workspace;

const FORBID: &str = "#![forbid(unsafe_code)]";

/// Checks the root file of each library and binary, and every source file for an exception. Tests and examples are
/// crates of their own; for them the workspace's `unsafe_code = "deny"` stands unless they allow it themselves.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let read = |path: &std::path::Path| {
        fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let mut faults = Vec::new();
    for package in workspace.packages.iter().filter(|p| p.name != "sys") {
        for target in package
            .targets
            .iter()
            .filter(|t| ["lib", "bin"].contains(&t.kind.as_str()))
        {
            if !says(&read(&target.source)?, FORBID) {
                let path = target
                    .source
                    .strip_prefix(&workspace.root)
                    .unwrap_or(&target.source);
                faults.push(format!(
                    "{}: the root of {} \"{}\" lacks {FORBID}",
                    path.display(),
                    target.kind,
                    target.name
                ));
            }
        }
    }
    let mut list = Command::new("git");
    list.current_dir(&workspace.root)
        .args(["ls-files", "-z", "--", "*.rs"]);
    for file in run::output(&mut list)?
        .split('\0')
        .filter(|f| !f.is_empty() && !f.starts_with("sys/"))
    {
        let path = workspace.root.join(file);
        // Deleted, and not yet committed so.
        if path.exists() && allows(&read(&path)?) {
            faults.push(format!("{file}: allows unsafe code, which only sys may"));
        }
    }
    Ok(faults)
}

/// The attribute on a line of its own, not merely named in a comment.
fn says(source: &str, attribute: &str) -> bool {
    source.lines().any(|line| line.trim() == attribute)
}

/// An attribute that takes the lint back, with or without a reason.
fn allows(source: &str) -> bool {
    let attributes = source
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("#[") || line.starts_with("#!["));
    attributes
        .filter(|line| {
            line.contains("allow(") || line.contains("expect(") || line.contains("warn(")
        })
        .any(|line| line.contains("unsafe_code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_counts_and_its_mention_does_not() {
        assert!(says(
            "//! Doc.\n#![forbid(unsafe_code)]\nfn main() {}\n",
            FORBID
        ));
        assert!(!says(
            "//! This crate says #![forbid(unsafe_code)].\nfn main() {}\n",
            FORBID
        ));
        assert!(!says("// #![forbid(unsafe_code)]\n", FORBID));
    }

    #[test]
    fn an_exception_is_found_in_any_of_its_spellings() {
        for source in [
            "#![allow(unsafe_code)]",
            "    #[allow(unsafe_code, reason = \"x\")]",
            "#[expect(unsafe_code)]",
        ] {
            assert!(allows(source), "{source}");
        }
        for source in [
            "// #![allow(unsafe_code)]",
            "#![forbid(unsafe_code)]",
            "#[allow(missing_docs)]",
        ] {
            assert!(!allows(source), "{source}");
        }
    }
}
