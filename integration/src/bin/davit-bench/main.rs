//! `davit-bench`: what the parts cost, as ratios in one run.
//!
//! 1. `davit-oci run` of `/bin/true` against the bare system calls, runc and crun, on each kind of host, back to back
//!    and with pauses (a tight loop hides the kernel's RCU waits), interleaved, with the runtimes' own peak memory.
//! 2. A pod with one container through the CRI socket, and the memory of the shims and of the daemon.
//!
//! docs/benchmarks.md says what the numbers mean.
#![forbid(unsafe_code)]

mod contest;
mod cri;
mod floor;
mod oci;
mod options;

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use options::{Options, Part};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("davit-bench: {error:#}; see `davit-bench --help`");
            return ExitCode::from(64);
        }
    };
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("davit-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "making containers needs root"
    );
    let mut report = machine();
    if !options.json {
        let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
        println!(
            "{} on {} processors, load {}",
            text("kernel"),
            report["processors"],
            text("load")
        );
    }
    if options.does(Part::Oci) {
        report["oci"] = oci::measure(options)?;
    }
    if options.does(Part::Cri) {
        report["cri"] = cri::measure(options)?;
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(())
}

/// Where and when this was measured; a busy machine's numbers are only good as ratios.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    json!({
        "kernel": format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "load": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    })
}
