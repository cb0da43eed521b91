//! Every crate root says `#![forbid(unsafe_code)]`, but for `sys`, the one crate that may hold unsafe code.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const FORBID: &str = "#![forbid(unsafe_code)]";

/// Checks the root file of each target of each member: a test or a bench is a crate of its own.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in workspace.packages.iter().filter(|p| p.name != "sys") {
        for target in &package.targets {
            let source = fs::read_to_string(&target.source)
                .with_context(|| format!("read {}", target.source.display()))?;
            if !says_forbid(&source) {
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
    Ok(faults)
}

/// The attribute on a line of its own, not merely named in a comment.
fn says_forbid(source: &str) -> bool {
    source.lines().any(|line| line.trim() == FORBID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_counts_and_its_mention_does_not() {
        assert!(says_forbid(
            "//! Doc.\n#![forbid(unsafe_code)]\nfn main() {}\n"
        ));
        assert!(!says_forbid(
            "//! This crate says #![forbid(unsafe_code)].\nfn main() {}\n"
        ));
        assert!(!says_forbid("// #![forbid(unsafe_code)]\n"));
    }
}
