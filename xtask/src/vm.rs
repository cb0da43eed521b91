//! `cargo xtask vm`: a command in the test host, with our runtime and its tests in it.
//!
//! The guest has `davit-oci` (the static one that ships) in its PATH, and beside it the test binaries of `sys` and
//! `oci-runtime` under the names of their packages or files: `sys`, `oci-runtime`, `black_box`.

mod node;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use vm::{Image, Machine, Payload};

use crate::test::{self, Binary};
use crate::workspace::Workspace;
use crate::{dist, run};

/// Where the guest has them: in its PATH.
const BIN: &str = "/usr/local/bin";
/// Where the tests of seccomp find their program.
const PROBE: &str = "/usr/local/lib/davit-probe";
/// Variables of ours that the guest gets too.
const PASSED: [&str; 6] = [
    "MUST_WORK",
    "WITHOUT_RUNC",
    "RUST_TEST_THREADS",
    "DAVIT_TEST_FOCUS",
    "DAVIT_TEST_AT_ONCE",
    "DAVIT_TEST_FLAGS",
];
/// The packages whose tests are built for the guest.
pub(crate) const PACKAGES: [&str; 2] = ["sys", "oci-runtime"];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which Debian: its kernel, systemd, runc and crun
    #[arg(long, value_enum, default_value = "bookworm")]
    suite: Suite,
    /// Which cgroup hierarchies the guest has
    #[arg(long, value_enum, default_value = "v2")]
    cgroups: Cgroups,
    /// Kill it after so many seconds, boot included
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// MiB of memory
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    cmdline: String,
    /// Another file for the guest, as HERE:THERE (repeatable)
    #[arg(long = "file", value_name = "HERE:THERE")]
    files: Vec<String>,
    /// Take the davit-oci that cargo builds for the tests: a minute sooner there, and slower
    #[arg(long)]
    debug: bool,
    /// The CRI server too, with the genuine tools and the suites of `integration` as cri-limits, cri-critest ...
    #[arg(long)]
    cri: bool,
    /// A shell on this terminal instead of a command
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// A program and its arguments, or one word for the shell
    #[arg(last = true, required_unless_present = "shell")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    Bookworm,
    Trixie,
    Forky,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cgroups {
    V2,
    Hybrid,
    V1,
}

/// Boots, shows the command's output, and ends with its exit status.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    dist::needs_root("vm")?;
    let image = Image::ready(options.suite.into())?;
    let command = if options.shell {
        "setsid --ctty --wait bash -i < /dev/hvc0 > /dev/hvc0 2>&1".to_owned()
    } else {
        script(&options.command)
    };
    let binaries = test::binaries(workspace, &PACKAGES)?;
    let davit_oci = if options.debug {
        workspace.target.join("debug/davit-oci")
    } else {
        dist::davit_oci(workspace)?
    };
    let binaries: Vec<&Binary> = binaries.iter().collect();
    let mut payload = with_tests(prepared(&command, &davit_oci), &binaries);
    payload = with_probe(workspace, payload)?;
    if options.cri {
        payload = node::with(workspace, payload)?;
    }
    for file in &options.files {
        let (here, there) = file
            .split_once(':')
            .with_context(|| format!("--file {file}: not HERE:THERE"))?;
        payload = payload.file(here, there);
    }
    let machine = vm::Options {
        cgroups: options.cgroups.into(),
        deadline: Duration::from_secs(options.deadline),
        memory_mib: options.memory,
        cpus: options.cpus,
        cmdline: options.cmdline.clone(),
    };
    let status = if options.shell {
        Machine::on_terminal(&image, &payload, &machine)?
    } else {
        Machine::boot(&image, &payload, &machine)?.finish(|line| println!("{line}"))?
    };
    Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The guests of `cargo xtask test`: the first always, all of them for the whole.
const GUESTS: [(&str, vm::Cgroups); 3] = [
    ("cgroup v2", vm::Cgroups::V2),
    ("cgroup v1", vm::Cgroups::V1),
    ("hybrid cgroups", vm::Cgroups::Hybrid),
];
/// Parts of the names of tests that depend on the host: its cgroups, its systemd, its AppArmor.
const ABOUT_HOSTS: &[&str] = &[
    "apparmor",
    "cgroup",
    "devices",
    "events",
    "limits",
    "memory",
    "pause",
    "resources",
    "systemd",
    "update",
];
/// In seconds, for one guest. A turn takes two minutes, and several times that on a busy machine.
const DEADLINE: u64 = 1500;

