//! The crate edges: who may depend on whom, and what may never be linked into a small binary.
//!
//! The table is the map in docs/architecture.md; a change of a row is a change of the architecture.

use anyhow::Result;

use crate::run;
use crate::target;
use crate::workspace::{Package, Workspace};

/// Every member of the workspace with the members it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("oci-runtime", &["sys"]),
    ("shim", &["sys"]),
    ("snapshotter", &["sys"]),
    ("netlink", &["sys"]),
    ("cni", &["sys", "netlink"]),
    ("engine", &["sys", "shim", "snapshotter", "cni"]),
    ("proto", &[]),
    ("spdy", &[]),
    ("cri-server", &["proto", "engine", "sys", "spdy"]),
    // The doctor tries links and nftables; `down` removes the built-in network after its last pod.
    ("cli", &["proto", "sys", "netlink", "cni"]),
    ("davit-sample", &["sys"]),
    // Black box: it meets the other crates only as built binaries and over sockets.
    ("integration", &["proto"]),
    ("vm", &[]),
    ("xtask", &["vm"]),
];

/// Crates whose binaries start once per container, pod or packet path: no async, no heavy parsing.
const SMALL: &[&str] = &[
    "sys",
    "oci-runtime",
    "shim",
    "netlink",
    "cni",
    "davit-sample",
];

/// What a small binary never links, directly or through others.
const NOT_IN_SMALL: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "futures-executor",
    "clap",
    "tracing",
    "tracing-subscriber",
    "env_logger",
    "regex",
    "anyhow",
    "libseccomp",
];

/// What nothing links because a pure Rust or an already linked crate does its job.
const NOT_ANYWHERE: &[&str] = &["openssl-sys", "aws-lc-sys", "native-tls"];

/// Checks both tables against what cargo says.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut faults = member_edges(&workspace.packages);
    for member in workspace
        .packages
        .iter()
        .filter(|p| SMALL.contains(&p.name.as_str()))
    {
        // `cargo tree` resolves features for this package alone; `cargo metadata` would mix in the daemons'.
        let tree = run::output(
            workspace
                .cargo()
                .args(["tree", "--locked", "--package", &member.name])
                .args([
                    "--edges",
                    "normal",
                    "--target",
                    target::small(workspace),
                    "--prefix",
                    "none",
                    "--format",
                    "{p}",
                ]),
        )?;
        faults.extend(forbidden(&member.name, &crates_of(&tree), NOT_IN_SMALL));
    }
    for member in &workspace.packages {
        let direct: Vec<&str> = member
            .dependencies
            .iter()
            .map(|d| d.name.as_str())
            .collect();
        faults.extend(forbidden(&member.name, &direct, NOT_ANYWHERE));
    }
    Ok(faults)
}

/// One sentence per edge that the table does not have, of whatever kind: a test that links another crate is coupling too.
fn member_edges(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!(
                "crate \"{}\" has no row in the edge table of xtask/src/edges.rs",
                package.name
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.is_member && d.name != package.name)
        {
            if !allowed.contains(&dependency.name.as_str()) {
                let may = if allowed.is_empty() {
                    "no other crate".to_owned()
                } else {
                    allowed.join(", ")
                };
                faults.push(format!(
                    "crate \"{}\" depends on \"{}\" ({}); it may depend on {may}",
                    package.name, dependency.name, dependency.kind
                ));
            }
        }
    }
    faults
}

fn forbidden(member: &str, linked: &[&str], table: &[&str]) -> Vec<String> {
    let found = table.iter().filter(|name| linked.contains(*name));
    found.map(|name| format!("crate \"{member}\" links \"{name}\", which it must not; see `cargo tree -p {member} -i {name}`")).collect()
}

/// Names from `cargo tree --prefix none --format {p}`, whose lines are `name v1.2.3 (path) (*)`.
fn crates_of(tree: &str) -> Vec<&str> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::packages;
    use serde_json::json;

    fn metadata_of(name: &str, dependency: &str, kind: Option<&str>) -> Vec<Package> {
        packages(&json!({"packages": [{
            "name": name, "manifest_path": "/w/x/Cargo.toml", "targets": [], "features": {},
            "dependencies": [{"name": dependency, "kind": kind, "path": "/w/y"}, {"name": "libc", "kind": null}],
        }]}))
        .unwrap()
    }

    #[test]
    fn an_edge_of_the_table_is_no_fault() {
        assert_eq!(
            member_edges(&metadata_of("shim", "sys", None)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_wrong_edge_is_named_with_what_would_be_right() {
        assert_eq!(
            member_edges(&metadata_of("shim", "engine", None)),
            ["crate \"shim\" depends on \"engine\" (normal); it may depend on sys"]
        );
    }

    #[test]
    fn integration_may_not_link_what_it_tests_even_for_its_tests_alone() {
        assert_eq!(
            member_edges(&metadata_of("integration", "snapshotter", Some("dev"))),
            ["crate \"integration\" depends on \"snapshotter\" (dev); it may depend on proto"]
        );
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert_eq!(
            member_edges(&metadata_of("utils", "sys", None)),
            ["crate \"utils\" has no row in the edge table of xtask/src/edges.rs"]
        );
    }

    #[test]
    fn a_runtime_that_links_tokio_somewhere_below_is_found() {
        let tree = "shim v0.1.0 (/w/cri-server/shim)\nsys v0.1.0 (/w/sys)\nnice-crate v1.0.0\ntokio v1.54.0\nlibc v0.2.1 (*)\n";
        assert_eq!(
            forbidden("shim", &crates_of(tree), NOT_IN_SMALL),
            [
                "crate \"shim\" links \"tokio\", which it must not; see `cargo tree -p shim -i tokio`"
            ]
        );
    }

    #[test]
    fn every_small_crate_is_in_the_table() {
        for name in SMALL {
            assert!(ALLOWED.iter().any(|(n, _)| n == name), "{name}");
        }
    }
}
