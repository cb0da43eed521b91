//! An OCI runtime: `config.json` -> [`plan`] -> container, with runc's command line.
//!
//! Programs that link this crate use [`container`]. One file per OCI verb in [`verbs`]. Everything a container process does before its program runs is in [`init`].
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod cli;
pub mod container;
pub mod criu;
pub mod duration;
pub mod error;
pub mod exe;
pub mod hooks;
pub mod id;
pub mod init;
pub mod log;
pub mod members;
pub mod paths;
pub mod plan;
pub mod rdt;
pub mod rootless;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod systemd;
pub mod time;
pub mod undo;
pub mod usage;
pub mod verbs;
