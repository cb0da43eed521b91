//! A container against the processes that enter it: it may trace others, and it looks at everything with an id in its
//! pid namespace as fast as it can.
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Container, Runtime, eventually};

/// What the container's first process does: for every other process, is there the host behind any of its links?
/// `MARK` is a path of the host. Only what the shell has built in, so that a round takes microseconds.
const SPY: &str = r#"
cd /tmp; echo > /watching
while [ ! -e /stop ]; do
    for p in /proc/[0-9]*; do
        [ $p != /proc/1 ] || continue
        [ ! -e $p/root/MARK ] || echo $p root >> /found
        [ ! -e $p/cwd/MARK ] || echo $p cwd >> /found
        for f in $p/fd/[3-9]* $p/fd/[12][0-9]*; do
            [ ! -d $f/. ] || echo $p $f is a directory >> /found
            # The doorkeeper's own page, the pidfd of a hook, and what the programs of the test open.
            [ ! -f $f ] || link=$(readlink $f)
            case $link in /memfd:*|anon_inode:*|/proc/*|/state|'') ;; *) echo $p $f is $link >> /found;; esac
            link=
        done
        { read -r line < $p/environ; } 2>/dev/null
        case $line in *of-the-host*) echo $p environ >> /found;; esac
        line=
        [ ! -e $p/exe ] || [ $p/exe -ef /bin/busybox ] || echo $p >> /runtimes
    done
done
"#;

/// A process that enters a container is nothing that the container could use, from the moment that it has an id there
/// (the class of CVE-2016-9962).
#[test]
fn a_container_that_may_trace_never_sees_the_host_through_an_added_process() {
    for runtime in Runtime::ours() {
        let container = spied(runtime);
        let seen = || seen(&container);
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut execs = 0;
        // The spy must have looked at the runtime itself, before its execve, many times.
        while execs < 60 || seen() < 30 {
            assert!(
                Instant::now() < deadline,
                "the spy saw only {} of {execs}",
                seen()
            );
            let status = container
                .command(&["exec", &container.id, "true"])
                .env("SECRET", "of-the-host")
                .stderr(Stdio::inherit())
                .status()
                .unwrap();
            assert!(status.success());
            execs += 1;
        }
        assert_nothing_found(&container);
    }
}

/// The same for the first process of a container that joins the pid namespace.
#[test]
fn a_container_that_may_trace_never_sees_the_host_through_a_container_that_joins_it() {
    for runtime in Runtime::ours() {
        let container = spied(runtime);
        let namespace = format!("/proc/{}/ns/pid", container.pid());
        // Its own processes and nothing of the host's, in a procfs of that namespace.
        let script = "readlink /proc/self/ns/pid; cat /proc/1/comm; echo $$";
        let other = Container::new(runtime, script).with(|config| {
            for one in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if one["type"] == "pid" {
                    one["path"] = namespace.as_str().into();
                }
            }
            config["hooks"] = json!({"startContainer": [{
                "path": "/bin/sh", "args": ["sh", "-c", "cat > /state"], "env": ["PATH=/bin"]
            }]});
        });
        if !knows_pid_namespaces_of_procfs() {
            eprintln!("skipped: needs a procfs with the option pidns (Linux 6.18)");
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut runs = 0;
        while runs < 20 || seen(&container) < 20 {
            assert!(
                Instant::now() < deadline,
                "the spy saw only {}",
                seen(&container)
            );
            let shown = other.output();
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(lines[1], "sh", "{shown}");
            assert_ne!(lines[2], "1", "{shown}");
            let link = std::fs::read_link(&namespace).unwrap();
            assert_eq!(lines[0], link.to_str().unwrap());
            runs += 1;
        }
        let state = std::fs::read_to_string(other.inside("state")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        assert!(state["pid"].as_i64().unwrap() > 1);
        assert_nothing_found(&container);
        other.assert_nothing_left();
    }
}

fn knows_pid_namespaces_of_procfs() -> bool {
    let namespace = std::fs::File::open("/proc/self/ns/pid").unwrap();
    sys::mount::FsContext::open("proc")
        .is_ok_and(|context| context.set_fd("pidns", &namespace).is_ok())
}

/// How often the spy looked at a process that ran something else than the container's own shell.
fn seen(container: &Container) -> usize {
    std::fs::read_to_string(container.inside("runtimes")).map_or(0, |text| text.lines().count())
}

fn assert_nothing_found(container: &Container) {
    std::fs::write(container.inside("stop"), "").unwrap();
    let found = std::fs::read_to_string(container.inside("found")).unwrap_or_default();
    assert_eq!(found, "", "{} looks", seen(container));
}

/// A running container that watches.
fn spied(runtime: Runtime) -> Container {
    let mut container = Container::new(runtime, "");
    let mark = container.bundle().join("config.json");
    let script = SPY.replace("/MARK", mark.to_str().unwrap());
    container.config["process"]["args"] = json!(["sh", "-c", script]);
    let all = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    container.config["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    container.start();
    eventually("the spy watches", || container.inside("watching").exists());
    container
}
