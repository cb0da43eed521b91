//! The per-pod supervisor and its wire protocol.
//!
//! The library is what the daemon needs of a shim: [`protocol`], [`client`] and [`files`]. The rest is the shim itself.
#![forbid(unsafe_code)]

pub mod client;
pub mod files;
pub mod proc;
pub mod protocol;
