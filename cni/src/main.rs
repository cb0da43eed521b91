//! CNI executor and plugins
#![forbid(unsafe_code)]

fn main() {}
