//! Part 1: OCI runtimes by their command line, in runc's default bundle.
//!
//! - `run` of `/bin/true` against the floor, on every kind of host, without and with a seccomp profile;
//! - `create`, `start` and `delete` as three commands; `exec`;
//! - peak memory, and the least memory limit that a container starts under;
//! - what a host with many mounts and containers costs.

mod crowd;
mod memory;
mod operations;
mod subjects;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

pub(crate) use memory::field_kb;

use crate::contest::{self, Contender, Times};
use crate::floor;
use crate::options::Options;
use integration::host::Cgroups;
use integration::oci::remove_left_cgroups;
use operations::Operation;
use subjects::Subject;

/// Measures on every kind of host, and prints as it goes.
pub(crate) fn measure(options: &Options) -> Result<Value> {
    let floor = floor::find(options)?;
    let subjects = subjects::all();
    if !options.json {
        subjects
            .iter()
            .for_each(|one| println!("{}: {}", one.name, one.version));
    }
    let mut hosts = Vec::new();
    for cgroups in [Cgroups::AsIs, Cgroups::V1, Cgroups::V2] {
        hosts.push(cgroups.run(|| on_host(cgroups, &floor, &subjects, options))?);
    }
    Ok(json!({
        "versions": subjects.iter().map(|one| json!([one.name, one.version])).collect::<Vec<_>>(),
        "hosts": hosts,
        "peak_rss_kb": memory::peaks(&subjects, options)?,
        "least_limit_kb": memory::least_limits(&subjects, options)?,
        "crowd": Cgroups::V2.run(|| crowd::measure(&floor, &subjects, options))?,
    }))
}

/// The operations of one kind of host: everything on v2, `run` alone elsewhere.
fn on_host(
    cgroups: Cgroups,
    floor: &std::path::Path,
    subjects: &[Subject],
    options: &Options,
) -> Result<Value> {
    let operations: &[Operation] = if cgroups == Cgroups::V2 {
        &[
            Operation::Run,
            Operation::RunFiltered,
            Operation::Lifecycle,
            Operation::Exec,
        ]
    } else {
        &[Operation::Run]
    };
    let mut measured = Vec::new();
    for operation in operations {
        let stage = operations::Stage::new()?;
        let mut left_out = Vec::new();
        let mut contenders = Vec::new();
        if operation.has_floor() {
            contenders.push(stage.floor(floor));
        }
        for subject in subjects {
            if subject.refuses(cgroups) {
                left_out.push(format!("{}: it refuses this kind of host", subject.name));
            } else {
                contenders.push(stage.contender(*operation, subject));
            }
        }
        left_out.extend(drop_those_that_fail(&mut contenders));
        remove_left_cgroups();
        for pause in [Duration::ZERO, options.pause] {
            let times = contest::race(&contenders, options.runs, pause)?;
            if !options.json {
                contest::print(&title(*operation, cgroups, pause), &times);
            }
            measured.push(json!({
                "operation": operation.name(), "pause_ms": pause.as_millis(), "times": as_ratios(&times),
            }));
        }
        for reason in left_out.iter().filter(|_| !options.json) {
            println!("left out: {reason}");
        }
    }
    Ok(json!({"host": cgroups.name(), "measured": measured}))
}

/// Tries each once; those that refuse this host go, with their reasons.
fn drop_those_that_fail(contenders: &mut Vec<Contender>) -> Vec<String> {
    let mut reasons = Vec::new();
    contenders.retain(|contender| match contest::trial(contender) {
        Ok(()) => true,
        Err(reason) => {
            reasons.push(format!("{}: {reason}", contender.name));
            false
        }
    });
    reasons
}

fn title(operation: Operation, cgroups: Cgroups, pause: Duration) -> String {
    let pace = if pause.is_zero() {
        "back to back".to_owned()
    } else {
        format!("{} ms apart", pause.as_millis())
    };
    format!("{}, {}, {pace}", operation.name(), cgroups.name())
}

/// Each contender's times with its ratio to the first.
fn as_ratios(times: &[Times]) -> Vec<Value> {
    let with_ratio = |one: &Times| {
        let mut value = one.as_json();
        for (name, percent) in [("ratio", 50), ("best_ratio", 0)] {
            value[name] = json!(
                times
                    .first()
                    .map(|first| contest::ratio(one, first, percent))
            );
        }
        value
    };
    times.iter().map(with_ratio).collect()
}
