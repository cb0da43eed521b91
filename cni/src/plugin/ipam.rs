//! Handing the question for addresses to the IPAM plugin that the configuration names.
//!
//! The plugin is looked for in `CNI_PATH` like any other. If what is found there is this very binary, or there is
//! nothing and it is one of ours, it runs in this process: the same code without another program start.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Failure, Request, host_local};
use crate::AddResult;
use crate::invoke::{Answer, Invocation};

/// The runtime's own deadline ends us and the plugin together; this one is only against waiting for ever.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Asks for addresses.
pub(crate) fn add(plugin: &str, request: &Request) -> Result<AddResult, Failure> {
    let Some(path) = foreign(plugin, request)? else {
        return host_local::add(request);
    };
    let invocation = invocation(plugin, path, request, "ADD");
    let Answer { stdout, stderr } = invocation.run()?;
    serde_json::from_slice(&stdout)
        .map_err(|e| format!("not JSON: {e}"))
        .and_then(|value: Value| AddResult::parse(value, request.version))
        .map_err(|reason| invocation.bad_answer(reason, &stdout, stderr).into())
}

/// Gives addresses back.
pub(crate) fn del(plugin: &str, request: &Request) -> Result<(), Failure> {
    match foreign(plugin, request)? {
        None => host_local::del(request),
        Some(path) => Ok(invocation(plugin, path, request, "DEL").run().map(drop)?),
    }
}

/// Asks whether addresses could be had.
pub(crate) fn status(plugin: &str, request: &Request) -> Result<(), Failure> {
    ask(plugin, request, "STATUS", host_local::status)
}

/// Asks whether the attachment's addresses are still its own.
pub(crate) fn check(plugin: &str, request: &Request) -> Result<(), Failure> {
    ask(plugin, request, "CHECK", host_local::check)
}

/// Has addresses released that nobody knows any more.
pub(crate) fn collect(plugin: &str, request: &Request) -> Result<(), Failure> {
    ask(plugin, request, "GC", host_local::collect)
}

fn ask(
    plugin: &str,
    request: &Request,
    command: &'static str,
    ours: fn(&Request) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match foreign(plugin, request)? {
        None => ours(request),
        Some(path) => Ok(invocation(plugin, path, request, command).run().map(drop)?),
    }
}

/// The executable to run; None if it is the code in this process.
fn foreign(plugin: &str, request: &Request) -> Result<Option<PathBuf>, Failure> {
    const OURS: &str = "host-local";
    if plugin.contains('/') {
        return Err(Failure::config(format!(
            "ipam.type {plugin:?} contains `/`"
        )));
    }
    match request
        .path
        .iter()
        .map(|dir| dir.join(plugin))
        .find(|path| path.is_file())
    {
        Some(path) if plugin == OURS && is_this_binary(&path) => Ok(None),
        Some(path) => Ok(Some(path)),
        None if plugin == OURS => Ok(None),
        None => {
            let dirs: Vec<String> = request
                .path
                .iter()
                .map(|d| d.display().to_string())
                .collect();
            Err(Failure::config(format!(
                "ipam plugin {plugin:?} not found in CNI_PATH ({})",
                dirs.join(", ")
            )))
        }
    }
}

fn is_this_binary(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    identity(path).is_some_and(|found| Some(found) == identity(Path::new("/proc/self/exe")))
}

fn invocation<'a>(
    plugin: &'a str,
    path: PathBuf,
    request: &Request,
    command: &'static str,
) -> Invocation<'a> {
    let args: Vec<String> = request
        .args
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let dirs: Vec<String> = request
        .path
        .iter()
        .map(|d| d.display().to_string())
        .collect();
    let netns = request
        .netns
        .as_deref()
        .map(|p| p.to_string_lossy().into_owned())
        .unwrap_or_default();
    Invocation {
        plugin,
        path,
        command,
        env: vec![
            ("CNI_CONTAINERID", request.container_id.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", request.ifname.clone()),
            ("CNI_ARGS", args.join(";")),
            ("CNI_PATH", dirs.join(":")),
        ],
        stdin: request.config.to_string().into_bytes(),
        own_group: false,
        timeout: TIMEOUT,
    }
}
