//! The cgroup of a container beside its limits: pausing, listing, killing, and having none.
use serde_json::json;

use crate::harness::{Container, Runtime, cgroups_named, eventually};

/// As on hosts whose administrator has mounted them by hand.
#[test]
fn a_hierarchy_under_another_name_beside_the_usual_ones_is_found() {
    for runtime in Runtime::ours() {
        if !std::path::Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() {
            eprintln!("skipped: no v1 hierarchy of the controller pids at its usual place");
            return;
        }
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["pids"] = serde_json::json!({"limit": 17});
        });
        container.write_config();
        let script = "umount /sys/fs/cgroup/pids && mkdir /tmp/$id && mount -t tmpfs none /tmp/$id && mkdir /tmp/$id/all && \
            mount --rbind /sys/fs/cgroup /tmp/$id/all && mount -t tmpfs none /sys/fs/cgroup && cd /tmp/$id/all && \
            for name in *; do mkdir -p /sys/fs/cgroup/$name; mountpoint -q $name && mount --bind $name /sys/fs/cgroup/$name; done; \
            rmdir /sys/fs/cgroup/pids; mkdir /sys/fs/cgroup/processes && mount -t cgroup -o pids none /sys/fs/cgroup/processes && umount -l /tmp/$id && \
            cd $bundle && $oci create $id </dev/null >/dev/null 2>err && cat /sys/fs/cgroup/processes/$id/pids.max; cat err; $oci delete --force $id; \
            rmdir /tmp/$id";
        let output = std::process::Command::new("timeout")
            .args(["-k", "1", "30", "unshare", "-m", "sh", "-c", script])
            .env("id", &container.id)
            .env("bundle", container.bundle())
            .env(
                "oci",
                format!(
                    "{} --root {}",
                    runtime.program(),
                    container.state_root().display()
                ),
            )
            .output()
            .unwrap();
        assert_eq!(crate::harness::text(&output.stdout), "17\n", "{output:?}");
    }
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "i=0; while true; do i=$((i+1)); echo $i > /tmp/i; done",
        );
        container.start();
        let count = || std::fs::read_to_string(container.inside("tmp/i")).unwrap_or_default();
        eventually("it counts", || !count().is_empty());
        container.must(&["pause", &container.id]);
        assert_eq!(container.status(), "paused", "{runtime:?}");
        let stopped = count();
        // Whatever else this test does, it takes some time in which a running program would go on.
        assert_eq!(container.must(&["list", "-q"]).trim(), container.id);
        assert_eq!(count(), stopped, "{runtime:?}");
        let (code, _, stderr) = container.call(&["pause", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("not running")
                || stderr.contains("already paused")
                || runtime == Runtime::Runc,
            "{stderr}"
        );
        let (code, _, stderr) = container.call(&["exec", &container.id, "true"]);
        assert_eq!(code, Some(255), "{runtime:?}");
        assert!(stderr.contains("paused container"), "{runtime:?}: {stderr}");
        container.must(&["resume", &container.id]);
        assert_eq!(container.status(), "running", "{runtime:?}");
        eventually("it goes on", || count() != stopped);
        let (code, _, stderr) = container.call(&["resume", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("container not paused"),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn a_created_container_can_be_paused_and_a_stopped_one_not() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        container.write_config();
        container.must(&["create", &container.id]);
        container.must(&["pause", &container.id]);
        assert_eq!(container.status(), "paused", "{runtime:?}");
        container.must(&["resume", &container.id]);
        container.must(&["start", &container.id]);
        eventually("it ends", || container.status() == "stopped");
        let (code, _, stderr) = container.call(&["pause", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("container not running"),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        container.must(&["pause", &container.id]);
        container.must(&["kill", &container.id, "KILL"]);
        eventually("it is dead", || container.status() == "stopped");
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();

        let container = Container::new(runtime, "sleep 1000");
        container.start();
        container.must(&["pause", &container.id]);
        container.must(&["delete", "--force", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn kill_all_reaches_frozen_processes_that_share_the_hosts_pid_namespace() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000 & sleep 1000; true").with(|config| {
            let kinds = config["linux"]["namespaces"].as_array_mut().unwrap();
            kinds.retain(|one| one["type"] != "pid");
        });
        container.start();
        let ids = || container.must(&["ps", "-f", "json", &container.id]);
        eventually("both run", || ids().matches(',').count() == 2);
        container.must(&["pause", &container.id]);
        container.must(&["kill", "--all", &container.id, "9"]);
        eventually("all are dead", || ids() == "null\n");
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn ps_lists_the_processes_of_the_container_alone() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1234 & sleep 4321; true");
        container.start();
        let pid = container.pid();
        let ids = || container.must(&["ps", "--format", "json", &container.id]);
        eventually("all run", || ids().matches(',').count() == 2);
        let listed: Vec<i32> = serde_json::from_str(&ids()).unwrap();
        assert!(listed.contains(&pid), "{runtime:?}: {listed:?}");
        assert!(ids().ends_with("]\n"), "{runtime:?}");

        let table = container.must(&["ps", &container.id]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{runtime:?}: {table}");
        assert!(
            lines[0].starts_with("UID") && lines[0].contains(" PID "),
            "{table}"
        );
        assert!(
            table.contains("sleep 1234") && table.contains("sleep 4321"),
            "{table}"
        );

        let short = container.must(&["ps", &container.id, "-o", "pid,args"]);
        assert!(
            short.trim_start().starts_with("PID"),
            "{runtime:?}: {short}"
        );
        assert_eq!(
            short.lines().count(),
            if short.contains("sleep 1234") { 4 } else { 1 },
            "{short}"
        );

        let (code, _, stderr) = container.call(&["ps", &container.id, "-o", "args"]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("couldn't find PID field in ps output"),
            "{runtime:?}: {stderr}"
        );
        let (code, _, stderr) = container.call(&["ps", "-f", "yaml", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("invalid format option"),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn without_a_cgroup_manager_a_container_lives_and_dies_all_the_same() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000 & sleep 1000; true").with(|config| {
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
            );
        });
        container.write_config();
        let disabled = |args: &[&str]| {
            let mut all = vec!["--cgroup-manager", "disabled"];
            all.extend(args);
            container.call(&all)
        };
        assert_eq!(disabled(&["create", &container.id]).0, Some(0));
        assert_eq!(disabled(&["start", &container.id]).0, Some(0));
        assert_eq!(
            cgroups_named(&container.id),
            Vec::<std::path::PathBuf>::new()
        );
        let of = |pid: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            // A hierarchy that another test mounts may come in between.
            let lines = text.lines().filter(|line| !line.contains("net_cls"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            of(&container.pid().to_string()),
            of("self"),
            "it stays where its maker is"
        );
        // The flag is for create: every other command knows from the state.
        let ids = || container.must(&["ps", "-f", "json", &container.id]);
        eventually("all run", || ids().matches(',').count() == 2);
        container.must(&["exec", &container.id, "true"]);
        for command in [
            vec!["pause", &container.id],
            vec!["events", "--stats", &container.id],
            vec!["update", "--memory", "64m", &container.id],
        ] {
            let (code, _, stderr) = container.call(&command);
            assert_eq!(code, Some(1), "{command:?}");
            assert!(stderr.contains("has no cgroup"), "{command:?}: {stderr}");
        }
        container.must(&["kill", "--all", &container.id, "KILL"]);
        eventually("it is dead", || container.status() == "stopped");
        assert_eq!(ids(), "null\n");
        container.must(&["delete", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn limits_without_a_cgroup_manager_are_refused() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["linux"]["resources"]["pids"] = json!({"limit": 10});
        });
        container.write_config();
        let (code, _, stderr) =
            container.call(&["--cgroup-manager=disabled", "run", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("linux.resources: there is no cgroup to limit"),
            "{stderr}"
        );
        container.assert_nothing_left();
        let (code, _, stderr) = container.call(&["--cgroup-manager=none", "run", &container.id]);
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("neither cgroupfs, systemd nor disabled"),
            "{stderr}"
        );
    }
}

/// runc before 1.2 only warned.
#[test]
fn a_cgroup_that_others_use_is_not_taken_over() {
    for runtime in Runtime::ours() {
        let first = Container::new(runtime, "sleep 1000");
        let path = format!("/{}-shared", first.id);
        let at_path = |container: Container| {
            container.with(|config| config["linux"]["cgroupsPath"] = path.clone().into())
        };
        let first = at_path(first);
        first.start();
        let second = at_path(Container::new(runtime, "true"));
        second.write_config();
        let (code, _, stderr) = second.call(&["create", &second.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        assert!(
            stderr.contains("container's cgroup is not empty: 1 process(es) found"),
            "{runtime:?}: {stderr}"
        );
        first.must(&["pause", &first.id]);
        let (code, _, stderr) = second.call(&["create", &second.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        assert!(stderr.contains("frozen"), "{runtime:?}: {stderr}");
        assert_eq!(first.status(), "paused", "{runtime:?}");
        first.must(&["delete", "-f", &first.id]);
        second.assert_nothing_left();
    }
}
