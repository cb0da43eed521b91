//! Conversions from the numbers of cgroup v1, which the OCI specification speaks, to those of v2.

use super::{Error, Result};

/// The CPU weight (1 to 10000) for CPU shares (2 to 262144); 0 is unset and stays so.
///
/// The quadratic formula that runc 1.3.2 and crun 1.23 took up: it maps the minimum, the default (1024 to 100) and the
/// maximum onto each other, <https://github.com/kubernetes/kubernetes/issues/131216>.
#[must_use]
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^18, so exact")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// The `io.weight` (1 to 10000) for a blkio weight (10 to 1000), ends onto ends, as runc and crun have it.
pub(super) fn blkio_weight_to_io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// What to write to `memory.swap.max` for a memory plus swap limit, given the memory limit; `None` is to leave it.
///
/// # Errors
/// [`Error::InvalidValue`] where the sum is below its part, or the memory limit is not known.
pub fn swap_for_v2(memory_and_swap: Option<i64>, memory: Option<i64>) -> Result<Option<i64>> {
    let set = |value: Option<i64>| value.filter(|v| *v != 0);
    let invalid = |swap: i64, why: &str| Error::InvalidValue {
        setting: format!("memory.swap {swap}"),
        why: why.to_owned(),
    };
    match (set(memory_and_swap), set(memory)) {
        // No limit on memory means none on swap, or the old swap limit would stand alone.
        (None, Some(memory)) if memory < 0 => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(swap), _) if swap < 0 => Ok(Some(-1)),
        (Some(swap), Some(memory)) if memory < 0 => Ok(Some(swap)),
        (Some(swap), None) => Err(invalid(
            swap,
            "it counts memory plus swap and needs a memory limit",
        )),
        (Some(swap), Some(memory)) if swap < memory => Err(invalid(
            swap,
            "it counts memory plus swap and is below the memory limit",
        )),
        (Some(swap), Some(memory)) => Ok(Some(swap - memory)),
    }
}

/// A limit as v2 and `pids.max` write it: negative is `max`.
pub(super) fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// A value that 0 leaves unset, as the OCI specification's producers use it.
pub(super) fn set<T: PartialEq + Default + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_weights_that_runc_and_crun_write() {
        let vectors = [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (102, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (4096, 303),
            (65536, 3023),
            (131_072, 5478),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ];
        for (shares, weight) in vectors {
            assert_eq!(shares_to_weight(shares), weight, "shares {shares}");
        }
    }

    #[test]
    fn the_ends_of_the_weights_for_disks_are_the_ends_of_the_new_ones() {
        let table = [
            (10, 1),
            (500, 4950),
            (1000, 10_000),
            (0, 1),
            (u16::MAX, 10_000),
        ];
        for (weight, converted) in table {
            assert_eq!(blkio_weight_to_io_weight(weight), converted, "{weight}");
        }
    }

    #[test]
    fn more_shares_never_weigh_less() {
        let weights: Vec<u64> = (2..5000).map(shares_to_weight).collect();
        assert!(weights.is_sorted());
        assert!(weights.iter().all(|w| (1..=10_000).contains(w)));
    }

    #[test]
    fn swap_on_v2_is_the_sum_without_the_memory() {
        assert_eq!(swap_for_v2(Some(300), Some(100)), Ok(Some(200)));
        assert_eq!(
            swap_for_v2(Some(100), Some(100)),
            Ok(Some(0)),
            "equal means no swap at all"
        );
        assert_eq!(swap_for_v2(Some(-1), Some(100)), Ok(Some(-1)));
        assert_eq!(swap_for_v2(Some(-1), None), Ok(Some(-1)));
        assert_eq!(
            swap_for_v2(None, Some(-1)),
            Ok(Some(-1)),
            "unlimited memory takes the swap limit with it"
        );
        assert_eq!(swap_for_v2(Some(0), Some(100)), Ok(None));
        assert_eq!(swap_for_v2(None, None), Ok(None));
        assert_eq!(swap_for_v2(Some(300), Some(-1)), Ok(Some(300)));
    }

    #[test]
    fn a_swap_limit_below_or_without_a_memory_limit_is_refused() {
        assert!(
            swap_for_v2(Some(99), Some(100))
                .unwrap_err()
                .to_string()
                .contains("below the memory limit")
        );
        assert!(
            swap_for_v2(Some(99), None)
                .unwrap_err()
                .to_string()
                .contains("needs a memory limit")
        );
    }
}
