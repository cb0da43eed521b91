//! Developer commands: up, down, test, bench, check, tools
#![forbid(unsafe_code)]

fn main() {}
