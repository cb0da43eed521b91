//! The flags of `exec`, one by one.
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Container, Runtime, cgroups_named, eventually, text};

/// Waits for the one descriptor that comes over this socket, and the text beside it.
fn descriptor(listener: &OwnedFd) -> (OwnedFd, String) {
    eventually("a connection", || {
        sys::fd::wait_readable(&[std::os::fd::AsFd::as_fd(listener)], 0).unwrap() == [true]
    });
    let connection = sys::socket::accept(listener).unwrap().unwrap();
    let mut label = [0_u8; 64];
    let received = loop {
        match sys::socket::receive(&connection, &mut label) {
            Err(error) if error.errno == sys::Errno::EAGAIN => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    let mut fds = received.fds.into_iter();
    let fd = fds.next().expect("a descriptor");
    assert!(fds.next().is_none(), "exactly one");
    (fd, text(&label[..received.len]))
}

fn pid_behind(pidfd: &OwnedFd) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.unwrap().trim().parse().unwrap()
}

#[test]
fn a_pidfd_of_each_new_process_is_sent_to_its_socket() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        let [flag, annotation] = ["flag.sock", "annotation.sock"].map(|name| {
            let path = container.bundle().join(name);
            let listener = sys::socket::listen(&path, sys::socket::Kind::Stream).unwrap();
            (path, listener)
        });
        let container = container.with(|config| {
            config["annotations"] = json!({"run.oci.pidfd_receiver": annotation.0});
        });
        container.write_config();
        let socket = flag.0.to_str().unwrap();
        container.must(&["create", "--pidfd-socket", socket, &container.id]);
        for listener in [&flag.1, &annotation.1] {
            let (pidfd, label) = descriptor(listener);
            assert_eq!(pid_behind(&pidfd), container.pid());
            assert_eq!(label, "standard");
        }
        container.must(&["start", &container.id]);
        let file = container.bundle().join("exec.pid");
        let pid_file = file.to_str().unwrap();
        let flags = ["--detach", "--pidfd-socket", socket, "--pid-file", pid_file];
        let args = [&["exec"], &flags[..], &[&container.id, "sleep", "1001"]].concat();
        container.must(&args);
        let (pidfd, label) = descriptor(&flag.1);
        let pid: i32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        assert_eq!((pid_behind(&pidfd), label.as_str()), (pid, "setns"));

        let missing = ["exec", "--pidfd-socket", "/no/such", &container.id, "true"];
        let (code, _, stderr) = container.call(&missing);
        assert_eq!(code, Some(255));
        assert!(stderr.contains("--pidfd-socket: connect"), "{stderr}");
    }
}

#[test]
fn a_container_is_not_made_when_nobody_waits_for_its_pidfd() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.write_config();
        let args = ["create", "--pidfd-socket", "/no/such", &container.id];
        let (code, _, stderr) = container.call(&args);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("--pidfd-socket: connect"), "{stderr}");
        container.assert_nothing_left();
    }
}

/// A directory below the container's cgroup, removed again when the test ends.
struct Below(PathBuf);

impl Below {
    fn new(cgroup: &Path, name: &str) -> Self {
        let dir = cgroup.join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        // Processes of the test end only with its container.
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn a_process_goes_into_the_cgroup_below_that_the_flag_names() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let dirs = cgroups_named(&container.id);
        let of = |name: &str| {
            let part = format!("/{name}/");
            let own = |dir: &&PathBuf| dir.to_str().unwrap().contains(&part);
            dirs.iter().find(own).cloned()
        };
        let (Some(memory), Some(pids)) = (of("memory"), of("pids")) else {
            eprintln!(
                "skipped: this host has no cgroup v1 with memory and pids; see the test for v2"
            );
            return;
        };
        let _below = [(&memory, "one"), (&pids, "one"), (&pids, "two")]
            .map(|(dir, name)| Below::new(dir, name));
        let shown = |flags: &[&str]| {
            let script = ["cat", "/proc/self/cgroup"];
            let args = [&["exec"], flags, &[&container.id], &script].concat();
            let all = container.must(&args);
            let line = |name: &str| {
                let with = format!(":{name}:");
                let line = all.lines().find(|line| line.contains(&with)).unwrap();
                line.rsplit('/').next().unwrap().to_owned()
            };
            [line("memory"), line("pids")]
        };
        let table = [
            (vec!["memory:../.."], "../.. is not a sub cgroup path"),
            (vec![".."], ".. is not a sub cgroup path"),
            (vec!["nope:one"], "unknown controller nope"),
            (vec!["memory:one", "two"], "missing <controller>: prefix"),
            (vec![":one"], "empty <controller> prefix"),
        ];
        for (values, expected) in table {
            let flags = values.iter().flat_map(|value| ["--cgroup", value]);
            let mut args = vec!["exec"];
            args.extend(flags);
            args.extend([container.id.as_str(), "true"]);
            let (code, _, stderr) = container.call(&args);
            assert_eq!(code, Some(255), "{runtime:?} {values:?}");
            // This one is new since the runc of Debian 12.
            let known = runtime == Runtime::Davit || values != [":one"];
            assert!(!known || stderr.contains(expected), "{stderr}");
        }
        // On a hybrid host the runc of Debian 12 looks for each of them in the v2 hierarchy as well.
        if runtime == Runtime::Davit {
            let id = container.id.clone();
            assert_eq!(shown(&["--cgroup", "memory:one"]), ["one", &id]);
            assert_eq!(
                shown(&["--cgroup", "memory:/one", "--cgroup", "pids:two"]),
                ["one", "two"]
            );
            assert_eq!(shown(&["--cgroup", "memory,pids:one"]), ["one", "one"]);
            assert_eq!(shown(&["--cgroup", "/one"]), ["one", "one"]);
            // runc quietly leaves out what is not there.
            for missing in ["three", "memory:three"] {
                let args = ["exec", "--cgroup", missing, &container.id, "true"];
                let (code, _, stderr) = container.call(&args);
                assert_eq!(code, Some(255));
                assert!(stderr.contains("three"), "{stderr}");
            }
        }
    }
}

