//! docker, podman, buildah and conmon with davit-oci as their OCI runtime: each does what it does with runc.
//!
//! A test is a list of steps as a person would take them. All of them are taken with Debian's runc first and then with
//! ours, and what they print and return must be the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod buildah;
mod conmon;
mod docker;
mod place;
mod podman;

use std::path::PathBuf;

use integration::bin;
use integration::command::Outcome;

/// What the steps gave: name, exit code and standard output of each.
type Transcript = Vec<(String, i32, String)>;

/// An OCI runtime to be used by others.
struct Runtime {
    name: &'static str,
    path: PathBuf,
}

/// Takes the steps with both runtimes and compares.
#[track_caller]
fn same(tools: &[&str], steps: impl Fn(&Runtime) -> Transcript) {
    if bin::skipped_for_want_of(&[&["runc"], tools].concat()) {
        return;
    }
    let runc = Runtime {
        name: "runc",
        path: bin::genuine("runc").unwrap(),
    };
    let ours = Runtime {
        name: "davit-oci",
        path: bin::ours("davit-oci"),
    };
    let theirs = steps(&runc);
    let ours = steps(&ours);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "with davit-oci (left) and runc (right)");
    }
    assert_eq!(ours.len(), theirs.len());
}

/// One line of a transcript; standard error is only for the reader of a failure.
fn line(step: &str, outcome: &Outcome) -> (String, i32, String) {
    if outcome.code != 0 {
        eprintln!("{step}: {outcome}");
    }
    // docker prints here what the runtime said, which is in the runtime's own words.
    let words = "OCI runtime exec failed:";
    let stdout = outcome.stdout.split(words).next().unwrap_or_default();
    (step.to_owned(), outcome.code, stdout.to_owned())
}

/// Checks codes and outputs that do not depend on the runtime: a test that both pass because nothing works is none.
#[track_caller]
fn expect(transcript: &Transcript, expected: &[(&str, i32, &str)]) {
    for (step, code, output) in expected {
        let found = transcript.iter().find(|(name, ..)| name == step).unwrap();
        assert_eq!((found.1, found.2.as_str()), (*code, *output), "{step}");
    }
}
