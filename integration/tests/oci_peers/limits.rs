//! Limits hold: on this host's v1 controllers, and the device rules everywhere.

use std::path::Path;

use serde_json::{Value, json};

use super::on_each_host;
use integration::bundle::Bundle;
use integration::command::Outcome;
use integration::host::Cgroups;
use integration::oci::Runtime;

/// Runs a bundle with these resources where the memory, cpu and pids controllers are on v1, under ours and the peer.
fn on_v1(script: &str, resources: &Value, check: impl Fn(&Runtime, &Outcome) + Sync) {
    if !Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "this host has no v1 controllers"
        );
        eprintln!("skipped: this host has no v1 controllers");
        return;
    }
    let _checked = on_each_host(|cgroups, peer| {
        if cgroups == Cgroups::V2 {
            return;
        }
        let bundle = Bundle::changed(&["/bin/sh", "-c", script], |config| {
            for (key, value) in resources.as_object().unwrap() {
                config["linux"]["resources"][key] = value.clone();
            }
        });
        for runtime in [peer, &Runtime::ours()] {
            check(runtime, &runtime.run(&bundle));
        }
    });
}

#[test]
fn a_process_over_the_memory_limit_is_killed_with_137() {
    // tail keeps a line in memory until it ends, and this one never does.
    let limit = json!({"memory": {"limit": 33_554_432}});
    on_v1("exec tail /dev/zero", &limit, |runtime, outcome| {
        assert_eq!(outcome.code, 137, "{}: {outcome}", runtime.name());
    });
}

#[test]
fn the_memory_limit_is_the_one_the_container_reads() {
    let limit = json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432}});
    let script = "cd /sys/fs/cgroup/memory; cat memory.limit_in_bytes memory.soft_limit_in_bytes";
    on_v1(script, &limit, |runtime, outcome| {
        assert_eq!(
            outcome.stdout,
            "67108864\n33554432\n",
            "{}: {outcome}",
            runtime.name()
        );
    });
}

#[test]
fn a_cpu_quota_throttles() {
    // Half a second of two busy loops against a twentieth of a processor; either fact alone could be chance.
    let limit = json!({"cpu": {"quota": 5000, "period": 100_000, "shares": 512}});
    let script = "yes >/dev/null & yes >/dev/null & sleep 0.5; kill %1 %2; cd /sys/fs/cgroup; \
        cat cpu/cpu.shares cpu/cpu.cfs_quota_us; grep nr_throttled cpu/cpu.stat; cat cpuacct/cpuacct.usage";
    on_v1(script, &limit, |runtime, outcome| {
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[..2], ["512", "5000"], "{}: {outcome}", runtime.name());
        let throttled: u64 = lines[2].rsplit(' ').next().unwrap().parse().unwrap();
        let used_ns: u64 = lines[3].parse().unwrap();
        assert!(throttled >= 1, "{}: {outcome}", runtime.name());
        assert!(used_ns < 300_000_000, "{}: {outcome}", runtime.name());
    });
}

#[test]
fn a_pids_limit_stops_the_next_fork() {
    let limit = json!({"pids": {"limit": 5}});
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all of them";
    on_v1(script, &limit, |runtime, outcome| {
        assert!(
            !outcome.stdout.contains("all of them"),
            "{}: {outcome}",
            runtime.name()
        );
        assert!(
            outcome.stderr.contains("can't fork"),
            "{}: {outcome}",
            runtime.name()
        );
    });
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_it() {
    if !integration::bin::skipped_for_want_of(&[]) && Path::new("/sys/fs/cgroup/memory").exists() {
        Cgroups::V2.run(|| {
            let bundle = Bundle::changed(&["/bin/true"], |config| {
                config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
            });
            let text = Runtime::ours().run(&bundle).err();
            assert!(
                text.contains("memory controller is not available"),
                "{text}"
            );
        });
    }
}
