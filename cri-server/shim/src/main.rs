//! The per-pod supervisor and its wire protocol
#![forbid(unsafe_code)]

fn main() {}
