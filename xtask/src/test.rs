//! `cargo xtask test`: what CI runs. Tools, builds, checks, unit tests, integration suites, leak check, summary.
//!
//! One build serves all: it selects the whole workspace with one set of features, so that no dependency is built twice.
//! The test binaries are then run one by one, as `cargo test` would, but the black-box suites with one thread, because
//! they share the host's bridge, cgroups and mounts; cargo itself selects tests by names that several crates share.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dist::{self, Flavour};
use crate::leaks::Host;
use crate::run::{self, Stopwatch};
use crate::workspace::Workspace;
use crate::{check, tools, vm};

/// In seconds. A test binary that hangs ends by it, long before CI would end the whole run without a summary.
const DEADLINE: &str = "900";
/// The package of the black-box suites.
const BLACK_BOX: &str = "integration";

pub(crate) struct Options {
    pub(crate) all: bool,
    pub(crate) no_check: bool,
    pub(crate) filter: Option<String>,
}

/// Runs everything, goes on after a failing part, and fails at the end if anything failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    dist::needs_root("test")?;
    let mut watch = Stopwatch::default();
    watch.step("tools", || tools::install_all(workspace))?;
    let bin_dir = watch.step("build", || dist::build(workspace, Flavour::Test))?;
    let (suites, units): (Vec<Binary>, Vec<Binary>) = watch
        .step("find the test binaries", || binaries(workspace, &[]))?
        .into_iter()
        .partition(Binary::is_suite);

    let mut failed = Vec::new();
    if !options.no_check
        && let Err(error) = watch.step("check", || check::run(workspace))
    {
        eprintln!("{error:#}");
        failed.push("check".to_owned());
    }

    let mut tally = Tally::default();
    let before = Host::look();
    watch.step("unit tests", || {
        run_all(&units, &bin_dir, options, &mut tally, &mut failed)
    })?;
    watch.step("documentation tests", || {
        let mut command = workspace.cargo();
        command
            .args(["test", "--locked", "--workspace", "--doc"])
            .args(dist::test_features(workspace));
        if !run::tee(command.args(&options.filter), |line| tally.see(line))? {
            failed.push("documentation tests".to_owned());
        }
        Ok(())
    })?;
    watch.step("test host", || {
        failed.extend(vm::tests(workspace, &units, &bin_dir, options, |line| {
            tally.see(line);
        })?);
        Ok(())
    })?;
    for suite in &suites {
        let one = std::slice::from_ref(suite);
        watch.step(&suite.shown(), || {
            run_all(one, &bin_dir, options, &mut tally, &mut failed)
        })?;
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

/// A built test binary.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) package: String,
    /// The source file of its root, from the package's directory.
    pub(crate) source: PathBuf,
    package_dir: PathBuf,
    pub(crate) executable: PathBuf,
}

impl Binary {
    /// Whether it is one of the black-box suites, and not the harness's own unit tests.
    fn is_suite(&self) -> bool {
        self.package == BLACK_BOX && self.source.starts_with("tests")
    }

    fn shown(&self) -> String {
        format!("{} {}", self.package, self.source.display())
    }
}

/// The test binaries of these packages, or of all where none is named. After a build this only lists.
pub(crate) fn binaries(workspace: &Workspace, packages: &[&str]) -> Result<Vec<Binary>> {
    let mut command = workspace.cargo();
    command.args([
        "test",
        "--locked",
        "--lib",
        "--bins",
        "--tests",
        "--no-run",
        "--message-format=json",
    ]);
    if packages.is_empty() {
        command
            .arg("--workspace")
            .args(dist::test_features(workspace));
    } else {
        command.args(packages.iter().flat_map(|package| ["--package", package]));
    }
    built(&mut command)
}

