//! What a filter costs, for docs/seccomp.md:
//! `cargo test --release -p oci-runtime --test seccomp -- --ignored --nocapture measure`
use std::time::{Duration, Instant};

use oci_runtime::plan::Problems;
use sys::seccomp::{FilterFlags, load_filter};

use crate::oracle::{Runc, ours};
use crate::profiles::PROFILES;

/// The median of some runs.
fn median(mut once: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..51)
        .map(|_| {
            let start = Instant::now();
            once();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[25]
}

/// The median of loading a program, each time in a thread of its own, since filters only ever add up.
fn loading(program: &[sys::seccomp::Instruction]) -> Duration {
    let once = || {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let start = Instant::now();
                    load_filter(program, FilterFlags::SPEC_ALLOW).unwrap();
                    start.elapsed()
                })
                .join()
                .unwrap()
        })
    };
    let mut times: Vec<Duration> = (0..51).map(|_| once()).collect();
    times.sort_unstable();
    times[25]
}

#[test]
#[ignore = "a measurement, not a check"]
fn measure() {
    for (name, text) in PROFILES {
        let value = serde_json::from_str(text).unwrap();
        let section = serde_json::from_str(text).unwrap();
        let compile = median(|| {
            let mut problems = Problems::default();
            oci_runtime::seccomp::plan(Some(&section), &Default::default(), &mut problems).unwrap();
        });
        let parse =
            median(|| drop(serde_json::from_str::<oci_runtime::spec::Seccomp>(text).unwrap()));
        let theirs = median(|| drop(Runc::new(&value).unwrap()));
        let runc = Runc::new(&value).unwrap().program;
        let ours = ours(&value).unwrap().program;
        println!(
            "{name}: ours {} instructions, parse {parse:?}, compile {compile:?}, load {:?}; \
             libseccomp {} instructions, compile {theirs:?}, load {:?}",
            ours.len(),
            loading(&ours),
            runc.len(),
            loading(&runc),
        );
    }
}
