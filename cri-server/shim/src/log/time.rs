//! Wall-clock time as CRI logs have it: RFC 3339 with nine digits of a second, in UTC.
use std::time::{SystemTime, UNIX_EPOCH};

const LENGTH: usize = "2006-01-02T15:04:05.999999999Z".len();

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A moment, formatted. All have the same length, so that logs line up.
pub(crate) struct Timestamp([u8; LENGTH]);

// === impl Timestamp ===

impl Timestamp {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::at(since.as_secs(), since.subsec_nanos())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn at(seconds: u64, nanos: u32) -> Self {
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3600);
        digits(&mut text[14..16], of_day / 60 % 60);
        digits(&mut text[17..19], of_day % 60);
        digits(&mut text[20..29], nanos.into());
        Self(text)
    }
}

/// Writes `value` in decimal, right-aligned over the zeros.
fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(value % 10).unwrap_or(0)];
        value /= 10;
    }
}

/// The date of a day counted from 1970-01-01. Years begin in March here, so that the leap day is the last of its year:
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (
        year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, nanos: u32) -> String {
        String::from_utf8(Timestamp::at(seconds, nanos).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn known_moments_are_formatted_as_date_does() {
        // date -u -d @N +%FT%TZ
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000007Z"),
        ] {
            assert_eq!(text(seconds, 7), expected);
        }
        assert!(text(1, 123_456_789).ends_with(".123456789Z"));
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut previous = civil(0);
        for day in 1..146_097 {
            let date = civil(day);
            let (year, month, of_month) = previous;
            let next_day = (year, month, of_month + 1);
            let next_month = (year, month + 1, 1);
            let next_year = (year + 1, 1, 1);
            assert!(
                [next_day, next_month, next_year].contains(&date),
                "{previous:?} -> {date:?}"
            );
            previous = date;
        }
        assert_eq!(previous, (2369, 12, 31));
    }
}