/// A cgroup v2 with children and controllers takes no processes (`EBUSY`).
#[test]
fn where_the_first_process_moved_itself_below_an_added_one_follows() {
    for runtime in Runtime::ours() {
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
        if !controllers.is_ok_and(|all| all.contains("pids")) {
            eprintln!("skipped: needs a cgroup v2 with controllers at /sys/fs/cgroup");
            return;
        }
        let script = "cd /sys/fs/cgroup; mkdir init other; echo 1 > init/cgroup.procs; \
            echo +pids > cgroup.subtree_control && touch /moved; sleep 1000";
        let container = Container::new(runtime, script).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "cgroup"}));
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "rw"]
            }));
        });
        container.start();
        eventually("it moved", || container.inside("moved").exists());
        let shown = |flags: &[&str]| {
            let command = ["cat", "/proc/self/cgroup"];
            container.must(&[&["exec"], flags, &[&container.id], &command].concat())
        };
        assert_eq!(shown(&[]), "0::/init\n");
        assert_eq!(shown(&["--cgroup", "other"]), "0::/other\n");
        let args = ["exec", "--cgroup", "/", &container.id, "true"];
        let (code, _, stderr) = container.call(&args);
        assert_eq!(code, Some(255));
        assert!(stderr.contains("EBUSY"), "{stderr}");
    }
}

#[test]
fn groups_and_malformed_variables_and_a_signal_that_ends_it() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let groups = ["-u", "5", "-g", "7", "-g=9", &container.id];
        let args = [&["exec"], &groups[..], &["id", "-G"]].concat();
        assert_eq!(container.must(&args), "0 7 9\n", "{runtime:?}");
        let killed = ["exec", &container.id, "sh", "-c", "kill -9 $$"];
        assert_eq!(container.call(&killed).0, Some(137), "{runtime:?}");
        let args = ["exec", "-g", "-1", &container.id, "true"];
        assert_eq!(container.call(&args).0, Some(255), "{runtime:?}");
    }
}

#[test]
fn a_created_container_takes_processes_and_a_stopped_one_does_not() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true");
        container.write_config();
        container.must(&["create", &container.id]);
        assert_eq!(
            container.must(&["exec", &container.id, "echo", "early"]),
            "early\n",
            "{runtime:?}"
        );
        container.must(&["start", &container.id]);
        eventually("it stops", || container.status() == "stopped");
        let (code, _, stderr) = container.call(&["exec", &container.id, "true"]);
        assert_eq!(code, Some(255), "{runtime:?}");
        assert!(
            stderr.contains("cannot exec in a stopped container")
                || (runtime == Runtime::Runc
                    && stderr.contains("cannot exec a container that has stopped")),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn a_paused_container_takes_processes_only_where_that_is_asked_for() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let dirs = cgroups_named(&container.id);
        let freezer = dirs.iter().find_map(|dir| {
            let v1 = (dir.join("freezer.state"), "FROZEN", "THAWED");
            let v2 = (dir.join("cgroup.freeze"), "1", "0");
            [v1, v2].into_iter().find(|(file, ..)| file.exists())
        });
        let (file, frozen, thawed) = freezer.expect("a freezer");
        std::fs::write(&file, frozen).unwrap();
        eventually("it is paused", || container.status() == "paused");
        let (code, _, stderr) = container.call(&["exec", &container.id, "true"]);
        assert_eq!(code, Some(255));
        assert!(
            stderr.contains("cannot exec in a paused container (use --ignore-paused to override)"),
            "{stderr}"
        );
        let args = ["exec", "--ignore-paused", &container.id, "echo", "late"];
        let child = container
            .command(&args)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It stops on its way in, and goes on with the others.
        let inside = || {
            let procs = std::fs::read_to_string(file.with_file_name("cgroup.procs")).unwrap();
            procs.lines().count() > 1
        };
        eventually("it is on its way", inside);
        std::fs::write(&file, thawed).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), "late\n");
    }
}
