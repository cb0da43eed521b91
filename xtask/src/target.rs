//! What the small binaries are built for: musl, whose start takes no `cpuid` instruction and whose code is smaller,
//! and glibc where the toolchain has no musl and cannot get it (docs/decisions/0006-musl.md).

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::run;
use crate::workspace::Workspace;

const MUSL: &str = "x86_64-unknown-linux-musl";
const GLIBC: &str = "x86_64-unknown-linux-gnu";

/// The target triple of davit-oci, davit-shim, davit-cni, davit-sample and of the floor program they are compared with.
/// Installs the target when it is missing, at most once a run.
pub(crate) fn small(workspace: &Workspace) -> &'static str {
    static TARGET: OnceLock<&str> = OnceLock::new();
    TARGET.get_or_init(|| {
        if has(workspace, MUSL) || install(workspace, MUSL) {
            return MUSL;
        }
        eprintln!(
            "note: this Rust toolchain has no standard library for {MUSL}, and rustup could not add it: the small \
             binaries are built for {GLIBC}. They do the same, each start takes up to half a millisecond longer."
        );
        GLIBC
    })
}

/// Whether the toolchain that builds the workspace has the target's standard library.
fn has(workspace: &Workspace, target: &str) -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = run::output(
        rustc
            .current_dir(&workspace.root)
            .args(["--print", "sysroot"]),
    );
    sysroot.is_ok_and(|dir| {
        Path::new(dir.trim())
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
    })
}

fn install(workspace: &Workspace, target: &str) -> bool {
    let mut rustup = Command::new("rustup");
    rustup
        .current_dir(&workspace.root)
        .args(["target", "add", target]);
    match run::run(&mut rustup) {
        Ok(()) => has(workspace, target),
        Err(error) => {
            eprintln!("{error:#}");
            false
        }
    }
}
