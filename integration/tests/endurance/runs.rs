//! One `run` or `create`, whole or cut short.

use std::time::Duration;

use crate::dice::Dice;
use crate::place::Place;

/// Somewhat longer than a run takes on a quiet machine, so that kills hit every part of it and a little after.
const A_RUN: Duration = Duration::from_millis(25);

/// One run: half of them undisturbed, the others with a kill of the runtime or of the container.
pub(crate) fn one(place: &Place, dice: &mut Dice, _round: u32) {
    match dice.below(8) {
        0..=3 => undisturbed(place, dice),
        4..=5 => killed_runtime(place, dice),
        _ => killed_container(place, dice),
    }
}

fn undisturbed(place: &Place, dice: &mut Dice) {
    let id = place.id();
    let (bundle, code) = match dice.below(4) {
        0 => (&place.seven, 7),
        _ => (&place.truth, 0),
    };
    let ended = place.make("run", bundle, &id).end();
    assert_eq!(ended.code, code, "{}", ended.told);
    place.is_gone(&id);
}

/// SIGKILL for `run`: the container may go on without it, or be half made.
fn killed_runtime(place: &Place, dice: &mut Dice) {
    let id = place.id();
    let bundle = match dice.below(2) {
        0 => &place.sleeper,
        _ => &place.truth,
    };
    let mut run = place.make("run", bundle, &id);
    run.kill_after(dice.within(A_RUN));
    let ended = run.end();
    assert!([0, 137].contains(&ended.code), "{}", ended.told);
    place.delete(&id);
}

/// SIGKILL for the container: `run` must tell of it.
fn killed_container(place: &Place, dice: &mut Dice) {
    let id = place.id();
    let mut run = place.make("run", &place.sleeper, &id);
    std::thread::park_timeout(dice.within(A_RUN));
    // Before there is a container, there is nothing to kill.
    while place.call(&["kill", &id, "KILL"]).code != 0 {
        assert!(!run.has_ended(), "{}", run.end().told);
    }
    let ended = run.end();
    // Killed before `run` has started it, it is an error that says so; afterwards it is an exit code.
    let never_ran = [
        "was killed by signal 9",
        "cannot start a container that has stopped",
    ];
    let is_told = never_ran.iter().any(|text| ended.told.contains(text));
    assert!(
        ended.code == 137 || (ended.code == 1 && is_told),
        "{} {}",
        ended.code,
        ended.told
    );
    place.is_gone(&id);
}

/// SIGKILL for `create`, then `delete --force`.
pub(crate) fn killed_create(place: &Place, dice: &mut Dice, _round: u32) {
    let id = place.id();
    let mut create = place.make("create", &place.sleeper, &id);
    create.kill_after(dice.within(Duration::from_millis(12)));
    let ended = create.end();
    assert!([0, 137].contains(&ended.code), "{}", ended.told);
    place.delete(&id);
}
