//! The same bundle under runc, crun and davit-oci: what the container sees, what the caller gets, and that limits hold.
//!
//! runc is the peer on this host as it is and on cgroup v2, crun on cgroup v1 (it refuses a hybrid host, and cannot
//! load its device program here without CAP_SYS_RESOURCE). Every case runs on all three kinds of host.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod lifecycle;
mod limits;
mod podman;
mod process;
mod rootfs;

use integration::bin;
use integration::bundle::Bundle;
use integration::command::Outcome;
use integration::host::Cgroups;
use integration::oci::Runtime;
use serde_json::Value;

/// What one bundle gave under our runtime, after it gave the same under the genuine one, on each kind of host.
///
/// # Panics
/// Where exit code, standard output or standard error differ.
#[track_caller]
fn same(script: &str, change: impl Fn(&mut Value) + Sync) -> Vec<(Cgroups, Outcome)> {
    on_each_host(|cgroups, peer| {
        let bundle = || Bundle::changed(&["/bin/sh", "-c", script], &change);
        let theirs = peer.run(&bundle());
        let ours = Runtime::ours().run(&bundle());
        let seen = |outcome: &Outcome| {
            format!(
                "exit code {}\n{}{}",
                outcome.code, outcome.stdout, outcome.stderr
            )
        };
        let (theirs, host) = (seen(&theirs), cgroups.name());
        assert_eq!(
            seen(&ours),
            theirs,
            "davit-oci (left) and {} (right) on {host}",
            peer.name()
        );
        (cgroups, ours)
    })
}

/// [`same`] with the output that it must be.
#[track_caller]
fn same_output(script: &str, expected: &str, change: impl Fn(&mut Value) + Sync) {
    for (cgroups, ours) in same(script, change) {
        assert_eq!(
            (ours.stdout.as_str(), ours.code),
            (expected, 0),
            "on {}: {ours}",
            cgroups.name()
        );
    }
}

/// Runs `test` with the peer that works on each kind of host; nothing, with the reason printed, without the peers.
#[track_caller]
fn on_each_host<T: Send>(test: impl Fn(Cgroups, &Runtime) -> T + Sync) -> Vec<T> {
    if bin::skipped_for_want_of(&["runc", "crun"]) {
        return Vec::new();
    }
    let hosts = [
        (Cgroups::AsIs, "runc"),
        (Cgroups::V1, "crun"),
        (Cgroups::V2, "runc"),
    ];
    let test = &test;
    let on = |(cgroups, name): (Cgroups, &str)| {
        let peer = Runtime::genuine(name).expect("the peer is installed");
        cgroups.run(|| test(cgroups, &peer))
    };
    hosts.into_iter().map(on).collect()
}
