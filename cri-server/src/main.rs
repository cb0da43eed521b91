//! `davit-cri`: parse, set up logging, run the daemon, print the error, answer with an exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use cri_server::config::{Settings, reference};
use cri_server::flags::{Action, ConfigAction, Flags};
use cri_server::{daemon, logging};

/// `EX_USAGE` of `sysexits.h`: the flags or the configuration are wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(answer) => return print_clap(&answer),
    };
    if let Some(Action::Config(action)) = &flags.action {
        return configuration(action, &flags);
    }
    let settings = match Settings::load(&flags) {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&problems.to_string());
            return ExitCode::from(USAGE);
        }
    };
    match run(&flags, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("davit-cri: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `davit-cri config …`: to standard output what was asked for, to standard error what is wrong.
fn configuration(action: &ConfigAction, flags: &Flags) -> ExitCode {
    let text = match action {
        ConfigAction::Default => reference::default_file(),
        ConfigAction::Check { file } => {
            let mut flags = flags.clone();
            flags.config = file.clone().or(flags.config);
            match Settings::load(&flags) {
                Ok(_) => "the configuration is good\n".to_owned(),
                Err(problems) => {
                    complain(&problems.to_string());
                    return ExitCode::from(USAGE);
                }
            }
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // standard output is closed
    }
}

fn run(flags: &Flags, settings: Settings) -> anyhow::Result<()> {
    logging::init(settings.log_level, flags.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the worker threads")?;
    let outcome = runtime.block_on(daemon::run(settings, flags));
    // A blocking call into a shim or a plugin may hang; recovery undoes what it leaves.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(outcome?)
}

/// Help and version go to standard output with code 0, mistakes to standard error with code 64.
fn print_clap(answer: &clap::Error) -> ExitCode {
    let code = if answer.use_stderr() { USAGE } else { 0 };
    match answer.print() {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE, // standard output is closed, as in `davit-cri --help | head -0`
    }
}

#[allow(
    clippy::let_underscore_must_use,
    reason = "standard error may be closed; the exit code still says it"
)]
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
