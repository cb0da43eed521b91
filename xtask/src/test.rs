//! `cargo xtask test`: what CI runs. Tools, builds, checks, unit tests, integration suites, leak check, summary.
//!
//! One build serves all phases: every phase selects the whole workspace with the same features, so no dependency
//! is built twice for the sake of another feature set.

use std::process::Command;

use anyhow::{Result, bail};

use crate::dist::{self, Flavour};
use crate::leaks::Host;
use crate::run::{self, Stopwatch};
use crate::workspace::Workspace;
use crate::{check, tools};

pub(crate) struct Options {
    pub(crate) all: bool,
    pub(crate) no_check: bool,
    pub(crate) filter: Option<String>,
}

/// Runs everything, goes on after a failing phase, and fails at the end if anything failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    dist::needs_root("test")?;
    let mut watch = Stopwatch::default();
    watch.step("tools", || tools::install_all(workspace))?;
    let bin_dir = watch.step("build", || dist::build(workspace, Flavour::Test))?;

    let mut failed = Vec::new();
    if !options.no_check
        && let Err(error) = watch.step("check", || check::run(workspace))
    {
        eprintln!("{error:#}");
        failed.push("check".to_owned());
    }

    let mut tally = Tally::default();
    let before = Host::look();
    for phase in phases(workspace) {
        let mut command = test_command(workspace, &phase, options)?;
        command.env("DAVIT_BIN_DIR", &bin_dir);
        let ok = watch.step(phase.name, || {
            run::tee(&mut command, |line| tally.see(line))
        })?;
        if !ok {
            failed.push(phase.name.to_owned());
        }
    }
    let leaks = watch.step("leak check", || Ok(before.leaks()))?;
    for leak in &leaks {
        println!("leaked: {leak}");
    }
    if !leaks.is_empty() {
        failed.push(format!("leak check ({} left behind)", leaks.len()));
    }

    println!("\n{}", tally.summary());
    println!("leaks: {}", leaks.len());
    println!("{}", watch.summary());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all passed");
    Ok(())
}

struct Phase {
    name: &'static str,
    /// Which targets of the workspace `cargo test` runs.
    targets: Vec<String>,
    /// Suites that share the host's bridge, cgroups and mount table run one test at a time.
    serial: bool,
    /// In seconds. A phase that hangs ends by it, long before CI would end the whole run without a summary.
    deadline: &'static str,
}

/// Unit tests and the crates' own tests in parallel, then the black-box suites one by one, then the doc tests.
fn phases(workspace: &Workspace) -> Vec<Phase> {
    let suites = |of_integration: bool| {
        let packages = workspace
            .packages
            .iter()
            .filter(move |p| (p.name == "integration") == of_integration);
        let tests = packages
            .flat_map(|p| &p.targets)
            .filter(|t| t.kind == "test");
        tests
            .flat_map(|t| ["--test".to_owned(), t.name.clone()])
            .collect::<Vec<_>>()
    };
    let mut units = vec!["--lib".to_owned(), "--bins".to_owned()];
    units.extend(suites(false));
    let mut phases = vec![Phase {
        name: "unit tests",
        targets: units,
        serial: false,
        deadline: "900",
    }];
    let black_box = suites(true);
    if !black_box.is_empty() {
        phases.push(Phase {
            name: "integration suites",
            targets: black_box,
            serial: true,
            deadline: "1800",
        });
    }
    phases.push(Phase {
        name: "doc tests",
        targets: vec!["--doc".to_owned()],
        serial: false,
        deadline: "300",
    });
    phases
}

fn test_command(workspace: &Workspace, phase: &Phase, options: &Options) -> Result<Command> {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=30", phase.deadline])
        .arg(workspace.cargo().get_program());
    command.current_dir(&workspace.root).args([
        "test",
        "--locked",
        "--no-fail-fast",
        "--workspace",
    ]);
    command
        .args(&phase.targets)
        .args(dist::test_features(workspace));
    command
        .env("PATH", tools::path()?)
        .args(&options.filter)
        .arg("--");
    if phase.serial {
        command.arg("--test-threads=1");
    }
    if options.all {
        command.arg("--include-ignored");
    }
    Ok(command)
}

/// Sums up what the test binaries print about themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: u64,
    names: Vec<String>,
}

impl Tally {
    fn see(&mut self, line: &str) {
        // test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let (Some(Ok(n)), Some(what)) = (words.next().map(str::parse::<u64>), words.next())
                else {
                    continue;
                };
                match what {
                    "passed" => self.passed += n,
                    "failed" => self.failed += n,
                    "ignored" => self.ignored += n,
                    _ => {}
                }
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.names.push(name.to_owned());
        } else if line.starts_with("skipped: ") {
            self.skipped += 1;
        }
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "tests: {} passed, {} failed, {} ignored, {} skipped",
            self.passed, self.failed, self.ignored, self.skipped
        );
        for name in &self.names {
            text.push_str(&format!("\n  failed: {name}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_adds_up_the_closing_lines_of_several_test_binaries() {
        let mut tally = Tally::default();
        for line in [
            "running 2 tests",
            "test a::one ... ok",
            "test a::two ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 2 filtered out; finished in 1.00s",
            "skipped: no cgroup v2 here",
        ] {
            tally.see(line);
        }
        assert_eq!(
            tally.summary(),
            "tests: 13 passed, 1 failed, 3 ignored, 1 skipped\n  failed: a::two"
        );
    }
}
