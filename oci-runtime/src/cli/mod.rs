//! The command line: runc's, so that whatever drives runc can drive this program.
mod args;
pub mod commands;
pub mod flags;
mod generate;
pub mod help;
mod root;

use std::ffi::OsString;
use std::path::Path;

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::log::{Format, Log};
use crate::plan::Manager;
use crate::state::Store;
use crate::verbs;
use commands::{COMMANDS, Command, GLOBAL};
use flags::Parsed;

/// What the flags before the command say.
#[derive(Debug, Clone)]
pub struct Global {
    /// The containers.
    pub store: Store,
    /// Whether `--root` was given.
    pub explicit_root: bool,
    /// Where errors and warnings go.
    pub log: Log,
    /// Whether what needs privileges may be left out.
    pub rootless: bool,
    /// Who makes cgroups.
    pub cgroup_manager: Manager,
}

impl Global {
    /// Says something that is odd but not wrong.
    pub fn warn(&self, message: &str) {
        self.log.warning(message);
    }
}

/// Runs the program with these arguments (the first being the program's name). Returns the exit code.
pub fn run(args: &[OsString]) -> u8 {
    let args = args.get(1..).unwrap_or_default();
    let mut log = Log::default();
    let (error, code) = match dispatch(args, &mut log) {
        Ok(code) => return code,
        Err((error, code)) => (error, code),
    };
    log.error(&error);
    code
}

fn dispatch(raw: &[OsString], log: &mut Log) -> std::result::Result<u8, (Error, u8)> {
    let args = &args::as_text(raw);
    let usage = |error: String| {
        (
            Error::new(error).hint("\"davit-oci --help\" shows the command line"),
            1,
        )
    };
    let global = Parsed::new(GLOBAL, args).map_err(usage)?;
    // First of all, so that even a wrong flag is an entry in the log.
    if let Some(path) = global.get("log") {
        log.open(path).map_err(|error| (error, 1))?;
    }
    log.set_format(global.get("log-format").unwrap_or("text"))
        .map_err(|error| (error, 1))?;
    log.debug = global.is_on("debug");
    args::refuse_bytes(&raw[..raw.len() - global.operands.len()]).map_err(|error| (error, 1))?;
    if global.is_on("version") {
        print(&verbs::version()).map_err(|error| (error, 1))?;
        return Ok(0);
    }
    let Some((name, rest)) = global
        .operands
        .split_first()
        .filter(|_| !global.is_on("help"))
    else {
        print(&help::program()).map_err(|error| (error, 1))?;
        return Ok(0);
    };
    if name == "help" {
        let named = rest
            .first()
            .and_then(|name| COMMANDS.iter().find(|one| one.name == name));
        print(&named.map_or_else(help::program, help::command)).map_err(|error| (error, 1))?;
        return Ok(0);
    }
    let Some(command) = COMMANDS.iter().find(|one| one.name == name) else {
        return Err(usage(format!("no such command: {name:?}")));
    };
    let code = if command.name == "exec" { 255 } else { 1 };
    let mut parsed = Parsed::new(command.flags, rest).map_err(usage)?;
    args::check(raw, command, &mut parsed).map_err(|error| (error, code))?;
    if parsed.is_on("help") {
        print(&help::command(command)).map_err(|error| (error, 1))?;
        return Ok(0);
    }
    check_count(command, &parsed).map_err(|error| (error, 1))?;
    let global = settings(&global, log).map_err(|error| (error, 1))?;
    if command.makes_processes {
        crate::exe::protect().map_err(|error| (error, code))?;
    }
    // Descriptors that the caller forgot to close must not reach a container (CVE-2024-21626). Those that it means to
    // pass on are marked again right before the program starts. A kernel before 5.11 cannot do this; the program's
    // descriptors are then closed one step later, in its own start.
    drop(sys::fd::close_on_exec_from(3));
    execute(&global, command, &parsed).map_err(|error| {
        let what = match parsed.operands.first() {
            Some(id) if command.count.1 > 0 => format!("{} {id:?}", command.name),
            _ => command.name.to_owned(),
        };
        (error.within(what), code)
    })
}

