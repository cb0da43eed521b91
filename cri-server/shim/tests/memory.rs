//! What a shim costs. Only the static release build counts: `DAVIT_BIN_DIR` names the directory that holds it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::fs;
use std::path::Path;

use support::{Pod, exit_of, runtimes};

/// The budget of one pod's shim, in KiB.
const PSS_MAX: u64 = 300;

/// Whether a binary needs no dynamic loader.
fn is_static(path: &Path) -> bool {
    let output = std::process::Command::new("readelf")
        .arg("-l")
        .arg(path)
        .output();
    output.is_ok_and(|output| {
        output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("INTERP")
    })
}

fn pss(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    println!(
        "{}",
        rollup
            .lines()
            .filter(|line| line.starts_with("Pss")
                || line.starts_with("Rss")
                || line.starts_with("Private"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn thirty_pods_with_a_container_that_logs_stay_within_their_budget() {
    let binary = support::shim_binary();
    if !is_static(&binary) {
        println!("skipped: {} is not a static build", binary.display());
        return;
    }
    let Some(tool) = runtimes().into_iter().find(|tool| tool.name != "crun") else {
        return;
    };
    let pods: Vec<Pod> = (0..30)
        .map(|_| Pod::start(&tool, &["--new-net", "--new-ipc", "--new-uts"]))
        .collect();
    for pod in &pods {
        let mut events = pod.events();
        pod.run("c", "exec sleep 1000");
        pod.run("d", "seq 1 20000");
        exit_of(&mut events, "d");
        pod.client().delete("d", false).unwrap();
    }
    let shares: Vec<u64> = pods.iter().map(|pod| pss(pod.pid())).collect();
    println!("PSS in KiB, with {}: {shares:?}", tool.name);
    assert!(shares.iter().all(|share| *share <= PSS_MAX), "{shares:?}");
}
