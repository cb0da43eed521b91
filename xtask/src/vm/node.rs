//! What the test host gets for the CRI server: the programs of a node, the genuine tools that speak to it, and the
//! suites of `integration` that know nothing better than a host with systemd, cgroup v2 and AppArmor.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use vm::Payload;

use super::{BIN, name};
use crate::workspace::Workspace;
use crate::{run, test};

/// The packages of our programs, and the programs.
const PROGRAMS: [(&str, &str); 4] = [
    ("cri-server", "davit-cri"),
    ("shim", "davit-shim"),
    ("cni", "davit-cni"),
    ("cli", "davit"),
];
/// From the cache of `cargo xtask tools`.
const TOOLS: [&str; 4] = ["crictl", "critest", "ginkgo", "busybox-dynamic"];
/// The suites; in the guest they are called `cri-limits` and so on.
const SUITES: [&str; 3] = ["limits", "critest", "crictl"];

/// Builds all of it as cargo does for tests, and adds it.
pub(super) fn with(workspace: &Workspace, mut payload: Payload) -> Result<Payload> {
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "--bins"]);
    for (package, _) in PROGRAMS {
        build.args(["--package", package]);
    }
    run::run(&mut build)?;
    for (_, program) in PROGRAMS {
        payload = payload.file(
            workspace.target.join("debug").join(program),
            Path::new(BIN).join(program),
        );
    }
    let home = std::env::var_os("HOME").context("HOME is not set: where are the tools?")?;
    let tools = Path::new(&home).join(".cache/davit/tools/bin");
    for tool in TOOLS {
        let here = tools.join(tool);
        ensure!(
            here.is_file(),
            "{} does not exist; `cargo xtask tools` makes it",
            here.display()
        );
        payload = payload.file(here, Path::new(BIN).join(tool));
    }
    with_suites(workspace, payload)
}

fn with_suites(workspace: &Workspace, payload: Payload) -> Result<Payload> {
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--no-run", "--message-format=json"]);
    command.args(["--package", "integration"]);
    command.args(SUITES.iter().flat_map(|suite| ["--test", suite]));
    let suites = test::built(&mut command)?;
    let named = suites
        .into_iter()
        .filter_map(|suite| Some((name(&suite)?, suite)));
    Ok(named.fold(payload, |payload, (name, suite)| {
        let there = format!("{BIN}/cri-{}", name.display());
        payload.file(suite.executable, there)
    }))
}
