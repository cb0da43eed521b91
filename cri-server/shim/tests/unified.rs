//! The same on a host with cgroup v2 alone (here: without controllers, so without limits).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::os::fd::AsFd;
use std::path::Path;

use support::{Pod, entry, exec_exit_of, exit_of, runtimes, wait_until};

fn has_unified() -> bool {
    let found = Path::new("/sys/fs/cgroup/unified").is_dir();
    if !found {
        println!(
            "skipped: no cgroup2 mount beside v1; on a host with v2 alone every other test covers this"
        );
    }
    found
}

#[test]
fn a_container_runs_is_killed_whole_and_deleted() {
    for tool in runtimes().into_iter().filter(|_| has_unified()) {
        let pod = Pod::start_unified(&tool, &["--new-pid"]);
        let (mut client, mut events) = (pod.client(), pod.events());
        pod.run("c", "echo up; setsid sleep 1000 & exec sleep 1001");
        wait_until("both run", || pod.processes("c").len() == 2);
        assert!(client.signal("c", 9, true).unwrap());
        let exit = exit_of(&mut events, "c");
        assert_eq!((exit.code, exit.oom), (137, false), "{}", tool.name);
        assert_eq!(pod.log("c"), [entry("stdout", "F", "up")]);
        wait_until("nothing of it is left", || pod.processes("c").is_empty());
        client.delete("c", false).unwrap();
        assert!(
            !Path::new("/sys/fs/cgroup/unified")
                .join(&pod.name)
                .join("c")
                .exists(),
            "{}",
            tool.name
        );
    }
}

#[test]
fn an_exec_is_killed_with_its_tree() {
    for tool in runtimes().into_iter().filter(|_| has_unified()) {
        let pod = Pod::start_unified(&tool, &[]);
        let (mut client, mut events) = (pod.client(), pod.events());
        pod.run("c", "exec sleep 1000");
        let (out, out_write) = sys::fd::pipe().unwrap();
        let request = pod.exec(
            "c",
            "e",
            &["/bin/sh", "-c", "(sleep 1001 & sleep 1002) & wait"],
        );
        client
            .exec(request, &[out_write.as_fd(), out_write.as_fd()])
            .unwrap();
        drop(out_write);
        wait_until("the tree stands", || pod.processes("c").len() >= 4);
        client.kill_exec("c", "e").unwrap();
        assert_eq!(exec_exit_of(&mut events, "e"), 137, "{}", tool.name);
        assert_eq!(sys::fd::read_to_end(&out, 1024).unwrap(), b"");
    }
}
