//! The resource control filesystem: shares of caches and of memory bandwidth, and their monitoring
//! (<https://docs.kernel.org/filesystems/resctrl.html>).
//!
//! A control group is a directory in its root; `schemata` says what its tasks get, `tasks` who they are. A monitoring
//! group is a directory in a control group's `mon_groups`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};

use crate::error::{Error, Result};
use crate::mountinfo;

/// Where it is usually mounted.
const USUAL_MOUNT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`
const MAGIC: FsType = FsType(0x0765_5821);

/// A mounted resource control filesystem.
#[derive(Debug, Clone)]
pub struct Resctrl {
    root: PathBuf,
}

/// What a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The control group; `/` is the root's, empty is one of the container's own.
    pub class: String,
    /// A line for the L3 cache, such as `L3:0=f;1=ff`.
    pub l3: String,
    /// A line for memory bandwidth, such as `MB:0=20`.
    pub bandwidth: String,
    /// More lines.
    pub lines: Vec<String>,
    /// Whether the container gets a monitoring group.
    pub monitor: bool,
}

/// What was made for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The control group.
    pub dir: PathBuf,
    /// Whether it goes with the container.
    pub own: bool,
    /// The monitoring group, which always does.
    pub monitor: Option<PathBuf>,
}

impl Resctrl {
    /// The one that is mounted.
    ///
    /// # Errors
    /// `ENOENT` where none is.
    pub fn find() -> Result<Self> {
        let usual = Path::new(USUAL_MOUNT);
        if statfs(usual).is_ok_and(|found| found.filesystem_type() == MAGIC) {
            return Ok(Self::at(usual));
        }
        let mounts = mountinfo::own()?;
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "resctrl");
        mount
            .map(|mount| Self::at(&mount.mount_point))
            .ok_or_else(|| Error::new(Errno::ENOENT, "no resctrl filesystem is mounted"))
    }

    /// The one at this place.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the host can share this resource (`L3`, `MB`) or monitor it (`L3_MON`).
    #[must_use]
    pub fn offers(&self, resource: &str) -> bool {
        self.root.join("info").join(resource).is_dir()
    }

    /// Makes the groups that the container `id` asks for and sets their shares, before there is a process in them.
    ///
    /// # Errors
    /// A class that must be there and is not, or has other shares; what the kernel refuses. Nothing that was made stays.
    pub fn make(&self, request: &Request, id: &str) -> Result<Group> {
        let (mut group, new) = self.control_group(request, id)?;
        let mut rest = request.clone();
        if !new && !request.class.is_empty() {
            // They were compared: the class has them.
            (rest.l3, rest.bandwidth) = (String::new(), String::new());
        }
        match self.fill(&rest, id, &mut group) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.own = new;
                // The error that matters is the one that stopped us; the group is empty.
                group.remove().ok();
                Err(error)
            }
        }
    }

    /// The group, and whether it is new.
    fn control_group(&self, request: &Request, id: &str) -> Result<(Group, bool)> {
        let dir = match request.class.as_str() {
            "/" => self.root.clone(),
            "" => self.root.join(id),
            class => self.root.join(class),
        };
        if !request.class.is_empty() && !request.shares_anything() {
            return if dir.is_dir() {
                Ok((Group::found(dir), false))
            } else {
                let what = format!(
                    "stat({dir:?}): the class must exist when schemata, l3CacheSchema and memBwSchema are empty"
                );
                Err(Error::new(Errno::ENOENT, what))
            };
        }
        match fs::create_dir(&dir) {
            Ok(()) => {
                let own = request.class.is_empty();
                let group = Group {
                    own,
                    ..Group::found(dir)
                };
                Ok((group, true))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if !request.class.is_empty() {
                    compare(&dir, [&request.l3, &request.bandwidth])?;
                }
                Ok((Group::found(dir), false))
            }
            Err(error) => Err(self.explain(Error::from_io(&error, format!("mkdir({dir:?})")))),
        }
    }

    fn fill(&self, request: &Request, id: &str, group: &mut Group) -> Result<()> {
        self.set(&group.dir, request)?;
        if request.monitor {
            let dir = group.dir.join("mon_groups").join(id);
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(self.explain(Error::from_io(&error, format!("mkdir({dir:?})"))));
                }
                _ => group.monitor = Some(dir),
            }
        }
        Ok(())
    }

    /// Writes the lines of a request to a group, in one write as the kernel takes them.
    ///
    /// # Errors
    /// `EINVAL`, with what the kernel says about it.
    pub fn set(&self, dir: &Path, request: &Request) -> Result<()> {
        let given = [&request.l3, &request.bandwidth];
        let lines = given.into_iter().chain(&request.lines);
        let text: String = lines
            .filter(|line| !line.is_empty())
            .map(|line| format!("{line}\n"))
            .collect();
        if text.is_empty() {
            return Ok(());
        }
        write(&dir.join("schemata"), &text).map_err(|error| self.explain(error))
    }

    /// Adds what the kernel says about the last refusal.
    fn explain(&self, mut error: Error) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let status = status.trim();
        if !status.is_empty() && status != "ok" {
            error.call = format!("{} (last_cmd_status: {status})", error.call);
        }
        error
    }
}

impl Request {
    fn shares_anything(&self) -> bool {
        !self.l3.is_empty() || !self.bandwidth.is_empty() || !self.lines.is_empty()
    }
}

impl Group {
    fn found(dir: PathBuf) -> Self {
        Self {
            dir,
            own: false,
            monitor: None,
        }
    }

    /// Puts a process into the groups; its children will be there, too.
    ///
    /// # Errors
    /// `ESRCH` for a process that is gone.
    pub fn add_process(&self, pid: i32) -> Result<()> {
        [Some(&self.dir), self.monitor.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|dir| write(&dir.join("tasks"), &pid.to_string()))
    }

    /// Removes what goes with the container; what is gone already is success.
    ///
    /// # Errors
    /// The first directory that cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.dir);
        for dir in [self.monitor.as_ref(), own].into_iter().flatten() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::from_io(&error, format!("rmdir({dir:?})")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|error| Error::from_io(&error, format!("open({path:?}, O_WRONLY)")))?;
    file.write_all(text.as_bytes())
        .map_err(|error| Error::from_io(&error, format!("write({path:?}, {text:?})")))
}

/// Whether the lines of an existing class say what is asked for.
fn compare(dir: &Path, lines: [&String; 2]) -> Result<()> {
    let path = dir.join("schemata");
    let present = fs::read_to_string(&path)
        .map_err(|error| Error::from_io(&error, format!("read({path:?})")))?;
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        if !holds(&present, line) {
            let what = format!(
                "{path:?} holds {:?}, which is not {line:?}",
                present.trim_end()
            );
            return Err(Error::new(Errno::EEXIST, what));
        }
    }
    Ok(())
}

/// Whether a `schemata` file has each `id=value` of `line`, however the kernel pads them.
fn holds(present: &str, line: &str) -> bool {
    let Some((resource, wanted)) = pairs(line) else {
        return false;
    };
    let found = present.lines().filter_map(pairs);
    let all: Vec<(String, String)> = found
        .filter(|(name, _)| *name == resource)
        .flat_map(|(_, pairs)| pairs)
        .collect();
    wanted.iter().all(|pair| all.contains(pair))
}

/// `L3:0=00f;1=ff` as `L3` and (`0`, `f`), (`1`, `ff`).
fn pairs(line: &str) -> Option<(String, Vec<(String, String)>)> {
    let (resource, rest) = line.trim().split_once(':')?;
    let plain = |text: &str| {
        let text = text.trim().trim_start_matches('0').to_ascii_lowercase();
        if text.is_empty() {
            "0".to_owned()
        } else {
            text
        }
    };
    let pair = |pair: &str| {
        let (id, value) = pair.split_once('=')?;
        Some((plain(id), plain(value)))
    };
    let all: Option<Vec<_>> = rest.trim().split(';').map(pair).collect();
    Some((resource.trim().to_owned(), all?))
}

#[cfg(test)]
mod tests;
