//! `cargo xtask check`: what can be said about the sources without running them. Needs no root.

use anyhow::{Result, bail};

use crate::run::{self, Stopwatch};
use crate::tools;
use crate::workspace::Workspace;
use crate::{dependencies, edges, roots};

type Check = fn(&Workspace) -> Result<()>;

/// Runs every check, cheapest first, and names all that failed at the end.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut watch = Stopwatch::default();
    let mut failed = Vec::new();
    let checks: [(&str, Check); 7] = [
        ("format", format),
        ("crate edges", |w| report(edges::check(w)?)),
        ("unsafe code only in sys", |w| report(roots::check(w)?)),
        ("docs/dependencies.md", |w| report(dependencies::check(w)?)),
        ("dependency policy", deny),
        ("lints", clippy),
        ("documentation", documentation),
    ];
    for (name, check) in checks {
        if let Err(error) = watch.step(name, || check(workspace)) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    eprintln!("\ncheck took\n{}", watch.summary());
    if !failed.is_empty() {
        bail!("check: failed: {}", failed.join(", "));
    }
    eprintln!("check: all {} passed", checks.len());
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    run::run(workspace.cargo().args(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let args = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ];
    run::run(workspace.cargo().args(args))
}

fn documentation(workspace: &Workspace) -> Result<()> {
    run::run(
        workspace
            .cargo()
            .env("RUSTDOCFLAGS", "--deny warnings")
            .args(["doc", "--locked", "--workspace", "--no-deps"]),
    )
}

/// Licences, bans and sources by deny.toml. Advisories are a git repository, which build machines cannot reach:
/// `cargo deny check advisories` is for a developer's machine.
fn deny(workspace: &Workspace) -> Result<()> {
    let Some(cargo_deny) = tools::cargo_deny() else {
        if run::must_work() {
            bail!("cargo-deny is not installed: run `cargo xtask tools`");
        }
        eprintln!("skipped: cargo-deny is not installed (`cargo xtask tools` installs it)");
        return Ok(());
    };
    eprintln!("advisories are not checked here: their database is a git repository");
    let mut command = std::process::Command::new(cargo_deny);
    run::run(
        command
            .current_dir(&workspace.root)
            .args(["--locked", "check", "bans", "licenses", "sources"]),
    )
}

fn report(faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}
