//! The validation suite of the OCI runtime specification (runtime-tools) under runc, crun and davit-oci.
//!
//! Whatever passes under one of the peers must pass under ours. What fails under ours must be in `known.txt`, with the
//! reason, and what is there must fail: a test that is mended, or that breaks, is an error until the list says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod known;
mod suite;
mod tap;

use std::collections::BTreeMap;

use integration::bin;

use known::{Kind, Known};
use suite::{Suite, Under};

/// A test point: the program and what it says of the point.
type Point = (String, String);
/// What one runtime makes of every point: true when it passes, each time where it is tried more than once.
type Results = BTreeMap<Point, bool>;

#[test]
fn runtime_tools_validation_passes_where_it_does_under_runc_or_crun() {
    if bin::skipped_for_want_of(&["runc", "crun"]) {
        return;
    }
    let Some(suite) = Suite::find() else {
        return;
    };
    let known = Known::read(include_str!("known.txt"));
    let programs = suite.programs();
    let peers = [Under::runc(), Under::crun()].map(|peer| (suite.run(&peer, &programs), peer));
    let ours = Under::ours();
    let mut results = suite.run(&ours, &programs);
    let mut problems = Vec::new();
    // The suite waits for states of short-lived containers: what fails on a busy machine gets two more chances, alone.
    for _ in 0..3 {
        problems = judge(&results, &peers, &known);
        let again: Vec<String> = problems.iter().map(|problem| problem.0.clone()).collect();
        if again.is_empty() {
            break;
        }
        results.retain(|(program, _), _| !again.contains(program));
        for program in programs.iter().filter(|program| again.contains(program)) {
            results.extend(suite.run(&ours, std::slice::from_ref(program)));
        }
    }
    for (peer, results) in peers.iter().map(|(results, peer)| (peer.name(), results)) {
        report(peer, results);
    }
    report(ours.name(), &results);
    for ((program, name), _) in results.iter().filter(|(_, passes)| !**passes) {
        let reason = known.of(program, name).map_or("?", |entry| &entry.reason);
        println!("fails: {program}: {name}: {reason}");
    }
    for ((program, name), _) in results.iter().filter(|(_, passes)| **passes) {
        if known
            .of(program, name)
            .is_some_and(|entry| entry.kind == Kind::Missing && entry.point != "*")
        {
            println!("no longer missing: {program}: {name}: its line in known.txt can go");
        }
    }
    let texts: Vec<String> = problems
        .into_iter()
        .map(|(program, text)| format!("{program}: {text}"))
        .collect();
    assert!(texts.is_empty(), "{}", texts.join("\n"));
}

fn report(name: &str, results: &Results) {
    let passed = results.values().filter(|passes| **passes).count();
    println!("{name}: {passed} of {} points pass", results.len());
}

/// What is not as it should be, by program.
fn judge(ours: &Results, peers: &[(Results, Under)], known: &Known) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for ((program, name), passes) in ours {
        let problem = match (passes, known.of(program, name).map(|entry| entry.kind)) {
            (false, None) => "fails, and is not in known.txt",
            (true, Some(Kind::Fails)) => "passes now: take it out of known.txt",
            _ => continue,
        };
        problems.push((program.clone(), format!("{name}: {problem}")));
    }
    for (theirs, peer) in peers {
        for (point, _) in theirs.iter().filter(|(_, passes)| **passes) {
            let (program, name) = point;
            let excused = known
                .of(program, name)
                .is_some_and(|entry| entry.kind != Kind::Fails);
            if ours.get(point) != Some(&true) && !excused {
                let text = format!("{name}: passes under {}, and not under ours", peer.name());
                problems.push((program.clone(), text));
            }
        }
    }
    for entry in known.entries() {
        let point = (entry.program.clone(), entry.point.clone());
        if entry.kind == Kind::Fails && !ours.contains_key(&point) {
            problems.push((
                entry.program.clone(),
                format!("{}: no such point any more", entry.point),
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(of: &[(&str, bool)]) -> Results {
        of.iter()
            .map(|(name, passes)| (("p".to_owned(), (*name).to_owned()), *passes))
            .collect()
    }

    #[test]
    fn runtime_tools_points_are_judged_both_ways() {
        let known = Known::read("p | known | fails | why\np | races | may fail | why\n");
        let peer = |of| [(results(of), Under::runc())];
        let ours = |name: &str, passes| {
            results(&[
                ("known", false),
                ("races", false),
                ("fine", true),
                (name, passes),
            ])
        };
        let judged = |ours: &Results, peer: &[_]| {
            let problems = judge(ours, peer, &known).into_iter();
            problems.map(|problem| problem.1).collect::<Vec<_>>()
        };
        assert!(judged(&ours("fine", true), &peer(&[("races", true)])).is_empty());
        let broken = judged(&ours("new", false), &peer(&[]));
        assert_eq!(broken, ["new: fails, and is not in known.txt"]);
        let mended = judged(&ours("known", true), &peer(&[]));
        assert_eq!(mended, ["known: passes now: take it out of known.txt"]);
        let behind = judged(
            &ours("fine", true),
            &peer(&[("known", true), ("gone", true)]),
        );
        let of_peer = "passes under runc, and not under ours";
        assert_eq!(
            behind,
            [format!("gone: {of_peer}"), format!("known: {of_peer}")]
        );
    }
}
