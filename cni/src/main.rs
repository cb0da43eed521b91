//! `davit-cni`: this project's CNI plugins in one binary, chosen by the name that it is called by, or by its
//! first argument.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use cni::plugin;

const HELP: &str = "\
Usage: bridge | firewall | host-local | loopback | portmap     (a link to davit-cni under that name)
       davit-cni bridge | firewall | host-local | loopback | portmap
       davit-cni --version | --help

CNI plugins. They read the CNI_* variables and a network configuration on standard input;
see https://www.cni.dev/docs/spec/. Without CNI_COMMAND they say which versions they speak.
";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    match plugin_name(&called, args.next()) {
        Ok(name) => {
            let code = plugin::run(
                name,
                &|key| std::env::var_os(key),
                &mut std::io::stdin().lock(),
                &mut std::io::stdout(),
                &mut std::io::stderr(),
            );
            ExitCode::from(code)
        }
        Err((text, code)) => {
            let written = if code == 0 {
                std::io::stdout().write_all(text.as_bytes())
            } else {
                std::io::stderr().write_all(text.as_bytes())
            };
            ExitCode::from(if written.is_ok() { code } else { 1 })
        }
    }
}

/// Which plugin is meant; or what to print instead, and the exit code.
fn plugin_name(called: &OsString, first: Option<OsString>) -> Result<&'static str, (String, u8)> {
    let known = |name: &str| plugin::NAMES.into_iter().find(|plugin| *plugin == name);
    let base = Path::new(called)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(name) = known(base) {
        return Ok(name);
    }
    match first.as_deref().and_then(|first| first.to_str()) {
        Some("--help" | "-h") => Err((HELP.to_owned(), 0)),
        Some("--version" | "-V") => Err((format!("davit-cni {}\n", env!("CARGO_PKG_VERSION")), 0)),
        Some(name) => known(name).ok_or_else(|| {
            (
                format!(
                    "davit-cni: no plugin {name:?}; there are {}\n",
                    plugin::NAMES.join(", ")
                ),
                64,
            )
        }),
        None => Err((HELP.to_owned(), 64)),
    }
}
