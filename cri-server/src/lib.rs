//! The CRI front-end: gRPC in, engine calls out, and the daemon around it.
//!
//! A handler converts the request, calls the engine and maps the error; nothing else. What a pod or a container *is*
//! lives in the engine, which knows no protobuf.
//!
//! ```text
//! main -> flags, config -> daemon: run directory, socket, engine, signals
//!                             ├─> server: limits, one request layer ─> runtime | image | davit ─> engine
//!                             └─> streaming: exec, attach, port-forward ─> engine
//! ```
//!
//! **Invariant:** no container logic here, no name or id is invented here, and no secret of a request reaches a log.
#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod flags;
pub mod logging;

mod convert;
mod davit;
mod image;
mod metrics;
mod node;
mod runtime;
mod server;
mod status;
mod streaming;
