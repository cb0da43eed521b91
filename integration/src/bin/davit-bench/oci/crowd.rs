//! What `run` costs on a host with many mounts and many containers, against the same host without.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::operations::{Operation, Stage};
use super::subjects::Subject;
use crate::contest;
use crate::options::Options;
use integration::oci::fresh_id;

const MOUNTS: usize = 2_000;
const CONTAINERS: usize = 1_000;

/// Races on the empty host and on the crowded one, in a mount namespace of this thread's own.
pub(crate) fn measure(floor: &Path, subjects: &[Subject], options: &Options) -> Result<Value> {
    let mut results = Vec::new();
    let place = super::operations::scratch()?;
    for crowded in [false, true] {
        let stage = Stage::new()?;
        let crowd = crowded.then(|| Crowd::gather(place.path())).transpose()?;
        let mut contenders = vec![stage.floor(floor)];
        contenders.extend(
            subjects
                .iter()
                .map(|subject| stage.contender(Operation::Run, subject)),
        );
        for contender in &contenders {
            contest::trial(contender).map_err(anyhow::Error::msg)?;
        }
        if crowded {
            subjects
                .iter()
                .try_for_each(|subject| stage.populate(subject, CONTAINERS))?;
        }
        let times = contest::race(&contenders, options.runs, Duration::ZERO)?;
        if !options.json {
            let host = if crowded {
                format!("with {MOUNTS} mounts and {CONTAINERS} containers")
            } else {
                "on an empty host".to_owned()
            };
            contest::print(&format!("run /bin/true {host}"), &times);
        }
        results.push(times);
        drop(crowd);
    }
    let costs = results[0].iter().zip(&results[1]);
    let costs: Vec<Value> = costs
        .map(|(empty, full)| json!({"name": empty.name, "ratio": contest::ratio(full, empty, 50)}))
        .collect();
    for cost in costs.iter().filter(|_| !options.json) {
        println!(
            "{:<28} {:>7.2} x the empty host",
            cost["name"].as_str().unwrap_or_default(),
            cost["ratio"].as_f64().unwrap_or(0.0)
        );
    }
    Ok(json!(costs))
}

/// Mounts, until dropped.
struct Crowd<'a>(&'a Path, usize);

impl<'a> Crowd<'a> {
    fn gather(place: &'a Path) -> Result<Crowd<'a>> {
        let none: Option<&str> = None;
        let mut crowd = Crowd(place, 0);
        for number in 0..MOUNTS {
            let at = place.join(number.to_string());
            std::fs::create_dir(&at)?;
            mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none).context("a tmpfs")?;
            crowd.1 = number + 1;
        }
        Ok(crowd)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for number in 0..self.1 {
            let at = self.0.join(number.to_string());
            if let Err(error) = umount2(&at, MntFlags::MNT_DETACH) {
                eprintln!("davit-bench: umount {at:?}: {error}");
            }
        }
    }
}

impl Stage {
    /// Fills a runtime's state directory with what many containers leave there: one is made, and its directory copied.
    fn populate(&self, subject: &Subject, count: usize) -> Result<()> {
        let runtime = self.command_line(subject);
        let id = self.resident(&runtime);
        let one = runtime.root.join(&id);
        for _ in 0..count {
            let copy = runtime.root.join(fresh_id());
            std::fs::create_dir(&copy)?;
            for entry in std::fs::read_dir(&one)?.flatten() {
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
                }
            }
        }
        Ok(())
    }
}
