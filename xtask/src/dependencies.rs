//! Every dependency of the workspace is used, and has its line in docs/dependencies.md.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/dependencies.md";

/// Compares `[workspace.dependencies]` with the members' manifests and with the document.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let read = |name: &str| {
        let path = workspace.root.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let declared = declared(&read("Cargo.toml")?);
    let document = read(DOCUMENT)?;
    let used: BTreeSet<&str> = workspace
        .packages
        .iter()
        .flat_map(|p| &p.dependencies)
        .map(|d| d.name.as_str())
        .collect();
    let members: BTreeSet<&str> = workspace.packages.iter().map(|p| p.name.as_str()).collect();

    let mut faults = Vec::new();
    for name in declared
        .iter()
        .map(String::as_str)
        .filter(|n| !members.contains(n))
    {
        if !names(&document, name) {
            faults.push(format!(
                "{DOCUMENT} has no line for `{name}`: say where it is used and why"
            ));
        }
        if !used.contains(name) {
            faults.push(format!(
                "Cargo.toml: no crate uses the workspace dependency \"{name}\": remove it"
            ));
        }
    }
    for package in &workspace.packages {
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| !declared.contains(&d.name))
        {
            faults.push(format!(
                "crate \"{}\" names \"{}\" itself: put it into [workspace.dependencies] of the root Cargo.toml",
                package.name, dependency.name
            ));
        }
    }
    Ok(faults)
}

/// Whether the name stands there by itself, and not as a part of another one: `tar` is not named by `tar-core`.
fn names(document: &str, name: &str) -> bool {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    document
        .split(|c| !part_of_a_name(c))
        .any(|word| word == name)
}

/// Keys of the `[workspace.dependencies]` table. Cargo has parsed the file by now, so a line reader will do.
fn declared(manifest: &str) -> BTreeSet<String> {
    let table = manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1);
    table
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| !name.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_table_and_nothing_else_are_read() {
        let manifest = "[workspace]\nmembers = []\n[workspace.dependencies]\n# a = comment\nanyhow = \"1\"\nclap = { version = \"4\" }\n\n[profile.dev]\nx = 1\n";
        assert_eq!(
            declared(manifest).into_iter().collect::<Vec<_>>(),
            ["anyhow", "clap"]
        );
    }

    #[test]
    fn a_longer_name_does_not_stand_for_a_shorter_one() {
        assert!(names("| tar | snapshotter |", "tar"));
        assert!(names("`tar-core`: the parser", "tar-core"));
        assert!(!names("| tar-core | snapshotter |", "tar"));
    }
}
