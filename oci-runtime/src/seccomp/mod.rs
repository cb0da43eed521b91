//! Seccomp: from `linux.seccomp` to a program for the kernel, without libseccomp. See docs/seccomp.md.
//!
//! ```text
//! linux.seccomp ──parse──▶ rules ──compile──▶ program ──load──▶ the process, right before its own program
//!  spec/seccomp.rs          parse.rs  compile.rs              init/filter.rs
//! ```
pub mod action;
pub mod arch;
mod assembler;
mod base64;
pub mod checks;
pub mod compile;
pub mod listener;
mod parse;
pub mod simulate;
pub mod stored;
mod syscalls;
mod table;

pub use parse::{FLAGS, OPERATORS, plan};
pub use syscalls::{Multiplexer, Syscall};

use sys::seccomp::{FilterFlags, Instruction};

/// A filter, every decision made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompPlan {
    /// The program.
    pub program: Vec<Instruction>,
    /// How it is loaded.
    pub flags: FilterFlags,
    /// Who answers for `SCMP_ACT_NOTIFY`, where there is such a rule.
    pub listener: Option<Listener>,
}

/// Who answers for some calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listener {
    /// The socket that gets the descriptor.
    pub path: String,
    /// What it is told with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}
