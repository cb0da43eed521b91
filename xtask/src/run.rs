//! Running other programs: each is shown before it runs, gets no stdin, and its failure names it whole.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command as a person would type it, environment first.
pub(crate) fn shown(command: &Command) -> String {
    let envs = command
        .get_envs()
        .filter_map(|(k, v)| v.map(|v| format!("{}={}", k.to_string_lossy(), quote(v))));
    let argv = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote);
    envs.chain(argv).collect::<Vec<_>>().join(" ")
}

/// The word as a shell takes it.
pub(crate) fn quote(word: &std::ffi::OsStr) -> String {
    let word = word.to_string_lossy();
    if !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c))
    {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs the command with this process's stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start `{}`", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs the command and returns its stdout; its stderr joins the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", command.get_program().to_string_lossy()))?;
    if !out.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    String::from_utf8(out.stdout)
        .with_context(|| format!("`{}` printed what is not UTF-8", shown(command)))
}

/// Runs the command, shows its stdout line by line and hands each line to `seen` too.
///
/// Returns whether it ended well: a caller that runs several phases goes on and sums up.
pub(crate) fn tee(command: &mut Command, mut seen: impl FnMut(&str)) -> Result<bool> {
    eprintln!("$ {}", shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}`", command.get_program().to_string_lossy()))?;
    let stdout = child
        .stdout
        .take()
        .context("the child has no stdout pipe")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("read the child's stdout")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        seen(&line);
    }
    Ok(child.wait().context("wait for the child")?.success())
}

/// Whether a program of that name can be found on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Whether this process runs as root, as /proc says it.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| {
        s.lines()
            .any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
    })
}

/// Whether a skip counts as a failure: CI sets `MUST_WORK=1`.
pub(crate) fn must_work() -> bool {
    std::env::var_os("MUST_WORK").is_some_and(|v| v == "1")
}

/// How long each named step took, for the closing summary.
#[derive(Default)]
pub(crate) struct Stopwatch(Vec<(String, Duration)>);

impl Stopwatch {
    /// Runs one step under its heading and remembers how long it took.
    pub(crate) fn step<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let result = step();
        self.0.push((name.to_owned(), start.elapsed()));
        result.with_context(|| format!("step \"{name}\""))
    }

    /// One line per step, and the sum.
    pub(crate) fn summary(&self) -> String {
        let total: Duration = self.0.iter().map(|(_, d)| *d).sum();
        let mut text = String::new();
        for (name, duration) in self
            .0
            .iter()
            .map(|(n, d)| (n.as_str(), *d))
            .chain([("all", total)])
        {
            text.push_str(&format!("  {:>7.1} s  {name}\n", duration.as_secs_f64()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("nft");
        command.env("A", "b c").args(["add", "it's"]);
        assert_eq!(shown(&command), r"A='b c' nft add 'it'\''s'");
    }

    #[test]
    fn tee_hands_over_each_line_and_tells_how_the_child_ended() {
        let mut lines = Vec::new();
        let ok = tee(
            Command::new("sh").args(["-c", "echo one; echo two; exit 3"]),
            |l| lines.push(l.to_owned()),
        )
        .unwrap();
        assert!(!ok);
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_failing_command_is_named_in_its_error() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo why >&2; exit 1'` ended with exit status: 1: why"
        );
    }
}
