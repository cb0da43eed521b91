//! Thousands of runs and execs, four at a time, with kills at random moments: nothing hangs, nothing is left, and every
//! exit code is the right one.
//!
//! `DAVIT_TEST_SEED` repeats the random decisions of an earlier run; it is printed at the start.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod dice;
mod execs;
mod limited;
mod place;
mod runs;

use integration::bin;

use dice::Dice;
use place::Place;

/// How many containers or processes there are at one moment.
const AT_ONCE: u32 = 4;

/// Runs `step` as often as said, four at a time, and checks that nothing of it is left.
fn repeat(count: u32, step: impl Fn(&Place, &mut Dice, u32) + Sync) {
    if bin::skipped_for_want_of(&["busybox"]) {
        return;
    }
    let seed = dice::seed();
    eprintln!("DAVIT_TEST_SEED={seed}");
    let place = Place::new();
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (place, step) = (&place, &step);
            scope.spawn(move || {
                let mut dice = Dice::new(seed, worker);
                for round in (worker..count).step_by(AT_ONCE as usize) {
                    step(place, &mut dice, round);
                }
            });
        }
    });
    place.nothing_is_left();
}

#[test]
fn a_thousand_runs_with_kills_at_random_moments_leave_nothing() {
    repeat(1_000, runs::one);
}

#[test]
fn a_thousand_execs_with_kills_at_random_moments_leave_nothing() {
    execs::many(1_000);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_runs_with_kills_at_random_moments_leave_nothing() {
    repeat(10_000, runs::one);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_execs_with_kills_at_random_moments_leave_nothing() {
    execs::many(10_000);
}

#[test]
fn delete_force_cleans_up_after_a_create_that_was_killed_at_any_moment() {
    repeat(400, runs::killed_create);
}
