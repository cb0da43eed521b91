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
            [ ! -f $f ] || echo $p $f is a file >> /found
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
        container.start();
        eventually("the spy watches", || container.inside("watching").exists());
        let seen = || {
            std::fs::read_to_string(container.inside("runtimes"))
                .map_or(0, |text| text.lines().count())
        };
        let deadline = Instant::now() + Duration::from_secs(60);
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
        std::fs::write(container.inside("stop"), "").unwrap();
        let found = std::fs::read_to_string(container.inside("found")).unwrap_or_default();
        assert_eq!(found, "", "in {execs} execs, {} looks", seen());
    }
}

fn spied(runtime: Runtime) -> Container {
    let mut container = Container::new(runtime, "");
    let mark = container.bundle().join("config.json");
    let script = SPY.replace("/MARK", mark.to_str().unwrap());
    container.config["process"]["args"] = json!(["sh", "-c", script]);
    let all = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    container.config["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    container
}