/// The test binaries that this call of cargo announces in JSON.
pub(crate) fn built(command: &mut std::process::Command) -> Result<Vec<Binary>> {
    let messages = run::output(command)?;
    let all = messages
        .lines()
        .map(|line| serde_json::from_str(line).context("a message of cargo"));
    let found = all.filter_map(|message| {
        message
            .and_then(|message: Value| binary(&message))
            .transpose()
    });
    found.collect()
}

/// The test binary that a message of cargo announces, if it announces one.
fn binary(message: &Value) -> Result<Option<Binary>> {
    let Some(executable) = message["executable"]
        .as_str()
        .filter(|_| message["profile"]["test"] == true)
    else {
        return Ok(None);
    };
    let manifest = Path::new(
        message["manifest_path"]
            .as_str()
            .context("an artifact without a manifest")?,
    );
    let package_dir = manifest
        .parent()
        .context("a manifest without a directory")?;
    let source = Path::new(
        message["target"]["src_path"]
            .as_str()
            .context("an artifact without a source")?,
    );
    // path+file:///home/me/davit/cni#0.1.0, or path+file:///home/me/davit/cri-server#name@0.1.0 where the directory has another name.
    let id = message["package_id"]
        .as_str()
        .context("an artifact without a package")?;
    let directory = package_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let package = id
        .rsplit('#')
        .next()
        .and_then(|tail| tail.split_once('@'))
        .map_or(&*directory, |(name, _)| name);
    Ok(Some(Binary {
        package: package.to_owned(),
        source: source
            .strip_prefix(package_dir)
            .unwrap_or(source)
            .to_owned(),
        package_dir: package_dir.to_owned(),
        executable: PathBuf::from(executable),
    }))
}

fn run_all(
    binaries: &[Binary],
    bin_dir: &Path,
    options: &Options,
    tally: &mut Tally,
    failed: &mut Vec<String>,
) -> Result<()> {
    for binary in binaries {
        println!("\n     Running {}", binary.shown());
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=30", DEADLINE])
            .arg(&binary.executable)
            .args(&options.filter);
        if binary.is_suite() {
            command.arg("--test-threads=1");
        }
        if options.all {
            command.arg("--include-ignored");
        }
        command
            .current_dir(&binary.package_dir)
            .env("CARGO_MANIFEST_DIR", &binary.package_dir);
        command
            .env("PATH", tools::path()?)
            .env("DAVIT_BIN_DIR", bin_dir)
            // Its black-box tests judge what ships, not cargo's build.
            .env("DAVIT_OCI", bin_dir.join("davit-oci"));
        if !run::tee(&mut command, |line| tally.see(line))? {
            failed.push(binary.shown());
        }
    }
    Ok(())
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
    fn a_test_binary_is_known_by_its_package_and_source() {
        let message = |id: &str, dir: &str, source: &str, test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact", "package_id": id, "manifest_path": format!("{dir}/Cargo.toml"),
                "target": {"src_path": format!("{dir}/{source}")}, "profile": {"test": test}, "executable": "/t/deps/crash-1",
            })
        };
        let suite = binary(&message(
            "path+file:///w/integration#0.1.0",
            "/w/integration",
            "tests/crash.rs",
            true,
        ))
        .unwrap()
        .unwrap();
        assert!(suite.is_suite());
        assert_eq!(suite.shown(), "integration tests/crash.rs");
        let harness = binary(&message(
            "path+file:///w/integration#0.1.0",
            "/w/integration",
            "src/lib.rs",
            true,
        ))
        .unwrap()
        .unwrap();
        assert!(!harness.is_suite());
        let other = binary(&message(
            "path+file:///w/cri-server/engine#engine@0.1.0",
            "/w/cri-server/engine",
            "tests/crash.rs",
            true,
        ));
        assert_eq!(other.unwrap().unwrap().shown(), "engine tests/crash.rs");
        assert_eq!(
            binary(&message(
                "path+file:///w/cli#0.1.0",
                "/w/cli",
                "src/main.rs",
                false
            ))
            .unwrap(),
            None
        );
    }

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
