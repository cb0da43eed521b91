//! The resource control group of a container with `linux.intelRdt`: made before its first process, entered by every
//! process, and what is the container's own gone with it.
use std::path::{Path, PathBuf};

use sys::resctrl::{Group, Request, Resctrl};

use crate::error::{Error, Result, Within};
use crate::state::State;
use crate::undo::Undo;

/// What the state keeps.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rdt {
    /// The control group.
    pub dir: PathBuf,
    /// Whether it goes with the container.
    pub own: bool,
    /// The monitoring group, which always does.
    pub monitor: Option<PathBuf>,
}

impl Rdt {
    fn group(&self) -> Group {
        Group {
            dir: self.dir.clone(),
            own: self.own,
            monitor: self.monitor.clone(),
        }
    }
}

/// Makes the groups.
///
/// # Errors
/// A host that has no such thing, a class that is not as the configuration says.
pub fn make(request: &Request, id: &str, undo: &mut Undo<'_>) -> Result<Rdt> {
    let within = || "linux.intelRdt".to_owned();
    let resctrl = find().within(within)?;
    check(&resctrl, request).within(within)?;
    let group = resctrl.make(request, id).within(within)?;
    let rdt = Rdt {
        dir: group.dir.clone(),
        own: group.own,
        monitor: group.monitor.clone(),
    };
    undo.push("the resource control group", move || {
        group.remove().map_err(|error| error.to_string())
    });
    Ok(rdt)
}

fn find() -> Result<Resctrl> {
    Resctrl::find().map_err(|error| {
        Error::from(error).hint(
            "it needs a processor with such features: mount -t resctrl resctrl /sys/fs/resctrl",
        )
    })
}

/// Refuses shares of what the host cannot share.
fn check(resctrl: &Resctrl, request: &Request) -> Result<()> {
    let needs = [
        (
            &request.l3,
            "L3",
            "l3CacheSchema: this host cannot share the L3 cache",
        ),
        (
            &request.bandwidth,
            "MB",
            "memBwSchema: this host cannot share memory bandwidth",
        ),
    ];
    for (line, resource, why) in needs {
        if !line.is_empty() && !resctrl.offers(resource) {
            return Err(Error::new(why));
        }
    }
    Ok(())
}

/// Puts a process of the container into its groups, if it has any.
///
/// # Errors
/// A group that somebody removed.
pub fn join(rdt: Option<&Rdt>, pid: i32) -> Result<()> {
    let joined = rdt.map_or(Ok(()), |rdt| rdt.group().add_process(pid));
    joined.within(|| "linux.intelRdt".to_owned())
}

/// Removes what goes with the container.
///
/// # Errors
/// A group that is still in use.
pub fn remove(rdt: Option<&Rdt>) -> Result<()> {
    let removed = rdt.map_or(Ok(()), |rdt| rdt.group().remove());
    removed.within(|| "removing the resource control group".to_owned())
}

/// `update --l3-cache-schema --mem-bw-schema`
///
/// # Errors
/// runc's: the host cannot, or the container has no group.
pub fn update(state: &State, l3: &str, bandwidth: &str) -> Result<()> {
    if l3.is_empty() && bandwidth.is_empty() {
        return Ok(());
    }
    let resctrl = Resctrl::find();
    let offers = |resource: &str| resctrl.as_ref().is_ok_and(|found| found.offers(resource));
    if !l3.is_empty() && !offers("L3") {
        return Err(Error::new("Intel RDT/CAT: l3 cache schema is not enabled"));
    }
    if !bandwidth.is_empty() && !offers("MB") {
        return Err(Error::new(
            "Intel RDT/MBA: memory bandwidth schema is not enabled",
        ));
    }
    let Some(rdt) = &state.rdt else {
        return Err(Error::new(
            "updating a non-existent Intel RDT configuration is not supported",
        ));
    };
    let request = Request {
        l3: l3.to_owned(),
        bandwidth: bandwidth.to_owned(),
        ..Request::default()
    };
    Ok(resctrl?.set(Path::new(&rdt.dir), &request)?)
}
