//! Part 1: `run` of `/bin/true` in runc's default bundle.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::contest::{self, Contender, Times};
use crate::floor;
use crate::options::Options;
use integration::bin;
use integration::bundle::Bundle;
use integration::host::Cgroups;
use integration::oci::{fresh_id, remove_left_cgroups};

/// Measures on every kind of host, and prints as it goes.
pub(crate) fn measure(options: &Options) -> Result<Value> {
    let floor = floor::find(options)?;
    let mut hosts = Vec::new();
    for cgroups in [Cgroups::AsIs, Cgroups::V1, Cgroups::V2] {
        hosts.push(cgroups.run(|| on_host(cgroups, &floor, options))?);
    }
    Ok(json!({"hosts": hosts, "peak_rss_kb": peak_memory(options)?}))
}

/// A runtime under test.
struct Subject {
    name: &'static str,
    path: PathBuf,
}

/// Ours and the genuine ones that are installed.
fn subjects() -> Vec<Subject> {
    let genuine = |name| bin::genuine(name).map(|path| Subject { name, path });
    let ours = Subject {
        name: "davit-oci",
        path: bin::ours("davit-oci"),
    };
    std::iter::once(ours)
        .chain(["runc", "crun"].into_iter().filter_map(genuine))
        .collect()
}

// === time ===

fn on_host(cgroups: Cgroups, floor: &Path, options: &Options) -> Result<Value> {
    let scratch = scratch()?;
    let limited = Bundle::new(&["/bin/true"]);
    let unlimited = Bundle::changed(&["/bin/true"], |config| {
        config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    });
    let rootfs = limited.rootfs();
    let floor = floor.to_owned();
    let bare = move || {
        let mut command = Command::new(&floor);
        command.arg(&rootfs);
        command
    };
    let mut contenders = vec![Contender {
        name: "bare system calls".to_owned(),
        command: Box::new(bare),
    }];
    let mut left_out = Vec::new();
    for subject in subjects() {
        if subject.name == "crun" && refuses(cgroups) {
            left_out.push(
                "crun: it refuses hybrid hosts, and leaves a cgroup behind when it does".to_owned(),
            );
            continue;
        }
        let plain = contender(&subject, &limited, scratch.path(), "");
        // crun 1.8 loads no device program without CAP_SYS_RESOURCE; allowing every device needs none.
        let open = contender(&subject, &unlimited, scratch.path(), ", all devices");
        let chosen = if cgroups == Cgroups::V2 {
            vec![plain, open]
        } else {
            vec![plain]
        };
        contenders.extend(chosen);
    }
    if let Err(reason) = contest::trial(&contenders[0]) {
        anyhow::bail!("{}: {reason}", contenders[0].name);
    }
    left_out.extend(drop_those_that_fail(&mut contenders));
    remove_left_cgroups();
    let mut settings = Vec::new();
    for pause in [Duration::ZERO, options.pause] {
        let times = contest::race(&contenders, options.runs, pause)?;
        if !options.json {
            contest::print(&title(cgroups, pause), &times);
        }
        settings.push(json!({"pause_ms": pause.as_millis(), "times": as_ratios(&times)}));
    }
    for reason in left_out.iter().filter(|_| !options.json) {
        println!("left out: {reason}");
    }
    Ok(json!({"host": cgroups.name(), "settings": settings, "left_out": left_out}))
}

/// A place for the runtimes' state: in memory, as /run is on every distribution, so that no disk is measured.
fn scratch() -> Result<tempfile::TempDir> {
    let in_memory = Path::new("/dev/shm");
    let parent = if in_memory.is_dir() {
        in_memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    Ok(tempfile::Builder::new()
        .prefix("davit-bench-")
        .tempdir_in(parent)?)
}

/// Whether crun refuses this kind of host.
fn refuses(cgroups: Cgroups) -> bool {
    cgroups == Cgroups::AsIs && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

fn contender(subject: &Subject, bundle: &Bundle, scratch: &Path, suffix: &str) -> Contender {
    let (path, bundle) = (subject.path.clone(), bundle.path().to_owned());
    let root = scratch.join(format!("{}{}", subject.name, suffix.len()));
    let command = move || {
        let mut command = Command::new(&path);
        command
            .arg("--root")
            .arg(&root)
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(fresh_id());
        command
    };
    Contender {
        name: format!("{}{suffix}", subject.name),
        command: Box::new(command),
    }
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

fn title(cgroups: Cgroups, pause: Duration) -> String {
    let pace = if pause.is_zero() {
        "back to back".to_owned()
    } else {
        format!("{} ms apart", pause.as_millis())
    };
    format!("run /bin/true, {}, {pace}", cgroups.name())
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

// === memory ===

/// The largest resident set of the `run` command itself, read while its container waits: what the kernel's accounts
/// at exit say is never less than what the process that started it had.
fn peak_memory(options: &Options) -> Result<Value> {
    let mut peaks = serde_json::Map::new();
    for subject in subjects() {
        // crun refuses a hybrid host.
        let peak = Cgroups::V1
            .run(|| peak_of(&subject))
            .with_context(|| format!("{}'s memory", subject.name))?;
        peaks.insert(subject.name.to_owned(), json!(peak));
    }
    if !options.json {
        println!("\npeak resident memory of `run` itself");
        peaks
            .iter()
            .for_each(|(name, kb)| println!("{name:<28} {kb:>6} kB"));
    }
    Ok(Value::Object(peaks))
}

fn peak_of(subject: &Subject) -> Result<u64> {
    let scratch = scratch()?;
    let bundle = Bundle::new(&["/bin/sh", "-c", "echo started; read end"]);
    let contender = contender(subject, &bundle, scratch.path(), "");
    let mut child = (contender.command)()
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
