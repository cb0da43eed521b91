//! The command line, as typed. Help, completions and man pages come from here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::node::NodeFlags;

/// Containers on Linux: a node on this machine, its pods and its images.
#[derive(Debug, Parser)]
#[command(name = "davit", version, max_term_width = 100, disable_help_subcommand = false, after_help = AFTER_HELP)]
pub struct Args {
    /// Which node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
First steps, as root:
  davit doctor      can this host run containers, and what would be missing
  davit up          start a node and a sample pod, and show how to look at it
  davit down        take all of it away again

Exit codes: 0 done, 1 not done (the message says why), 64 wrong command line.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node on this machine, with a sample pod to look at
    Up(UpOptions),
    /// Stop every pod and the node, and leave nothing of it running or mounted
    Down(DownOptions),
    /// Show what the node is and what it runs
    Status(StatusOptions),
    /// Say what this host offers to containers, what is missing and what that costs
    Doctor(DoctorOptions),
    /// Pull, import, list and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print the versions of this command and of the node
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per command into a directory
    Man {
        /// Write davit.1, davit-up.1, ... here instead of printing davit.1
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Lead a session of one's own and become the program
    #[command(hide = true, name = "exec-daemon")]
    Exec(ExecOptions),
}

/// `davit up`.
#[derive(Debug, clap::Args)]
pub struct UpOptions {
    /// Start the node alone
    #[arg(long)]
    pub no_sample: bool,
    /// The sample's image: an OCI layout or docker-archive [default: davit-sample.tar beside davit]
    #[arg(long, value_name = "FILE", conflicts_with = "no_sample")]
    pub sample_image: Option<PathBuf>,
    /// Seconds that the node may take to answer, and the sample to serve its page
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Flags for davit-cri, after `--`, such as `-- --log-level debug`, or `-- --cni-conf-dir /etc/cni/net.d` for the
    /// machine's own CNI networks instead of the built-in one (/etc/davit/net.d is looked at otherwise)
    #[arg(last = true, value_name = "DAVIT-CRI FLAGS")]
    pub daemon_args: Vec<OsString>,
}

/// `davit down`.
#[derive(Debug, clap::Args)]
pub struct DownOptions {
    /// Remove images, writable layers and the log too: the whole state directory
    #[arg(long)]
    pub purge: bool,
    /// Seconds that the pods together may take to stop before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
}

/// `davit status`.
#[derive(Debug, clap::Args)]
pub struct StatusOptions {
    /// Print JSON for a program
    #[arg(long)]
    pub json: bool,
}

/// `davit doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorOptions {
    /// Print JSON for a program
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the table of docs/kernel-features.md, without looking at this host
    #[arg(long, hide = true)]
    pub markdown: bool,
}

/// `davit image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Fetch an image from its registry
    Pull {
        /// Such as busybox, registry.example:5000/team/app:v2 or name@sha256:...
        reference: String,
        /// User name at the registry; the password is read from the first line of standard input
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
        /// Another platform than this node's, such as linux/arm64
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
    },
    /// Read images from an OCI layout or docker-archive: a directory or a tar file
    Import {
        /// The directory or file
        path: PathBuf,
        /// The name for an image that carries none
        reference: Option<String>,
    },
    /// List the images of the node
    #[command(visible_alias = "list")]
    Ls {
        /// Print JSON for a program
        #[arg(long)]
        json: bool,
    },
    /// Remove images with all their names
    #[command(visible_alias = "remove")]
    Rm {
        /// Names, digests or ids
        #[arg(required = true)]
        references: Vec<String>,
    },
}

/// The hidden first half of starting a daemon.
#[derive(Debug, clap::Args)]
pub struct ExecOptions {
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_after_two_dashes_go_to_the_daemon_untouched() {
        let args = Args::parse_from(["davit", "up", "--no-sample", "--", "--log-level", "debug"]);
        let Command::Up(up) = args.command else {
            panic!("{args:?}")
        };
        assert_eq!(up.daemon_args, ["--log-level", "debug"]);
    }

    #[test]
    fn the_flags_that_name_a_node_go_before_or_after_the_command() {
        for argv in [
            ["davit", "--run-dir", "/r", "status"],
            ["davit", "status", "--run-dir", "/r"],
        ] {
            assert_eq!(
                Args::parse_from(argv).node.run_dir.unwrap(),
                PathBuf::from("/r")
            );
        }
    }
}
