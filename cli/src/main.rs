//! `davit`: parse, run, print the error, answer with an exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cli::args::Args;

/// `EX_USAGE` of `sysexits.h`: the command line makes no sense.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            let code = if answer.use_stderr() { USAGE } else { 0 };
            // Nobody reads the help that was asked for: then nobody reads a complaint either.
            answer.print().ok();
            return ExitCode::from(code);
        }
    };
    match cli::run(args) {
        Ok(code) => ExitCode::from(code),
        // The reader of our output went away, as `davit image ls | head` does: nothing went wrong.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code still says it.
            writeln!(std::io::stderr(), "{}", error.report()).ok();
            ExitCode::FAILURE
        }
    }
}
