//! Programs that are run in containers, and their killing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use shim::client::Client;
use shim::protocol::{ErrorKind, Exec};
use support::{Pod, any_runtime, exec_exit_of, exit_of, runs, runtimes, wait_until};

/// Runs an exec with pipes; returns the ends of its stdout and stderr, and its process id.
fn exec(client: &mut Client, exec: Exec) -> Result<(OwnedFd, OwnedFd, i32), shim::client::Error> {
    let (out, out_write) = sys::fd::pipe().unwrap();
    let (err, err_write) = sys::fd::pipe().unwrap();
    let pid = client
        .exec(exec, &[out_write.as_fd(), err_write.as_fd()])?
        .pid;
    Ok((out, err, pid))
}

fn text(fd: &OwnedFd) -> String {
    String::from_utf8(sys::fd::read_to_end(fd, 1 << 20).unwrap()).unwrap()
}

#[test]
fn an_exec_has_the_given_stdio_and_its_code_is_told() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        pod.run("c", "exec sleep 1000");
        let (mut client, mut events) = (pod.client(), pod.events());
        let (out, err, pid) = exec(
            &mut client,
            pod.exec(
                "c",
                "e",
                &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"],
            ),
        )
        .unwrap();
        assert!(pid > 1);
        assert_eq!(
            (text(&out), text(&err)),
            ("out\n".into(), "err\n".into()),
            "{}",
            tool.name
        );
        assert_eq!(exec_exit_of(&mut events, "e"), 7, "{}", tool.name);
        let (stdin, stdin_write) = sys::fd::pipe().unwrap();
        let (out, out_write) = sys::fd::pipe().unwrap();
        let request = pod.exec("c", "with-stdin", &["/bin/cat"]);
        client
            .exec(
                request,
                &[stdin.as_fd(), out_write.as_fd(), out_write.as_fd()],
            )
            .unwrap();
        drop((stdin, out_write));
        sys::fd::write_all(&stdin_write, b"through").unwrap();
        drop(stdin_write);
        assert_eq!(text(&out), "through", "{}", tool.name);
        assert_eq!(exec_exit_of(&mut events, "with-stdin"), 0);
        let left: Vec<_> = fs::read_dir(pod.bundle("c"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().starts_with("runtime-")),
            "{left:?}"
        );
    }
}

#[test]
fn killing_an_exec_kills_its_grandchildren_and_orphans_and_nothing_else() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let init = pod.run("c", "exec sleep 1000");
        let (mut client, mut events) = (pod.client(), pod.events());
        let (bystander_out, _, bystander) = exec(
            &mut client,
            pod.exec("c", "bystander", &["/bin/sh", "-c", "echo up; sleep 1000"]),
        )
        .unwrap();
        sys::fd::read_exact(&bystander_out, &mut [0; 3]).unwrap();
        let before = pod.processes("c");
        // A child, a grandchild, one in a session of its own, and one whose parent is gone.
        let line = "sleep 1001 & (sleep 1002 & sleep 1003) & setsid sleep 1004 & (sleep 1005 &) ; echo up; wait";
        let (out, _, _) = exec(&mut client, pod.exec("c", "e", &["/bin/sh", "-c", line])).unwrap();
        sys::fd::read_exact(&out, &mut [0; 3]).unwrap();
        wait_until("the tree stands", || {
            pod.processes("c").len() >= before.len() + 6
        });
        client.kill_exec("c", "e").unwrap();
        assert_eq!(exec_exit_of(&mut events, "e"), 137, "{}", tool.name);
        assert_eq!(text(&out), "", "nothing holds its stdout any more");
        wait_until("only the others are left", || pod.processes("c") == before);
        assert!(runs(init) && runs(bystander));
        // Again, and of one that was never there.
        client.kill_exec("c", "e").unwrap();
        assert_eq!(
            client.kill_exec("c", "x").unwrap_err().kind(),
            Some(ErrorKind::NotFound)
        );
    }
}