fn check_count(command: &Command, parsed: &Parsed) -> Result<()> {
    let (least, most) = command.count;
    let count = parsed.operands.len();
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let wants = if command.operands.is_empty() {
        "no operands"
    } else {
        command.operands
    };
    Err(Error::new(format!(
        "{}: wants {wants}, got {count} operands",
        command.name
    )))
}

fn settings(global: &Parsed, log: &Log) -> Result<Global> {
    let cgroup_manager = crate::cgroup::manager(
        global.is_on("systemd-cgroup"),
        global.get("cgroup-manager"),
        global.get("rootless"),
    )?;
    let rootless = match global.get("rootless").unwrap_or("auto") {
        "auto" => root::is_unprivileged(),
        "true" => true,
        "false" => false,
        other => {
            return Err(Error::new(format!(
                "--rootless: {other:?} is neither true, false nor auto"
            )));
        }
    };
    let explicit_root = global.get("root").is_some();
    let root = match global.get("root") {
        Some(root) => {
            crate::paths::absolute(root).map_err(|error| Error::new(format!("--root: {error}")))?
        }
        None => root::default()?,
    };
    if root == Path::new("/") {
        return Err(Error::new("--root: the root directory cannot be used"));
    }
    Ok(Global {
        store: Store::new(root),
        explicit_root,
        log: log.clone(),
        rootless,
        cgroup_manager,
    })
}

fn execute(global: &Global, command: &Command, parsed: &Parsed) -> Result<u8> {
    let id = |parsed: &Parsed| {
        ContainerId::new(
            parsed
                .operands
                .first()
                .map(String::as_str)
                .unwrap_or_default(),
        )
    };
    let regex = parsed.is_on("regex");
    match command.name {
        "create" => verbs::create::run(global, &id(parsed)?, parsed),
        "start" => verbs::start::run(global, &id(parsed)?),
        "run" => verbs::run::run(global, &id(parsed)?, parsed),
        "state" => verbs::state::run(global, &id(parsed)?),
        "kill" | "delete" if regex => {
            let pattern = parsed.operands.first().map(String::as_str);
            verbs::pattern::each(global, pattern.unwrap_or_default(), |id| {
                if command.name == "kill" {
                    verbs::kill::run(global, id, parsed)
                } else {
                    verbs::delete::run(global, id, parsed.is_on("force"))
                }
            })
        }
        "kill" => verbs::kill::run(global, &id(parsed)?, parsed),
        "delete" => verbs::delete::run(global, &id(parsed)?, parsed.is_on("force")),
        "exec" => verbs::exec::run(global, &id(parsed)?, parsed),
        "pause" => verbs::pause::pause(global, &id(parsed)?),
        "resume" => verbs::pause::resume(global, &id(parsed)?),
        "checkpoint" => verbs::checkpoint::run(global, &id(parsed)?, parsed),
        "restore" => verbs::restore::run(global, &id(parsed)?, parsed),
        "ps" => verbs::ps::run(global, &id(parsed)?, parsed),
        "events" => verbs::events::run(global, &id(parsed)?, parsed),
        "list" => verbs::list::run(global, parsed),
        "mounts" => verbs::mounts::run(global, parsed),
        "update" => verbs::update::run(global, &id(parsed)?, parsed),
        "spec" => verbs::spec::run(parsed),
        "features" => verbs::features::run(),
        "completion" => generate::completion(parsed.operands.first().map_or("", String::as_str)),
        "man" => generate::man(),
        other => Err(Error::new(format!("no such command: {other:?}"))),
    }
}

/// Writes to stdout; a reader that has gone away is no failure worth a message.
///
/// # Errors
/// A full disk behind stdout.
pub fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(sys::Error::from_io(&error, "write(stdout)").into())
        }
        _ => Ok(()),
    }
}

/// The name of a log format.
///
/// # Errors
/// An unknown one.
pub fn parse_format(name: &str) -> Result<Format> {
    match name {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        other => Err(Error::new(format!(
            "invalid log-format: {other:?} is neither text nor json"
        ))),
    }
}
