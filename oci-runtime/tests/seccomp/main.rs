//! The seccomp compiler against libseccomp: the same table of system calls, and the same decision for every call.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod measure;
mod oracle;
mod profiles;
mod random;
mod table;
