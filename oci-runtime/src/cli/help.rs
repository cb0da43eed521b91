//! The text of `--help`.
use std::fmt::Write;

use super::commands::{COMMANDS, Command, GLOBAL};
use super::flags::Flag;

/// The help of the program.
pub fn program() -> String {
    let mut text = "davit-oci - runs containers from OCI bundles\n\n\
        Usage: davit-oci [FLAGS] COMMAND [COMMAND FLAGS] [OPERANDS]\n\n\
        The command line is that of runc. A bundle is a directory with a config.json and a root filesystem:\n\n    \
        mkdir -p bundle/rootfs && cd bundle   # fill rootfs, for example from an image\n    \
        davit-oci spec                        # write a config.json to start from\n    \
        davit-oci run demo\n\nCommands:\n"
        .to_owned();
    for command in COMMANDS {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "  {:<12}{}", command.name, command.about);
    }
    text.push_str("\n\"davit-oci COMMAND --help\" shows the flags of a command.\n\nFlags:\n");
    text.push_str(&flags(GLOBAL));
    text.push_str(
        "\nExit code: 0 on success, 1 on an error; \"run\" and \"exec\" end as the program did (128 and the number of\n\
         the signal that ended it), \"exec\" with 255 where the program could not be started.\n",
    );
    text
}

/// The help of one command.
pub fn command(command: &Command) -> String {
    let space = if command.operands.is_empty() { "" } else { " " };
    let mut text = format!(
        "davit-oci {} - {}\n\nUsage: davit-oci {} [FLAGS]{space}{}\n",
        command.name, command.about, command.name, command.operands
    );
    if !command.details.is_empty() {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\n{}\n", command.details);
    }
    text.push_str("\nFlags:\n");
    text.push_str(&flags(command.flags));
    text
}

fn flags(flags: &[Flag]) -> String {
    let left = |flag: &Flag| {
        let short = flag
            .short
            .map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let value = flag
            .value
            .map_or_else(String::new, |value| format!(" {value}"));
        format!("  {short}--{}{value}", flag.long)
    };
    let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for flag in flags {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{:<width$}{}", left(flag), flag.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_has_a_line_of_its_own() {
        let text = program();
        for one in COMMANDS {
            assert!(text.contains(&format!("  {}", one.name)), "{}", one.name);
            let own = command(one);
            for flag in one.flags {
                assert!(
                    own.contains(&format!("--{}", flag.long)),
                    "{} --{}",
                    one.name,
                    flag.long
                );
                assert!(!flag.help.is_empty());
            }
        }
    }
}