/// Runs the tests in the test host, as `cargo xtask test` does. Returns the names of the guests where one failed.
pub(crate) fn tests(
    workspace: &Workspace,
    binaries: &[Binary],
    bin_dir: &Path,
    wanted: &test::Options,
    mut seen: impl FnMut(&str),
) -> Result<Vec<String>> {
    let image = Image::ready(vm::Suite::Bookworm)?;
    let ours: Vec<&Binary> = binaries
        .iter()
        .filter(|binary| PACKAGES.contains(&binary.package.as_str()))
        .collect();
    let mut failed = Vec::new();
    for (guest, cgroups) in &GUESTS[..if wanted.all { GUESTS.len() } else { 1 }] {
        println!("\n     Booting the test host with {guest}");
        let payload = with_tests(
            prepared(
                &test_script(&ours, wanted, *cgroups),
                &bin_dir.join("davit-oci"),
            ),
            &ours,
        );
        let payload = with_probe(workspace, payload)?;
        let machine = vm::Options {
            cgroups: *cgroups,
            deadline: Duration::from_secs(DEADLINE),
            ..vm::Options::default()
        };
        let status = Machine::boot(&image, &payload, &machine)?.finish(|line| {
            println!("{line}");
            seen(line);
        });
        match status {
            Ok(0) => {}
            Ok(_) => failed.push(format!("test host with {guest}")),
            Err(error) => {
                eprintln!("{error:#}");
                failed.push(format!("test host with {guest}"));
            }
        }
    }
    Ok(failed)
}

/// The program that the tests of seccomp put into their containers: the guest has no compiler.
fn with_probe(workspace: &Workspace, payload: Payload) -> Result<Payload> {
    let program = workspace.target.join("davit-vm-probe");
    let source = workspace.root.join("oci-runtime/tests/black_box/probe.c");
    run::run(
        Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(&program)
            .arg(source),
    )?;
    Ok(payload.file(program, PROBE))
}

/// Every test binary in turn, also after a failure: with all of its tests on cgroup v2 for the whole, else with those
/// that depend on the host, and without the genuine runc, which is slow there and was compared with outside.
fn test_script(binaries: &[&Binary], wanted: &test::Options, cgroups: vm::Cgroups) -> String {
    let mut flags: Vec<String> = match &wanted.filter {
        Some(filter) => vec![run::quote(filter.as_ref())],
        None if wanted.all && cgroups == vm::Cgroups::V2 => Vec::new(),
        None => ABOUT_HOSTS.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut script = "failed=0\n".to_owned();
    if wanted.all {
        flags.push("--include-ignored".to_owned());
    } else {
        script.push_str("export WITHOUT_RUNC=1\n");
    }
    for name in binaries.iter().filter_map(|binary| name(binary)) {
        let name = name.display();
        script.push_str(&format!(
            "echo; echo '     Running {name}'; {name} {} || failed=1\n",
            flags.join(" ")
        ));
    }
    script.push_str("exit $failed\n");
    script
}

/// The test binaries in the guest's PATH.
fn with_tests(payload: Payload, binaries: &[&Binary]) -> Payload {
    binaries
        .iter()
        .fold(payload, |payload, binary| match name(binary) {
            Some(name) => payload.file(&binary.executable, Path::new(BIN).join(name)),
            None => payload,
        })
}

/// The command with its environment, and our runtime.
fn prepared(command: &str, davit_oci: &Path) -> Payload {
    let passed: String = PASSED
        .iter()
        .filter_map(|name| {
            Some(format!(
                "export {name}={}\n",
                run::quote(&std::env::var_os(name)?)
            ))
        })
        .collect();
    let there = format!("{BIN}/davit-oci");
    let script = format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
         export DAVIT_VM=1 DAVIT_OCI={there} DAVIT_PROBE={PROBE} DAVIT_BIN_DIR={BIN} RUST_BACKTRACE=1\n{passed}cd /root\n{command}\n"
    );
    Payload::new(script).file(davit_oci, there)
}

/// What a test binary is called in the guest; a binary's own unit tests stay at home.
fn name(binary: &Binary) -> Option<PathBuf> {
    let mut path = binary
        .source
        .components()
        .map(|part| PathBuf::from(part.as_os_str()));
    match (path.next()?.to_str()?, path.next()?.to_str()?) {
        ("tests", first) => Some(Path::new(first).file_stem()?.into()),
        ("src", "lib.rs") => Some(binary.package.clone().into()),
        _ => None,
    }
}

/// One word is a script; several are a program and its arguments.
fn script(command: &[String]) -> String {
    match command {
        [one] => one.clone(),
        words => words
            .iter()
            .map(|word| run::quote(word.as_ref()))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

impl From<Suite> for vm::Suite {
    fn from(suite: Suite) -> Self {
        match suite {
            Suite::Bookworm => Self::Bookworm,
            Suite::Trixie => Self::Trixie,
            Suite::Forky => Self::Forky,
        }
    }
}

impl From<Cgroups> for vm::Cgroups {
    fn from(cgroups: Cgroups) -> Self {
        match cgroups {
            Cgroups::V2 => Self::V2,
            Cgroups::Hybrid => Self::Hybrid,
            Cgroups::V1 => Self::V1,
        }
    }
}