#[test]
fn what_an_ended_exec_left_behind_can_still_be_killed() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        pod.run("c", "exec sleep 1000");
        let (mut client, mut events) = (pod.client(), pod.events());
        let (out, err, _) = exec(
            &mut client,
            pod.exec("c", "e", &["/bin/sh", "-c", "sleep 1001 & exit 0"]),
        )
        .unwrap();
        assert_eq!(exec_exit_of(&mut events, "e"), 0);
        assert_eq!(pod.processes("c").len(), 2, "{}", tool.name);
        client.kill_exec("c", "e").unwrap();
        assert_eq!((text(&out), text(&err)), (String::new(), String::new()));
        wait_until("it is gone", || pod.processes("c").len() == 1);
    }
}

#[test]
fn a_refused_exec_has_the_runtimes_words() {
    for tool in runtimes() {
        let pod = Pod::start(&tool, &[]);
        let mut events = pod.events();
        pod.run("c", "exec sleep 1000");
        let mut client = pod.client();
        let error = exec(&mut client, pod.exec("c", "e", &["/bin/not-there"])).unwrap_err();
        assert_eq!(
            error.kind(),
            Some(ErrorKind::Runtime),
            "{}: {error}",
            tool.name
        );
        assert!(
            error.to_string().contains("not-there"),
            "{}: {error}",
            tool.name
        );
        // The name is free again, and once used it is taken.
        exec(&mut client, pod.exec("c", "e", &["/bin/true"])).unwrap();
        let error = exec(&mut client, pod.exec("c", "e", &["/bin/true"])).unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::AlreadyExists), "{error}");
        client.signal("c", 9, true).unwrap();
        exit_of(&mut events, "c");
        let error = exec(&mut client, pod.exec("c", "late", &["/bin/true"])).unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Invalid), "{error}");
    }
}

#[test]
fn an_exec_without_its_descriptors_is_refused() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", "exec sleep 1000");
    let mut client = pod.client();
    let null = fs::File::open("/dev/null").unwrap();
    for count in [0, 1, 4] {
        let error = client
            .exec(
                pod.exec("c", "e", &["/bin/true"]),
                &vec![null.as_fd(); count],
            )
            .unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Invalid), "{error}");
        assert!(
            error.to_string().contains(&format!("{count} descriptors")),
            "{error}"
        );
    }
}

#[test]
fn a_storm_of_execs_all_end_with_their_codes_and_leave_no_descriptors() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", "exec sleep 1000");
    let shim = pod.pid();
    let descriptors = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let before = descriptors();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pod = &pod;
            scope.spawn(move || {
                let (mut client, mut events) = (pod.client(), pod.events());
                for number in 0..25 {
                    let (id, code) = (format!("e{thread}-{number}"), number % 5);
                    let (out, _, _) = exec(
                        &mut client,
                        pod.exec(
                            "c",
                            &id,
                            &["/bin/sh", "-c", &format!("echo {id}; exit {code}")],
                        ),
                    )
                    .unwrap();
                    assert_eq!(text(&out), format!("{id}\n"));
                    assert_eq!(exec_exit_of(&mut events, &id), code);
                }
            });
        }
    });
    wait_until("no descriptor leaked", || descriptors() <= before);
    let status = pod.client().status().unwrap();
    assert_eq!(status.containers[0].execs, [""; 0]);
}

#[test]
fn a_client_that_hears_nothing_sees_running_execs_in_the_status() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", "exec sleep 1000");
    let mut client = pod.client();
    let _pipes = exec(&mut client, pod.exec("c", "e", &["/bin/sleep", "1000"])).unwrap();
    assert_eq!(pod.client().status().unwrap().containers[0].execs, ["e"]);
    client.kill_exec("c", "e").unwrap();
    wait_until("it is gone from the status", || {
        pod.client().status().unwrap().containers[0]
            .execs
            .is_empty()
    });
}
