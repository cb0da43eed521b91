//! The OCI runtime: config.json -> plan -> container
#![forbid(unsafe_code)]

fn main() {}
