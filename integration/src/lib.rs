//! Black-box tests of the built binaries against genuine peers: crictl, runc, crun, podman, containerd and a
//! real registry.
//!
//! Nothing here links the crates it tests: everything goes through the programs as a user would start them.
//! Binaries come from `DAVIT_BIN_DIR` (what `cargo xtask test` builds), genuine tools from `PATH` and
//! `~/.cache/davit/tools/bin`. A test that cannot run prints why; with `MUST_WORK=1` it fails instead.
#![forbid(unsafe_code)]

pub mod bin;
pub mod bundle;
pub mod command;
pub mod crictl;
pub mod host;
pub mod image;
pub mod known;
pub mod leak;
pub mod node;
pub mod oci;
pub mod peer;
pub mod registry;
pub mod wait;
