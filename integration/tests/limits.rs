//! Limits hold: memory with OOMKilled and 137, CPU, and what an update changes, read from the kernel's own files.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::peer::Server;
use integration::{bin, wait};
use serde_json::{Value, json};

const IMAGE: &str = "davit.test/busybox:1";

/// Runs `test` on containerd and on davit-cri, each with a busybox image.
fn on_each_server(test: impl Fn(&Server)) {
    if bin::skipped_for_want_of(&["crictl", "busybox"]) {
        return;
    }
    if std::fs::read_to_string("/proc/cgroups")
        .is_ok_and(|text| !text.lines().any(|line| line.starts_with("memory")))
    {
        eprintln!("skipped: this kernel has no memory controller");
        return;
    }
    for server in Server::all() {
        eprintln!("--- {} ---", server.name());
        server.import(&TestImage::busybox(), IMAGE);
        test(&server);
    }
}

fn with_resources(mut container: Value, resources: Value) -> Value {
    container["linux"] = json!({"resources": resources});
    container
}

#[test]
fn a_container_over_its_memory_limit_ends_with_137_and_oomkilled() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let config = pod("oom", server.dir());
        let id = crictl.run_pod(&config);
        // The shell execs dd, so that the process that is killed is the container's own.
        let hungry = shell("hungry", IMAGE, "exec dd if=/dev/zero of=/dev/null bs=100M");
        let limits =
            json!({"memory_limit_in_bytes": 15 << 20, "memory_swap_limit_in_bytes": 15 << 20});
        let container = crictl.create_and_start(&id, &with_resources(hungry, limits), &config);
        let status = crictl.wait_for_exit(&container);
        assert_eq!(status["exitCode"], json!(137), "{status}");
        // containerd learns of the kill by an event that races with the exit; ours reads the kernel's counter.
        if server.is_ours() || status["reason"] != "Error" {
            assert_eq!(status["reason"], "OOMKilled", "{status}");
        }
    });
}

#[test]
fn a_container_killed_by_a_person_is_not_oomkilled() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let config = pod("killed", server.dir());
        let id = crictl.run_pod(&config);
        let limits = json!({"memory_limit_in_bytes": 64 << 20});
        let container = crictl.create_and_start(
            &id,
            &with_resources(shell("main", IMAGE, "sleep 1000"), limits),
            &config,
        );
        let _stopped = crictl.ok(&["stop", "--timeout", "0", &container]);
        let status = crictl.wait_for_exit(&container);
        assert_eq!(
            (&status["exitCode"], &status["reason"]),
            (&json!(137), &json!("Error")),
            "{status}"
        );
    });
}

#[test]
fn the_cpu_limit_holds_and_the_shares_are_in_the_kernel() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let config = pod("cpu", server.dir());
        let id = crictl.run_pod(&config);
        let limits = json!({"cpu_quota": 20000, "cpu_period": 100_000, "cpu_shares": 512});
        let busy = with_resources(shell("busy", IMAGE, "while true; do :; done"), limits);
        let container = crictl.create_and_start(&id, &busy, &config);
        let pid = crictl.json(&["inspect", &container])["info"]["pid"]
            .as_i64()
            .expect("a process id");
        let used = || {
            let stat =
                std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process's times");
            let fields: Vec<i64> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            // utime and stime, fields 14 and 15 of the line; parsing drops the state's letter.
            fields[10] + fields[11]
        };
        let (start, before) = (Instant::now(), used());
        wait::until_true("two seconds have passed", Duration::from_secs(10), || {
            start.elapsed() > Duration::from_secs(2)
        });
        let (ticks, seconds) = (used() - before, start.elapsed().as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "a few hundred ticks")]
        let share = ticks as f64 / 100.0 / seconds;
        assert!(
            share < 0.35,
            "a quota of 20% of a CPU was exceeded: {share}"
        );
        assert!(share > 0.02, "the container did run: {share}");

        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        let path = |controller: &str| {
            cgroup.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers
                    .split(',')
                    .any(|one| one == controller)
                    .then(|| {
                        format!(
                            "/sys/fs/cgroup/{controllers}{}",
                            parts.next().unwrap_or_default()
                        )
                    })
            })
        };
        if let Some(dir) = path("cpu") {
            let shares = std::fs::read_to_string(format!("{dir}/cpu.shares")).expect("cpu.shares");
            assert_eq!(shares.trim(), "512");
        }
    });
}

#[test]
fn updated_resources_are_in_the_kernel_and_in_the_status() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let config = pod("update", server.dir());
        let id = crictl.run_pod(&config);
        let limits = json!({"memory_limit_in_bytes": 64 << 20, "cpu_shares": 256});
        let container = crictl.create_and_start(
            &id,
            &with_resources(shell("main", IMAGE, "sleep 1000"), limits),
            &config,
        );
        let _updated = crictl.ok(&[
            "update",
            "--memory",
            &(96 << 20).to_string(),
            "--cpu-share",
            "700",
            &container,
        ]);
        if !server.is_ours() {
            // containerd 1.6 does not report resources.
            return;
        }
        let status = crictl.status(&container);
        assert_eq!(
            status["resources"]["linux"]["memoryLimitInBytes"],
            json!((96 << 20).to_string()),
            "{status}"
        );
        assert_eq!(status["resources"]["linux"]["cpuShares"], json!("700"));
        let pid = crictl.json(&["inspect", &container])["info"]["pid"]
            .as_i64()
            .expect("a process id");
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        if let Some(path) = cgroup
            .lines()
            .find_map(|line| line.split_once(":memory:").map(|(_, path)| path))
        {
            let limit = std::fs::read_to_string(format!(
                "/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"
            ))
            .expect("the limit");
            assert_eq!(limit.trim(), (96 << 20).to_string());
        }
        // A limit below what is in use is refused and changes nothing.
        let refused = crictl.run(&["update", "--memory", "4096", &container]);
        if refused.code != 0 {
            assert_eq!(
                crictl.status(&container)["resources"]["linux"]["memoryLimitInBytes"],
                json!((96 << 20).to_string())
            );
        }
    });
}
