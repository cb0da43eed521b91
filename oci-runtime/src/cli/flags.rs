//! Flags as runc takes them: `--name value`, `--name=value`, `-name` as well as `--name`, and no flag after the
//! first operand.

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its long name.
    pub long: &'static str,
    /// Its short name.
    pub short: Option<char>,
    /// The word for its value in the help; none for a switch.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

impl Flag {
    /// A switch.
    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            value: None,
            help,
        }
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            value: Some(value),
            help,
        }
    }

    /// The same with a short name.
    #[must_use]
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
}

/// What was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    values: Vec<(&'static str, String)>,
    /// Everything from the first operand on.
    pub operands: Vec<String>,
    /// The operands but the first as they came, where one of them is not text.
    pub program: Vec<std::ffi::OsString>,
}

impl Parsed {
    /// Sorts the arguments.
    ///
    /// # Errors
    /// An unknown flag, a missing value, a value for a switch that is neither true nor false.
    pub fn new(flags: &[Flag], args: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut rest = args.iter();
        while let Some(argument) = rest.next() {
            let Some(text) = flag_text(argument) else {
                // "--" ends the flags and is no operand itself.
                parsed
                    .operands
                    .extend((argument != "--").then(|| argument.clone()));
                parsed.operands.extend(rest.cloned());
                return Ok(parsed);
            };
            let (name, inline) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text, None),
            };
            let is = |flag: &&Flag| {
                flag.long == name || flag.short.is_some_and(|short| name.chars().eq([short]))
            };
            let flag = flags
                .iter()
                .find(is)
                .ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
            let value = match (flag.value, inline) {
                (Some(_), Some(value)) => value,
                (Some(_), None) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("flag needs an argument: --{}", flag.long))?,
                (None, None) => "true".to_owned(),
                (None, Some(value)) => match value.as_str() {
                    "true" | "1" | "t" | "T" | "TRUE" | "True" => "true".to_owned(),
                    "false" | "0" | "f" | "F" | "FALSE" | "False" => "false".to_owned(),
                    _ => {
                        return Err(format!(
                            "invalid boolean value {value:?} for --{}",
                            flag.long
                        ));
                    }
                },
            };
            parsed.values.push((flag.long, value));
        }
        Ok(parsed)
    }

    /// The last value of a flag.
    pub fn get(&self, long: &str) -> Option<&str> {
        self.values
            .iter()
            .rev()
            .find(|(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a flag, in order.
    pub fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.values
            .iter()
            .filter(move |(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, long: &str) -> bool {
        self.get(long) == Some("true")
    }

    /// The value of a flag as a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| format!("invalid value {text:?} for --{long}: not a number in range"))
        };
        self.get(long).map(parse).transpose()
    }
}

/// The text of a flag without its dashes; none for an operand. A single `-` is an operand (stdin).
fn flag_text(argument: &str) -> Option<&str> {
    let text = argument
        .strip_prefix("--")
        .or_else(|| argument.strip_prefix('-'))?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] = [
        Flag::value("bundle", "DIR", "").short('b'),
        Flag::switch("no-pivot", ""),
        Flag::value("env", "NAME=VALUE", "").short('e'),
    ];

    fn parse(args: &[&str]) -> Result<Parsed, String> {
        let args: Vec<String> = args.iter().map(|one| (*one).to_owned()).collect();
        Parsed::new(&FLAGS, &args)
    }

    #[test]
    fn all_spellings_mean_the_same() {
        for args in [["--bundle", "x"], ["-bundle", "x"], ["-b", "x"]] {
            assert_eq!(parse(&args).unwrap().get("bundle"), Some("x"), "{args:?}");
        }
        for args in [["--bundle=x"], ["-bundle=x"], ["-b=x"]] {
            assert_eq!(parse(&args).unwrap().get("bundle"), Some("x"), "{args:?}");
        }
    }

    #[test]
    fn no_flag_is_taken_after_the_first_operand() {
        let parsed = parse(&["--no-pivot", "id", "--bundle", "x"]).unwrap();
        assert!(parsed.is_on("no-pivot"));
        assert_eq!(parsed.operands, ["id", "--bundle", "x"]);
        assert_eq!(parse(&["--", "--bundle"]).unwrap().operands, ["--bundle"]);
        assert_eq!(parse(&["-"]).unwrap().operands, ["-"]);
    }

    #[test]
    fn repeated_flags_are_kept_and_the_last_counts() {
        let parsed = parse(&["-e", "A=1", "--env", "B=2=3", "-b", "x", "-b", "y"]).unwrap();
        assert_eq!(parsed.all("env").collect::<Vec<_>>(), ["A=1", "B=2=3"]);
        assert_eq!(parsed.get("bundle"), Some("y"));
    }

    #[test]
    fn a_switch_takes_only_true_or_false() {
        assert!(!parse(&["--no-pivot=false"]).unwrap().is_on("no-pivot"));
        assert!(
            parse(&["--no-pivot=maybe"])
                .unwrap_err()
                .contains("invalid boolean")
        );
    }

    #[test]
    fn unknown_flags_and_missing_values_are_named() {
        assert_eq!(
            parse(&["--nope"]).unwrap_err(),
            "flag provided but not defined: -nope"
        );
        assert_eq!(
            parse(&["-b"]).unwrap_err(),
            "flag needs an argument: --bundle"
        );
        assert_eq!(
            parse(&["-be"]).unwrap_err(),
            "flag provided but not defined: -be"
        );
    }
}
