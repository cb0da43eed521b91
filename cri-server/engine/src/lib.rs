//! What runs on a node, with no API of its own: pods, containers, images, exec, logs, recovery.
//!
//! One task owns each pod and works through its operations; reads come from a snapshot that the task
//! publishes and never wait for it. An operation goes on when its caller leaves, and an identical retry
//! waits for the running operation instead of starting another. Containers are reached only through the
//! pod's shim and the OCI runtime's command line, so any OCI runtime can be a handler.
//!
//! **Invariant:** no protobuf, no gRPC. A second front-end needs nothing that is not in [`model`].
#![forbid(unsafe_code)]

mod attach;
mod command;
pub mod config;
mod container;
mod engine;
pub mod error;
pub mod events;
mod exec;
mod forward;
mod handler;
mod ids;
mod images;
pub mod model;
mod names;
mod network;
mod node;
mod placement;
mod pod;
mod record;
mod recovery;
mod rundir;
mod spec;
mod stats;
mod streams;
mod undo;

pub use config::{CgroupDriver, Config, Handler, ImagesConfig, NetworkConfig, Reload};
pub use engine::{Counts, Engine};
pub use error::{Error, Kind, Result};
pub use rundir::prepare_run_dir;
pub use streams::{Input, Output, Streams, WindowSize};
