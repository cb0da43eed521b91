//! Durations as Go writes them on command lines: `1h30m`, `1.5s`, `100ms`.
use std::time::Duration;

/// Nanoseconds of each unit, the longer name first where one begins with another.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 6e10),
    ("h", 3.6e12),
];

/// The longest that is taken, near that of Go: 290 years.
const MAX_SECONDS: f64 = 9.2e9;

/// Reads a duration; none for anything else, and for a negative one.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, worth) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        nanoseconds += number * worth;
        rest = &after[unit.len()..];
    }
    let seconds = nanoseconds / 1e9;
    let given = !text.trim_start_matches('+').is_empty();
    (given && seconds <= MAX_SECONDS).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let table = [
            ("5s", 5_000_000_000),
            ("0", 0),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100ms", 100_000_000),
            ("7us", 7000),
            ("7µs", 7000),
            ("3ns", 3),
            (".5s", 500_000_000),
            ("+1s", 1_000_000_000),
        ];
        for (text, nanoseconds) in table {
            assert_eq!(
                parse(text),
                Some(Duration::from_nanos(nanoseconds)),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1x",
            "1s2",
            "1..2s",
            "+",
            " 1s",
            "99999999999h",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([0-9.+-]|ns|us|ms|s|m|h|.){0,20}") {
            parse(&text);
        }
    }
}
