//! `cargo xtask bench`: the release binaries against their floors and rivals; `davit-bench` measures and prints.

use std::process::Command;

use anyhow::Result;

use crate::dist::{self, Flavour};
use crate::workspace::Workspace;
use crate::{run, tools};

/// Builds and runs `davit-bench` with the given arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    dist::needs_root("bench")?;
    tools::install_all(workspace)?;
    let peers = tools::peers::install()?;
    let dist = dist::build(workspace, Flavour::Release)?;
    let floor = dist::floor(workspace)?;
    run::run(workspace.cargo().args([
        "build",
        "--locked",
        "--release",
        "--package",
        "integration",
        "--bin",
        "davit-bench",
    ]))?;
    let mut bench = Command::new(workspace.target.join("release/davit-bench"));
    run::run(
        bench
            .env("PATH", tools::path()?)
            .env("DAVIT_BIN_DIR", dist)
            .env("DAVIT_PEERS", peers)
            .arg("--floor")
            .arg(floor)
            .args(args),
    )
}
