//! What runs on a node: pods, containers, images, exec, logs, recovery
#![forbid(unsafe_code)]
