//! `davit-shim`: supervises the containers of one pod.
#![forbid(unsafe_code)]
use std::process::ExitCode;

use shim::{init, launch, options};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    if init::is_requested(name.as_deref()) {
        // The error was reported through the pipe: stderr is /dev/null.
        return init::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match options::parse(arguments) {
        Ok(options::Request::Help) => print(options::HELP),
        Ok(options::Request::Version) => {
            print(concat!("davit-shim ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Ok(options::Request::Serve(options)) => match launch::launch(*options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

/// Errors too are one line of JSON on stdout: the daemon reads nothing else.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    print(&launch::error_line(error));
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
