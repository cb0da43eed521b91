//! Clients that misbehave, and the shim that outlives them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::os::fd::{AsFd, OwnedFd};

use shim::client::Client;
use shim::files::{self, Liveness};
use shim::protocol::{self, MAX_PACKET, Op, Request, State};
use support::{Pod, any_runtime, exit_of, kill, runs, wait_until};
use sys::socket::{self, Kind};

fn raw(pod: &Pod) -> OwnedFd {
    socket::connect(&files::socket(&pod.path()), Kind::SeqPacket).unwrap()
}

/// Whether the shim closed this connection.
fn is_closed(connection: &OwnedFd) -> bool {
    assert_eq!(
        sys::fd::wait_readable(&[connection.as_fd()], 10_000).unwrap(),
        [true]
    );
    !socket::receive(connection, &mut [0; 64]).is_ok_and(|got| got.len > 0)
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", "exec sleep 1000");
    let mut good = pod.client();
    let deep = "[".repeat(50_000);
    let long = format!(
        "{{\"seq\":1,\"op\":{{\"start\":{{\"container_id\":\"{}\"}}}}}}",
        "x".repeat(MAX_PACKET)
    );
    for packet in [
        &b"hello"[..],
        b"{}",
        b"\0\xff",
        b"{\"seq\":1,\"op\":\"status\"}",
        deep.as_bytes(),
        long.as_bytes(),
        b"",
    ] {
        let connection = raw(&pod);
        socket::send(&connection, packet, &[]).unwrap();
        assert!(
            is_closed(&connection),
            "{:?}",
            &packet[..packet.len().min(40)]
        );
    }
    // Descriptors that nobody asked for, more than a message of ours may have.
    let null = std::fs::File::open("/dev/null").unwrap();
    let connection = raw(&pod);
    socket::send(
        &connection,
        b"{\"seq\":1,\"op\":{\"status\":{}}}",
        &vec![null.as_fd(); 200],
    )
    .unwrap();
    assert!(is_closed(&connection));
    assert_eq!(good.status().unwrap().containers[0].state, State::Running);
}

#[test]
fn an_unknown_operation_is_answered_and_the_connection_goes_on() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let connection = raw(&pod);
    let ask = |packet: &str| {
        socket::send(&connection, packet.as_bytes(), &[]).unwrap();
        let mut buffer = [0; 1024];
        let got = socket::receive(&connection, &mut buffer).unwrap();
        String::from_utf8(buffer[..got.len].to_vec()).unwrap()
    };
    let answer = ask("{\"seq\":7,\"op\":{\"teleport\":{}}}");
    assert_eq!(
        answer,
        "{\"seq\":7,\"err\":{\"kind\":\"invalid\",\"message\":\"unknown operation \\\"teleport\\\" (this shim speaks version 1)\"}}"
    );
    let answer = ask("{\"seq\":8,\"op\":{\"attach\":{\"container_id\":\"c\"}}}");
    assert!(
        answer.contains("\"not_found\"") && answer.contains("does not exist"),
        "{answer}"
    );
    let answer = ask("{\"seq\":9,\"op\":{\"hello\":{\"version\":1000,\"new\":true}}}");
    assert!(
        answer.starts_with("{\"seq\":9,\"ok\":") && answer.contains("\"version\":1"),
        "{answer}"
    );
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_and_holds_nobody_up() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    pod.run("c", "exec sleep 1000");
    let sleeper = raw(&pod);
    socket::send(&sleeper, b"{\"seq\":1,\"op\":{\"subscribe\":{}}}", &[]).unwrap();
    // The same connection asks and asks without reading the answers: its buffer fills as a subscriber's would.
    let mut sent = 0;
    let full = |connection: &OwnedFd| {
        let ready = sys::fd::wait_readable(&[connection.as_fd()], 0).unwrap();
        assert_eq!(ready, [true]);
    };
    while sent < 5_000 && socket::send(&sleeper, b"{\"seq\":2,\"op\":{\"status\":{}}}", &[]).is_ok()
    {
        sent += 1;
    }
    assert!(sent < 5_000, "the shim dropped it");
    full(&sleeper);
    let mut events = pod.events();
    pod.client().signal("c", 9, true).unwrap();
    assert_eq!(exit_of(&mut events, "c").code, 137);
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_create_leaves_a_whole_container() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    for number in 0..5 {
        let id = format!("c{number}");
        let packet = protocol::encode(&Request {
            seq: 1,
            op: Op::Create(pod.container(&id, "true")),
        })
        .unwrap();
        let connection = raw(&pod);
        socket::send(&connection, &packet, &[]).unwrap();
        drop(connection);
        let mut client = pod.client();
        wait_until("the container is created", || {
            client
                .status()
                .unwrap()
                .containers
                .iter()
                .any(|c| c.id == id && c.state == State::Created)
        });
        client.start(&id).unwrap();
    }
}

#[test]
fn more_clients_than_anyone_needs_are_turned_away_and_the_others_served() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    let mut first = pod.client();
    let crowd: Vec<OwnedFd> = (0..400).map(|_| raw(&pod)).collect();
    assert!(is_closed(crowd.last().unwrap()));
    first.status().unwrap();
    drop(crowd);
    wait_until("there is room again", || {
        Client::connect(&files::socket(&pod.path())).is_ok()
    });
}

#[test]
fn a_second_shim_for_a_pod_is_refused_while_the_first_lives() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &["--new-uts"]);
    let line = pod.launch(&["--new-uts"]);
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .contains("a shim runs there already"),
        "{line}"
    );
    assert_eq!(
        files::probe(&pod.path()).unwrap(),
        Liveness::Alive { pid: pod.pid() }
    );
}

#[test]
fn a_killed_shim_is_recognised_and_its_pod_can_be_taken_over() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &["--new-net", "--new-uts"]);
    let init = pod.run("c", "exec sleep 1000");
    let shim = pod.pid();
    kill(shim, 9);
    wait_until("it is dead", || !runs(shim));
    assert_eq!(files::probe(&pod.path()).unwrap(), Liveness::Dead);
    let error = Client::connect(&files::socket(&pod.path())).unwrap_err();
    assert!(error.is_gone(), "{error}");
    assert_eq!(
        files::read_exit(&pod.bundle("c")).unwrap(),
        None,
        "an exit that nobody saw is not invented"
    );
    assert!(runs(init), "its container runs on, unsupervised");
    // What a daemon does then: delete by the runtime, and a new shim for what is left to do.
    let runtime = pod.runtime();
    let deleted = std::process::Command::new(&runtime.path)
        .arg("--root")
        .arg(runtime.root.unwrap())
        .args(["delete", "--force", "c"])
        .status();
    if tool.name != "crun" {
        assert!(deleted.unwrap().success());
        wait_until("the container is gone", || !runs(init));
    }
    let line = pod.launch(&["--new-net", "--new-uts"]);
    assert_eq!(line["ready"], true, "{line}");
    assert_eq!(pod.client().status().unwrap().containers, []);
}

#[test]
fn sigterm_ends_an_empty_shim_and_not_one_with_containers() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &["--new-uts"]);
    let mut events = pod.events();
    pod.run("c", "exec sleep 1000");
    let shim = pod.pid();
    kill(shim, 15);
    let mut client = pod.client();
    assert_eq!(client.status().unwrap().containers.len(), 1);
    client.signal("c", 9, true).unwrap();
    exit_of(&mut events, "c");
    kill(shim, 15);
    wait_until("it ends", || !runs(shim));
    assert!(!files::socket(&pod.path()).exists() && !files::namespaces(&pod.path()).exists());
}
