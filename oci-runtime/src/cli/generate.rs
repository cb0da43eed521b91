//! Completion scripts and the manual page, from the same tables as the parser and the help.
use std::fmt::Write;

use super::commands::{COMMANDS, Command, GLOBAL};
use super::flags::Flag;
use super::print;
use crate::error::{Error, Result};

/// `completion SHELL`
///
/// # Errors
/// A shell that is not known.
pub(super) fn completion(shell: &str) -> Result<u8> {
    let script = match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        other => {
            return Err(Error::new(format!(
                "no completion for {other:?}, only for bash, zsh and fish"
            )));
        }
    };
    print(&script)?;
    Ok(0)
}

/// `man`
///
/// # Errors
/// stdout cannot be written.
pub(super) fn man() -> Result<u8> {
    print(&manual())?;
    Ok(0)
}

/// Every spelling of the flags that `wanted` lets through, for a list of words.
fn words(flags: &[Flag], wanted: impl Fn(&Flag) -> bool) -> String {
    let mut words = Vec::new();
    for flag in flags.iter().filter(|flag| wanted(flag)) {
        words.push(format!("--{}", flag.long));
        words.extend(flag.short.map(|short| format!("-{short}")));
    }
    words.join(" ")
}

/// Whether the first operand is a container that is there already.
fn takes_container(command: &Command) -> bool {
    command.operands.starts_with("ID") && !matches!(command.name, "create" | "run" | "restore")
}

fn names(wanted: impl Fn(&Command) -> bool) -> Vec<&'static str> {
    let named = COMMANDS.iter().filter(|command| wanted(command));
    named.map(|command| command.name).collect()
}

const BASH: &str = r#"# bash completion for davit-oci
_davit_oci() {
    local current="${COMP_WORDS[COMP_CWORD]}" command= root=() operands=0 valued=" @GLOBAL_VALUED " flags="@GLOBAL" i word
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            -*)
                # The shell may have split "--flag=value" at the "=".
                if [[ "$valued" == *" $word "* ]]; then
                    [[ "${COMP_WORDS[i + 1]}" == "=" ]] && ((i++))
                    ((i++))
                    [[ "$word" == --root ]] && root=(--root "${COMP_WORDS[i]}")
                    ((i >= COMP_CWORD)) && { COMPREPLY=($(compgen -f -- "${current#=}")); return; }
                fi ;;
            *)
                if [[ -n "$command" ]]; then
                    ((operands++))
                else
                    command="$word"
                    case "$command" in
@COMMANDS                        *) flags= valued=" " ;;
                    esac
                fi ;;
        esac
    done
    if [[ "$current" == -* ]] && ((operands == 0)); then
        COMPREPLY=($(compgen -W "$flags" -- "$current"))
    elif [[ -z "$command" ]]; then
        COMPREPLY=($(compgen -W "@NAMES" -- "$current"))
    elif ((operands == 0)) && [[ " @WITH_CONTAINER " == *" $command "* ]]; then
        COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" list -q 2>/dev/null)" -- "$current"))
    fi
}
complete -o default -F _davit_oci davit-oci
"#;

fn bash() -> String {
    let has_value = |flag: &Flag| flag.value.is_some();
    let mut commands = String::new();
    for command in COMMANDS {
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            commands,
            "                        {}) flags=\"{}\" valued=\" {} \" ;;",
            command.name,
            words(command.flags, |_| true),
            words(command.flags, has_value)
        );
    }
    BASH.replace("@GLOBAL_VALUED", &words(GLOBAL, has_value))
        .replace("@GLOBAL", &words(GLOBAL, |_| true))
        .replace("@COMMANDS", &commands)
        .replace("@NAMES", &names(|_| true).join(" "))
        .replace("@WITH_CONTAINER", &names(takes_container).join(" "))
}

const ZSH: &str = r#"#compdef davit-oci
_davit_oci_containers() {
    local -a ids
    ids=(${(f)"$(davit-oci list -q 2>/dev/null)"})
    compadd -a ids
}
_davit_oci() {
    local -a commands
    commands=(
@NAMES    )
    local curcontext="$curcontext" state line
    _arguments -C \
@GLOBAL        '1:command:->command' '*::operand:->operands'
    case $state in
        command) _describe command commands ;;
        operands)
            case $line[1] in
@COMMANDS            esac ;;
    esac
}
_davit_oci "$@"
"#;

/// The text of a help in single quotes of a shell, without what `_arguments` takes for its own.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
        .replace('[', "(")
        .replace(']', ")")
        .replace(':', "\\:")
}

fn zsh_flags(flags: &[Flag], indent: &str) -> String {
    let mut text = String::new();
    for flag in flags {
        let names = match flag.short {
            Some(short) => format!("{{-{short},--{}}}", flag.long),
            None => format!("--{}", flag.long),
        };
        let value = match flag.value {
            Some(value) => format!(":{}:_files", quoted(value)),
            None => String::new(),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{indent}'*'{names}'[{}]{value}' \\",
            quoted(flag.help)
        );
    }
    text
}

