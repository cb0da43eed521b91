//! The container's first process: arguments, environment, identity, limits.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capability, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User,
};

use super::{Host, Input, capabilities};
use crate::error::{Error, Result};
use crate::model::EnvVar;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files: what programs that use select(2) can stand, and what the others may raise it to.
const NOFILE_SOFT: u64 = 1024;
const NOFILE_HARD: u64 = 524_288;

/// The `process` object.
pub(crate) fn process(input: &Input<'_>) -> Result<Process> {
    let (container, security) = (input.container, &input.container.security);
    let mut user = User::default();
    user.set_uid(input.user.uid);
    user.set_gid(input.user.gid);
    user.set_additional_gids(Some(input.user.groups.clone()));

    let mut process = Process::default();
    process.set_terminal(Some(container.tty));
    process.set_user(user);
    process.set_args(Some(args(input)?));
    process.set_env(Some(env(input)?));
    process.set_cwd(cwd(input));
    process.set_capabilities(Some(capabilities::sets(security, input.host)?));
    process.set_rlimits(Some(vec![open_files(input.host)?]));
    process.set_no_new_privileges(Some(security.no_new_privs));
    process.set_oom_score_adj(oom_score_adj(input)?);
    Ok(process)
}

/// Kubernetes' table of `command`, `args`, ENTRYPOINT and CMD: `command` drops both of the image's,
/// `args` alone replaces CMD.
fn args(input: &Input<'_>) -> Result<Vec<String>> {
    let (container, image) = (input.container, input.image);
    let (mut args, tail) = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => (container.command.clone(), &container.args),
        (true, false) => (image.entrypoint.clone(), &container.args),
        (true, true) => (image.entrypoint.clone(), &image.cmd),
    };
    args.extend(tail.iter().cloned());
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid(
            "command",
            "empty, and the image has neither ENTRYPOINT nor CMD",
        ));
    }
    if let Some(bad) = args.iter().find(|arg| arg.contains('\0')) {
        return Err(Error::invalid(
            "command",
            format!("{bad:?} contains a NUL byte"),
        ));
    }
    Ok(args)
}

/// Defaults, then the image's, then the request's; a later value takes an earlier one's place.
fn env(input: &Input<'_>) -> Result<Vec<String>> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    env.set("HOSTNAME", input.hostname);
    if input.container.tty {
        env.set("TERM", "xterm");
    }
    env.set("HOME", &input.user.home);
    for line in &input.image.env {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        env.set(key, value);
    }
    for EnvVar { key, value } in &input.container.envs {
        let value = std::str::from_utf8(value).map_err(|_| {
            Error::unsupported(
                format!("envs[{key:?}]"),
                "the value is not UTF-8, which config.json cannot carry",
            )
        })?;
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid(
                format!("envs[{key:?}]"),
                "no valid environment variable",
            ));
        }
        env.set(key, value);
    }
    Ok(env.lines)
}

/// `NAME=value` lines with each name once, in the order in which the names came first.
#[derive(Default)]
struct Environment {
    lines: Vec<String>,
    index: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, key: &str, value: &str) {
        let line = format!("{key}={value}");
        match self.index.get(key) {
            Some(&place) => self.lines[place] = line,
            None => {
                self.index.insert(key.to_owned(), self.lines.len());
                self.lines.push(line);
            }
        }
    }
}

/// The request's directory, else the image's, else `/`; relative ones count from `/`.
pub(crate) fn cwd(input: &Input<'_>) -> PathBuf {
    let asked = [&input.container.working_dir, &input.image.working_dir];
    let path = asked
        .into_iter()
        .find(|path| !path.is_empty())
        .map_or("/", String::as_str);
    PathBuf::from("/").join(path)
}

/// The limit of open files, as far as the engine's own limit allows.
fn open_files(host: &Host) -> Result<PosixRlimit> {
    let hard = NOFILE_HARD.min(host.nofile_hard);
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(NOFILE_SOFT.min(hard))
        .hard(hard)
        .build()
        .map_err(|error| Error::Internal(format!("the limit of open files: {error}")))
}

/// The request's value; where the engine may not go lower than its own, its own.
fn oom_score_adj(input: &Input<'_>) -> Result<Option<i32>> {
    let Some(asked) = input
        .container
        .resources
        .as_ref()
        .map(|limits| limits.oom_score_adj)
    else {
        return Ok(None);
    };
    if !(-1000..=1000).contains(&asked) {
        return Err(Error::invalid(
            "linux.resources.oom_score_adj",
            format!("{asked} is not between -1000 and 1000"),
        ));
    }
    let floor = if input.host.has(Capability::SysResource) {
        -1000
    } else {
        input.host.oom_score_adj
    };
    if asked < floor {
        tracing::warn!(
            container.id = input.id,
            asked,
            given = floor,
            "oom_score_adj cannot go below the daemon's own without CAP_SYS_RESOURCE"
        );
    }
    Ok(i32::try_from(asked.max(floor)).ok())
}
