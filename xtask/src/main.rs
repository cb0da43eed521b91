//! Developer commands: the only ones to know, and what CI calls.
//!
//! `up` and `down` for a node on this machine, `test` for everything CI runs, `check` for what needs no
//! root, `bench` for the numbers, `tools` for the genuine programs that tests run against, `build` for
//! the binaries all of these use.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod dependencies;
mod dist;
mod edges;
mod image;
mod leaks;
mod roots;
mod run;
mod target;
mod test;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::dist::Flavour;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Developer commands of Davit",
    disable_help_subcommand = true
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and start a node on this machine with a sample pod (needs root)
    Up {
        /// Passed on to `davit up`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Stop the node that `up` started and leave nothing behind (needs root)
    Down {
        /// Passed on to `davit down`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run every check, unit test and integration suite (needs root)
    Test {
        /// Also run the tests that are set aside (`ignore`) because they take minutes
        #[arg(long)]
        all: bool,
        /// Do not run `check` first
        #[arg(long)]
        no_check: bool,
        /// Only the tests whose name contains this, everywhere
        filter: Option<String>,
    },
    /// Print the benchmarks, as ratios in one run (needs root)
    Bench {
        /// Passed on to `davit-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Formatting, lints, docs, crate edges, dependency policy (needs no root)
    Check,
    /// Install the genuine tools that the tests run against, each at its pinned version
    Tools,
    /// Run a command in the test host: a virtual machine with systemd, cgroup v2 and AppArmor (needs root)
    Vm(vm::Options),
    /// Build the binaries and the sample image into target/dist
    #[command(hide = true)]
    Build {
        /// The binaries the integration suites use: davit-cri and davit unoptimised, with fail points
        #[arg(long)]
        for_tests: bool,
    },
}

fn main() -> ExitCode {
    match dispatch(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Vm(options) => return vm::run(&workspace, &options),
        Command::Up { args } => dist::up(&workspace, &args),
        Command::Down { args } => dist::down(&workspace, &args),
        Command::Test {
            all,
            no_check,
            filter,
        } => test::run(
            &workspace,
            &test::Options {
                all,
                no_check,
                filter,
            },
        ),
        Command::Bench { args } => bench::run(&workspace, &args),
        Command::Check => check::run(&workspace),
        Command::Tools => tools::install_all(&workspace),
        Command::Build { for_tests } => {
            let flavour = if for_tests {
                Flavour::Test
            } else {
                Flavour::Release
            };
            dist::build(&workspace, flavour).map(|dir| println!("{}", dir.display()))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}
