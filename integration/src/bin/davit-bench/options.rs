//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) const HELP: &str = "\
davit-bench: what the parts of Davit cost, as ratios in one run (needs root)

usage: davit-bench [OPTIONS]

  --only PART      measure one part: oci (davit-oci, runc and crun running /bin/true)
                   or cri (a pod through the CRI socket, memory with many pods); default: both
  --runs N         runs of each contender in each setting [30]
  --pause MS       the pause before each run in the paced settings [200]
  --pods N         pods of the cri part [30]
  --floor PATH     the program of bare system calls; default: `floor` beside the other binaries
                   (`cargo xtask bench` builds it from sys/examples/floor.rs)
  --json           print one JSON document instead of tables
  -h, --help       this text

Our binaries come from DAVIT_BIN_DIR, else from beside this program; use release builds.
runc and crun come from PATH; one that is missing or refuses the host is left out and said so.
";

/// A part of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// OCI runtimes.
    Oci,
    /// The CRI server.
    Cri,
}

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) only: Option<Part>,
    pub(crate) runs: usize,
    pub(crate) pause: Duration,
    pub(crate) pods: usize,
    pub(crate) floor: Option<PathBuf>,
    pub(crate) json: bool,
}

// === impl Options ===

impl Options {
    /// Reads the arguments; `None` asks for the help text.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Option<Options>> {
        let mut options = Options {
            only: None,
            runs: 30,
            pause: Duration::from_millis(200),
            pods: 30,
            floor: None,
            json: false,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "-h" | "--help" => return Ok(None),
                "--json" => options.json = true,
                "--runs" => options.runs = number(&arg, &value()?)?,
                "--pods" => options.pods = number(&arg, &value()?)?,
                "--pause" => {
                    options.pause = Duration::from_millis(number(&arg, &value()?)?.try_into()?)
                }
                "--floor" => options.floor = Some(value()?.into()),
                "--only" => options.only = Some(part(&value()?)?),
                _ => bail!("unknown argument {arg:?}"),
            }
        }
        Ok(Some(options))
    }

    /// Whether to measure this part.
    pub(crate) fn does(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

fn number(flag: &str, text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("{flag} {text:?} is not a number above 0"),
    }
}

fn part(text: &str) -> Result<Part> {
    match text {
        "oci" => Ok(Part::Oci),
        "cri" => Ok(Part::Cri),
        _ => bail!("--only {text:?} is neither oci nor cri"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_flag_is_read_and_help_wins() {
        let options = parse("--only cri --runs 3 --pause 5 --pods 7 --floor /f --json")
            .unwrap()
            .unwrap();
        assert_eq!(
            (options.only, options.runs, options.pods),
            (Some(Part::Cri), 3, 7)
        );
        assert_eq!(
            (options.pause, options.json),
            (Duration::from_millis(5), true)
        );
        assert!(!options.does(Part::Oci));
        assert_eq!(parse("--json --help").unwrap(), None);
    }

    #[test]
    fn a_bad_flag_is_named() {
        for (line, names) in [
            ("--run 3", "--run"),
            ("--runs", "--runs"),
            ("--runs x", "\"x\""),
            ("--only both", "\"both\""),
        ] {
            assert!(
                parse(line).unwrap_err().to_string().contains(names),
                "{line}"
            );
        }
    }
}
