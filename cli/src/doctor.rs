//! `davit doctor`: what containers need of a host, whether this host has it, and what is lost where it has not.
//!
//! One table, [`table::NEEDS`], is the list that is looked at here and the table in docs/kernel-features.md. Where a
//! probe is cheap it makes the call that Davit makes and throws the result away: a kernel version proves little
//! below a seccomp filter or a hardened configuration.

mod host;
mod kernel;
mod report;
pub mod table;

use crate::args::DoctorOptions;
use crate::format::print;
use crate::node::Node;
use crate::{Result, error};

pub use report::Report;
use table::NEEDS;

/// How much depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No container without it.
    Required,
    /// Something that people use is lost without it.
    Recommended,
    /// A help.
    Optional,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Required => "required",
            Level::Recommended => "recommended",
            Level::Optional => "optional",
        }
    }
}

/// One need, and how to see whether the host meets it.
pub struct Need {
    /// A short name that never changes: programs look for it in the JSON.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// Kernel, Privileges, cgroups, Network, Storage or Tools.
    pub group: &'static str,
    /// The first kernel that has it, if it is a matter of the kernel.
    pub since: Option<&'static str>,
    /// How much depends on it.
    pub level: Level,
    /// What Davit does with it.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// Looks.
    pub probe: fn(&Node) -> Finding,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is there; the detail may be empty.
    Present(String),
    /// It is not, or not whole; why.
    Absent(String),
    /// It could not be looked at; why.
    Unknown(String),
}

impl Finding {
    /// A probe that made the call: an error is the reason.
    fn of<T, E: std::fmt::Display>(outcome: std::result::Result<T, E>) -> Finding {
        match outcome {
            Ok(_) => Finding::Present(String::new()),
            Err(error) => Finding::Absent(error.to_string()),
        }
    }

    fn of_io<T>(outcome: std::io::Result<T>, what: &str) -> Finding {
        match outcome {
            Ok(_) => Finding::Present(String::new()),
            Err(source) => Finding::Absent(format!("{what}: {}", error::reason(&source))),
        }
    }
}

/// Runs the command. The exit code is 1 if something required is missing.
///
/// # Errors
/// Standard output is closed.
pub fn run(node: &Node, options: &DoctorOptions) -> Result<u8> {
    if options.markdown {
        print(&report::markdown())?;
        return Ok(0);
    }
    let report = examine(node);
    if options.json {
        print(&format!("{:#}\n", report.json()))?;
    } else {
        print(&report.text())?;
    }
    Ok(u8::from(!report.faults().is_empty()))
}

/// Looks at everything.
#[must_use]
pub fn examine(node: &Node) -> Report {
    Report::new(
        NEEDS
            .iter()
            .map(|need| (need, (need.probe)(node)))
            .collect(),
    )
}
