//! The per-pod supervisor and its wire protocol.
//!
//! The library is what the daemon needs of a shim: [`protocol`], [`client`] and [`files`]. The rest is the shim itself:
//!
//! ```text
//! main ── options ── launch ── pod (namespaces, init)
//!                      └────── supervisor: one epoll loop
//!                                ├─ connections   requests in, replies and events out
//!                                ├─ commands      OCI runtime commands as children, with deadlines
//!                                ├─ containers    pipes, logs, exits
//!                                └─ execs         and how to kill them whole
//! ```
//!
//! **Invariants:** one thread; nothing waits for a runtime command; no process id is signalled that was reaped; an exit is
//! in its file before anyone is told.
#![forbid(unsafe_code)]

pub mod client;
pub mod files;
#[doc(hidden)]
pub mod init;
#[doc(hidden)]
pub mod launch;
mod log;
#[doc(hidden)]
pub mod options;
mod pod;
pub mod protocol;
mod supervisor;
mod tree;