fn zsh() -> String {
    let (mut names, mut commands) = (String::new(), String::new());
    for command in COMMANDS {
        let operand = if takes_container(command) {
            "'1:container:_davit_oci_containers' "
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            names,
            "        '{}:{}'",
            command.name,
            quoted(command.about)
        );
        let _infallible = write!(
            commands,
            "                {})\n                    _arguments \\\n{}                        {operand}'*::argument:_files' ;;\n",
            command.name,
            zsh_flags(command.flags, "                        ")
        );
    }
    ZSH.replace("@NAMES", &names)
        .replace("@GLOBAL", &zsh_flags(GLOBAL, "        "))
        .replace("@COMMANDS", &commands)
}

fn fish() -> String {
    let mut text = "# fish completion for davit-oci\n".to_owned();
    let all = names(|_| true).join(" ");
    let mut line = |condition: &str, what: &str, help: &str| {
        let help = help.replace('\\', "\\\\").replace('\'', "\\'");
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "complete -c davit-oci -n '{condition}' {what} -d '{help}'"
        );
    };
    let flag = |flag: &Flag| {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!(" -s {short}"));
        let value = if flag.value.is_some() { " -r" } else { "" };
        format!("-l {}{short}{value}", flag.long)
    };
    let none = format!("not __fish_seen_subcommand_from {all}");
    for one in GLOBAL {
        line(&none, &flag(one), one.help);
    }
    for command in COMMANDS {
        line(&none, &format!("-f -a {}", command.name), command.about);
        let seen = format!("__fish_seen_subcommand_from {}", command.name);
        for one in command.flags {
            line(&seen, &flag(one), one.help);
        }
        if takes_container(command) {
            line(
                &seen,
                "-f -a '(davit-oci list -q 2>/dev/null)'",
                "container",
            );
        }
    }
    text
}

/// A text for roff: nothing in it is a request or an escape.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let safe = |line: &str| {
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line.to_owned()
        }
    };
    text.lines().map(safe).collect::<Vec<_>>().join("\n")
}

fn roff_flags(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!("\\fB\\-{short}\\fR, "));
        let value = flag
            .value
            .map_or_else(String::new, |value| format!(" \\fI{}\\fR", roff(value)));
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            ".TP\n{short}\\fB\\-\\-{}\\fR{value}\n{}\n",
            roff(flag.long),
            roff(flag.help)
        );
    }
    text
}

fn manual() -> String {
    let mut text = format!(
        ".TH DAVIT\\-OCI 8 \"\" \"davit\\-oci {}\"\n.SH NAME\ndavit\\-oci \\- runs containers from OCI bundles\n\
         .SH SYNOPSIS\n\\fBdavit\\-oci\\fR [\\fIFLAGS\\fR] \\fICOMMAND\\fR [\\fICOMMAND FLAGS\\fR] [\\fIOPERANDS\\fR]\n\
         .SH DESCRIPTION\nAn OCI runtime with the command line of runc. A bundle is a directory with a config.json and a \
         root filesystem.\nFlags may begin with one dash or two; none is taken after the first operand.\n.SH FLAGS\n",
        env!("CARGO_PKG_VERSION")
    );
    text.push_str(&roff_flags(GLOBAL));
    text.push_str(".SH COMMANDS\n");
    for command in COMMANDS {
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            ".SS \"{} {}\"\n{}\n{}",
            command.name,
            roff(command.operands),
            roff(command.about),
            if command.details.is_empty() {
                String::new()
            } else {
                format!(".PP\n{}\n", roff(command.details))
            }
        );
        text.push_str(&roff_flags(command.flags));
    }
    text.push_str(
        ".SH EXIT STATUS\n0 on success, 1 on an error. \\fBrun\\fR and \\fBexec\\fR end as the program did: with its code, or \
         with 128 and the number of the signal that ended it; \\fBexec\\fR with 255 where the program could not be started.\n\
         .SH FILES\n.TP\n/run/davit\\-oci\nThe state of the containers, a directory for each.\n\
         .SH SEE ALSO\n.BR runc (8),\n.BR crun (1)\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_is_in_every_script_and_in_the_manual() {
        for (name, text) in [
            ("bash", bash()),
            ("zsh", zsh()),
            ("fish", fish()),
            ("man", manual().replace("\\-", "-")),
        ] {
            let forgotten = text
                .split('@')
                .skip(1)
                .find(|rest| rest.starts_with(|letter: char| letter.is_ascii_uppercase()));
            assert_eq!(forgotten, None, "{name}");
            for command in COMMANDS {
                assert!(text.contains(command.name), "{name}: {}", command.name);
                for flag in command.flags.iter().chain(GLOBAL) {
                    assert!(text.contains(flag.long), "{name}: --{}", flag.long);
                }
            }
        }
    }

    #[test]
    fn no_line_of_the_manual_is_a_request_by_mistake() {
        assert_eq!(roff(".so x\n'y\\z"), "\\&.so x\n\\&'y\\ez");
    }
}
