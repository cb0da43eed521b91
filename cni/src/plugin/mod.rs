//! The plugins of this project, and what they share: the plugin's side of the protocol.
//!
//! A plugin reads its parameters from `CNI_*` variables and its configuration from stdin, prints a result or an
//! error object on stdout, and ends with 0 or 1. <https://www.cni.dev/docs/spec/#section-2-execution-protocol>

mod bridge;
mod failure;
mod firewall;
mod gc;
mod hash;
mod host_local;
mod ipam;
mod loopback;
mod portmap;
mod request;
mod sysctl;

use std::ffi::OsString;
use std::io::{Read, Write};

use serde_json::{Value, json};

pub use bridge::remove_network;
pub use failure::Failure;
pub(crate) use request::Request;

use crate::version::{SUPPORTED_VERSIONS, Version};

/// The plugins that the multi-call binary holds.
pub const NAMES: [&str; 5] = ["bridge", "firewall", "host-local", "loopback", "portmap"];

/// Runs the plugin `name` and gives its exit code.
///
/// Without `CNI_COMMAND` it says on `stderr` what it is, for people who try it.
pub fn run(
    name: &str,
    env: &dyn Fn(&str) -> Option<OsString>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let answer = match env("CNI_COMMAND") {
        None => {
            let text = format!(
                "CNI plugin {name} {}\nCNI protocol versions supported: {}\n",
                env!("CARGO_PKG_VERSION"),
                SUPPORTED_VERSIONS.join(", ")
            );
            return u8::from(stderr.write_all(text.as_bytes()).is_err());
        }
        Some(command) if command == "VERSION" => Ok(Some(versions())),
        Some(_) => Request::read(env, stdin).and_then(|request| dispatch(name, &request)),
    };
    let (text, code) = match answer {
        Ok(None) => (String::new(), 0),
        Ok(Some(value)) => (value.to_string(), 0),
        Err(failure) => (failure.to_value().to_string(), 1),
    };
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => code,
        // Nobody hears us: the exit code is all that is left.
        Err(_) => 1,
    }
}

fn versions() -> Value {
    json!({"cniVersion": Version::NEWEST.to_string(), "supportedVersions": SUPPORTED_VERSIONS})
}

fn dispatch(name: &str, request: &Request) -> Result<Option<Value>, Failure> {
    match (name, request.command.as_str()) {
        ("bridge", "ADD") => bridge::add(request).map(Some),
        ("bridge", "DEL") => bridge::del(request).map(|()| None),
        ("bridge", "CHECK") => bridge::check(request).map(|()| None),
        ("bridge", "STATUS") => bridge::status(request).map(|()| None),
        ("bridge", "GC") => bridge::collect(request).map(|()| None),
        ("firewall", "ADD") => firewall::add(request).map(Some),
        ("firewall", "DEL" | "GC") => firewall::del(request).map(|()| None),
        ("firewall", "CHECK") => firewall::check(request).map(|()| None),
        ("firewall", "STATUS") => firewall::status(request).map(|()| None),
        ("host-local", "ADD") => {
            host_local::add(request).map(|r| Some(r.to_value(request.version)))
        }
        ("host-local", "DEL") => host_local::del(request).map(|()| None),
        ("host-local", "CHECK") => host_local::check(request).map(|()| None),
        ("host-local", "STATUS") => host_local::status(request).map(|()| None),
        ("host-local", "GC") => host_local::collect(request).map(|()| None),
        ("loopback", "ADD") => loopback::add(request).map(Some),
        ("loopback", "DEL") => loopback::del(request).map(|()| None),
        ("loopback", "CHECK") => loopback::check(request).map(|()| None),
        ("loopback", "STATUS" | "GC") => Ok(None),
        ("portmap", "ADD") => portmap::add(request).map(Some),
        ("portmap", "DEL") => portmap::del(request).map(|()| None),
        ("portmap", "CHECK") => portmap::check(request).map(|()| None),
        ("portmap", "STATUS") => portmap::status(request).map(|()| None),
        ("portmap", "GC") => portmap::collect(request).map(|()| None),
        (_, command) => Err(Failure::environment(format!(
            "unknown CNI_COMMAND {command:?}"
        ))),
    }
}
