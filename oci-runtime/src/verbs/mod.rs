//! One file per OCI verb.
pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod mounts;
pub mod pattern;
pub mod pause;
pub mod pidfd;
pub mod ps;
pub mod restore;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

mod foreground;
mod notify;
mod relay;

/// The newest version of the runtime spec that this runtime follows.
pub const SPEC_VERSION: &str = "1.3.0";

/// What `--version` prints. The first line has the form that containerd's go-runc looks for.
pub fn version() -> String {
    format!(
        "davit-oci version {}\nspec: {SPEC_VERSION}\n",
        env!("CARGO_PKG_VERSION")
    )
}
