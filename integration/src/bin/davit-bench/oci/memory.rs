//! What a runtime needs of memory: its own, and of the container's limit.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::operations::{self, CommandLine};
use super::subjects::Subject;
use crate::options::Options;
use integration::bundle::Bundle;
use integration::host::Cgroups;
use integration::oci::fresh_id;

/// The largest resident set of the `run` command itself, read while its container waits: what the kernel's accounts
/// at exit say is never less than what the process that started it had.
pub(crate) fn peaks(subjects: &[Subject], options: &Options) -> Result<Value> {
    let measure = |subject: &Subject| {
        // crun refuses a hybrid host.
        Cgroups::V1
            .run(|| peak(subject))
            .with_context(|| format!("{}'s memory", subject.name))
    };
    of_each(
        "peak resident memory of `run` itself",
        subjects,
        options,
        measure,
    )
}

/// The least `linux.resources.memory.limit` that `/bin/true` runs under: what the runtime's own steps in the cgroup
/// need counts as well. Found by halving, to 64 kB.
pub(crate) fn least_limits(subjects: &[Subject], options: &Options) -> Result<Value> {
    let measure = |subject: &Subject| Cgroups::V1.run(|| least_limit(subject));
    of_each(
        "least memory limit that /bin/true runs under",
        subjects,
        options,
        measure,
    )
}

fn of_each(
    title: &str,
    subjects: &[Subject],
    options: &Options,
    measure: impl Fn(&Subject) -> Result<u64>,
) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for subject in subjects {
        all.insert(subject.name.to_owned(), json!(measure(subject)?));
    }
    if !options.json {
        println!("\n{title}");
        all.iter()
            .for_each(|(name, kb)| println!("{name:<28} {kb:>6} kB"));
    }
    Ok(Value::Object(all))
}

fn peak(subject: &Subject) -> Result<u64> {
    let scratch = operations::scratch()?;
    let runtime = CommandLine {
        program: subject.path.clone(),
        root: scratch.path().to_owned(),
    };
    let bundle = Bundle::new(&["/bin/sh", "-c", "echo started; read end"]);
    let path = bundle.path().to_string_lossy();
    let mut child = runtime
        .command(&["run", "--bundle", &path, &fresh_id()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    drop(child.stdin.take());
    child.wait()?;
    ensure!(line == "started\n", "the container did not start");
    field_kb(&status, "VmHWM:").context("no VmHWM in its status")
}

/// The number of a `Name:   123 kB` line.
pub(crate) fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn least_limit(subject: &Subject) -> Result<u64> {
    let scratch = operations::scratch()?;
    let runtime = CommandLine {
        program: subject.path.clone(),
        root: scratch.path().to_owned(),
    };
    let (mut fails, mut works) = (0, 32 * 1024);
    while works - fails > 64 {
        let limit = (fails + works) / 2;
        let bundle = operations::limited(limit);
        let path = bundle.path().to_string_lossy();
        let id = fresh_id();
        // Three times out of three: near the edge it depends on what the kernel can reclaim.
        let mut starts = true;
        for _ in 0..3 {
            starts = starts
                && runtime
                    .command(&["run", "--bundle", &path, &id])
                    .status()?
                    .success();
            if !starts {
                runtime.command(&["delete", "--force", &id]).status()?;
                break;
            }
        }
        if starts {
            works = limit;
        } else {
            fails = limit;
        }
    }
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_status_file_is_found_by_its_whole_name() {
        let text = "VmPeak:\t  99 kB\nVmHWM:\t  1234 kB\nPss:   7 kB\n";
        assert_eq!(field_kb(text, "VmHWM:"), Some(1234));
        assert_eq!(field_kb(text, "Pss:"), Some(7));
        assert_eq!(field_kb(text, "VmRSS:"), None);
    }
}
