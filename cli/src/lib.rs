//! The command for people: `davit up` gives a node with a sample pod, `davit down` takes it away, `davit doctor`
//! says what the host can do, `davit image` looks after images.
//!
//! **Invariant:** the node is reached through CRI and `davit.v1` on its socket alone. What `down` removes by hand is
//! what a dead daemon left: it has no API that one could ask.
#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod daemon;
pub mod doctor;
pub mod down;
pub mod error;
mod format;
mod generate;
pub mod image;
pub mod node;
mod progress;
pub mod sample;
pub mod status;
mod sweep;
pub mod up;

use args::{Args, Command};
pub use error::{Error, Result};

/// Runs one command and returns the exit code of a run that told all it had to tell.
///
/// # Errors
/// What happened to what and why, for `main` to print with its hint.
pub fn run(args: Args) -> Result<u8> {
    let node = args.node.resolve()?;
    match args.command {
        Command::Up(options) => block_on(up::run(&node, &options)),
        Command::Down(options) => block_on(down::run(&node, &options)),
        Command::Status(options) => block_on(status::run(&node, &options)),
        Command::Image(command) => block_on(image::run(&node, &command)),
        Command::Doctor(options) => doctor::run(&node, &options),
        Command::Version => block_on(status::version(&node)),
        Command::Completion { shell } => generate::completion(shell),
        Command::Man { out } => generate::man(out.as_deref()),
        Command::Exec(options) => daemon::become_daemon(&options),
    }
}

/// One thread is plenty for a client.
fn block_on(work: impl Future<Output = Result<u8>>) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|source| Error::Io {
            what: "start the event loop".to_owned(),
            source,
        })?
        .block_on(work)
}
