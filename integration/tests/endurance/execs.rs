//! Execs into a few containers that live on, whole or cut short.

use std::sync::Mutex;
use std::time::Duration;

use crate::dice::Dice;
use crate::place::Place;
use crate::{AT_ONCE, repeat};

/// Somewhat longer than an exec takes on a quiet machine.
const AN_EXEC: Duration = Duration::from_millis(15);

/// That many execs, four at a time, each worker in a container of its own.
pub(crate) fn many(count: u32) {
    let containers: Vec<Mutex<Option<String>>> = (0..AT_ONCE).map(|_| Mutex::new(None)).collect();
    repeat(count, |place, dice, round| {
        let mut container = containers[(round % AT_ONCE) as usize].lock().unwrap();
        let id = container.take().unwrap_or_else(|| sleeper(place));
        let lives = one(place, dice, &id);
        let is_last = round + AT_ONCE >= count;
        if lives && !is_last {
            *container = Some(id);
        } else {
            place.delete(&id);
        }
    });
}

fn sleeper(place: &Place) -> String {
    let id = place.id();
    let dir = place.sleeper.path().to_string_lossy().into_owned();
    let made = place.call(&["run", "--detach", "--bundle", &dir, &id]);
    assert_eq!(made.code, 0, "{}", made.told);
    id
}

/// One exec; returns whether the container is still there.
fn one(place: &Place, dice: &mut Dice, id: &str) -> bool {
    match dice.below(100) {
        0..=59 => undisturbed(place, dice, id),
        60..=79 => killed_runtime(place, dice, id),
        80..=97 => killed_process(place, dice, id),
        _ => return killed_container(place, dice, id),
    }
    true
}

fn undisturbed(place: &Place, dice: &mut Dice, id: &str) {
    let (args, code): (&[&str], i32) = match dice.below(4) {
        0 => (&["/bin/sh", "-c", "exit 9"], 9),
        _ => (&["/bin/true"], 0),
    };
    let ended = place.call(&[&["exec", id], args].concat());
    assert_eq!(ended.code, code, "{}", ended.told);
}

/// SIGKILL for `exec`: its process may go on, until the container is deleted.
fn killed_runtime(place: &Place, dice: &mut Dice, id: &str) {
    let mut exec = place.start(&["exec", id, "/bin/true"]);
    exec.kill_after(dice.within(AN_EXEC));
    let ended = exec.end();
    assert!([0, 137].contains(&ended.code), "{}", ended.told);
}

/// SIGKILL for the process: `exec` must tell of it.
fn killed_process(place: &Place, dice: &mut Dice, id: &str) {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let file = pid_file.to_string_lossy().into_owned();
    let mut exec = place.start(&["exec", "--pid-file", &file, id, "/bin/sleep", "100000"]);
    let pid = loop {
        if let Ok(pid) = std::fs::read_to_string(&pid_file) {
            break pid;
        }
        assert!(!exec.has_ended(), "{}", exec.end().told);
        std::thread::park_timeout(Duration::from_micros(200));
    };
    std::thread::park_timeout(dice.within(AN_EXEC));
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let ended = exec.end();
    assert_eq!(ended.code, 137, "{}", ended.told);
}

/// SIGKILL for the container while an exec begins: it may come too late, or be killed with the container.
fn killed_container(place: &Place, dice: &mut Dice, id: &str) -> bool {
    let exec = place.start(&["exec", id, "/bin/true"]);
    std::thread::park_timeout(dice.within(AN_EXEC));
    let killed = place.call(&["kill", id, "KILL"]);
    assert_eq!(killed.code, 0, "{}", killed.told);
    let ended = exec.end();
    // 255: there was nothing left to join, which is an error of `exec` itself.
    assert!(
        [0, 137, 255].contains(&ended.code),
        "{} {}",
        ended.code,
        ended.told
    );
    false
}
