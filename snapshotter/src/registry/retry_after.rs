//! `Retry-After`: seconds, or a date (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long to wait, counted from `now`. A date that has passed means no time; what is neither means nothing.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(date(text)?))?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970: the only form that servers may send.
fn date(text: &str) -> Option<u64> {
    let (_weekday, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone) = (words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    let mut parts = time.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS
        .find(month)
        .filter(|at| at % 3 == 0 && month.len() == 3)?;
    let month = u64::try_from(month / 3).ok()? + 1;
    let days = days_since_1970(number(year, 4)?, month, number(day, 2)?)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A number of exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let shifted = (month + 9) % 12;
    let years = if month < 3 {
        year.checked_sub(1)?
    } else {
        year
    };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (shifted * 306 + 5) / 10;
    // The first of January 1970 is day 719468 of that count.
    (1..=31)
        .contains(&day)
        .then_some(days + day - 1)?
        .checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_anything_else_is_not() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(86_400)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            (
                "Tue, 29 Feb 2000 00:00:00 GMT",
                Some(951_782_400 - 784_111_777),
            ),
            (
                "Wed, 31 Dec 2025 23:59:59 GMT",
                Some(1_767_225_599 - 784_111_777),
            ),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 anF 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1960 08:49:37 GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(parse(text, now), wanted, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", year in 0..10_000_u32, day in 0..100_u32) {
            let now = UNIX_EPOCH;
            parse(&text, now);
            parse(&format!("Sun, {day:02} Jan {year:04} 00:00:00 GMT"), now);
        }
    }
}
