//! The built `davit-oci`, from outside. Tests that runc passes as well run against both, where runc is installed:
//! what only one of them does is then visible as a difference, not as an opinion.
//!
//! The tests need root. Without it they say so and pass; `MUST_WORK=1` makes that a failure.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod cgroup_views;
mod cgroups;
mod checkpoint;
mod checkpoint_network;
mod cli;
mod config;
mod crowded_host;
mod delegation;
mod events;
mod exec;
mod exec_attack;
mod exec_flags;
mod exposure;
mod fields;
mod foreground;
mod harness;
mod hooks;
mod lifecycle;
mod limits;
mod messages;
mod mount_options;
mod mounts;
mod mounts_command;
mod nested;
mod net_devices;
mod notify;
mod process;
mod resources;
mod rootless;
mod seccomp;
mod security;
mod shared_mounts;
mod small_memory;
mod systemd;
mod userns;
