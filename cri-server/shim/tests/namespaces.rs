//! The pod's namespaces: made, pinned, usable, and gone afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use shim::files;
use shim::protocol::Event;
use support::{Pod, any_runtime, entry, exit_of, kill, runs, wait_until};
use sys::namespace::{self, NamespaceKind};

fn is_pinned(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(&format!(" {} ", path.display()))
}

/// The output of a program in a pinned namespace.
fn inside(pod: &Pod, namespace: &str, program: &[&str]) -> String {
    let file = files::namespaces(&pod.path()).join(if namespace == "net" { "net" } else { "uts" });
    let output = Command::new("nsenter")
        .arg(format!("--{namespace}={}", file.display()))
        .args(program)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn namespaces_are_pinned_configured_and_unpinned_at_the_end() {
    let Some(tool) = any_runtime().filter(|tool| tool.name != "crun") else {
        return;
    };
    let host = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let pod = Pod::start(
        &tool,
        &[
            "--new-net",
            "--new-ipc",
            "--new-uts",
            "--hostname",
            "web-1",
            "--sysctl",
            "net.ipv4.ip_local_port_range=1024 2048",
            "--sysctl",
            "kernel.shmmni=77",
        ],
    );
    let directory = files::namespaces(&pod.path());
    for (name, kind) in [
        ("net", NamespaceKind::Net),
        ("ipc", NamespaceKind::Ipc),
        ("uts", NamespaceKind::Uts),
    ] {
        let pinned = namespace::open(&directory.join(name), kind).unwrap();
        let own = namespace::of_process(sys::Pid::this(), kind).unwrap();
        assert_ne!(
            namespace::identity(&pinned).unwrap(),
            namespace::identity(&own).unwrap(),
            "{name} is new"
        );
    }
    assert_eq!(inside(&pod, "uts", &["hostname"]), "web-1");
    assert_eq!(
        inside(
            &pod,
            "net",
            &["cat", "/proc/sys/net/ipv4/ip_local_port_range"]
        ),
        "1024\t2048"
    );
    assert!(inside(&pod, "net", &["ip", "-br", "link", "show", "lo"]).contains("LOWER_UP"));
    assert_eq!(
        fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap(),
        host
    );
    pod.client().shutdown(false).unwrap();
    assert!(!directory.exists() && !is_pinned(&directory.join("net")));
}

#[test]
fn a_container_joins_the_pinned_namespaces() {
    for tool in support::runtimes() {
        let pod = Pod::start(
            &tool,
            &[
                "--new-net",
                "--new-ipc",
                "--new-uts",
                "--hostname",
                "joined",
            ],
        );
        let mut events = pod.events();
        pod.run("c", "cat /proc/sys/kernel/hostname; cat /proc/net/dev | tail -n +3 | tr -d ' ' | tr ':' '\\n' | head -n 1");
        assert_eq!(exit_of(&mut events, "c").code, 0, "{}", tool.name);
        assert_eq!(
            pod.log("c"),
            [entry("stdout", "F", "joined"), entry("stdout", "F", "lo")],
            "{}",
            tool.name
        );
    }
}

#[test]
fn without_options_nothing_is_made() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &[]);
    assert!(!files::namespaces(&pod.path()).exists());
    assert_eq!(pod.client().status().unwrap().pod_init_alive, None);
}

#[test]
fn a_failure_undoes_what_was_made_and_is_told_in_one_line() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::prepare(&tool);
    let line = pod.launch(&[
        "--new-net",
        "--new-uts",
        "--new-pid",
        "--sysctl",
        "net.ipv4.no_such_thing=1",
    ]);
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("sysctl net.ipv4.no_such_thing=1") && error.contains("ENOENT"),
        "{error}"
    );
    let line = pod.launch(&["--new-net", "--new-uts", "--hostname", &"x".repeat(65)]);
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .contains("host name of the pod"),
        "{line}"
    );
    let line = pod.launch(&["--sysctl", "vm.swappiness=1"]);
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .contains("would change the host"),
        "{line}"
    );
    assert_eq!(fs::read_dir(pod.path()).unwrap().count(), 0);
    let line = Pod::prepare(&tool).launch(&["--bogus"]);
    assert!(
        line["error"].as_str().unwrap().contains("--bogus"),
        "{line}"
    );
}

#[test]
fn the_init_of_a_shared_pid_namespace_reaps_and_offers_nothing_of_the_host() {
    for tool in support::runtimes() {
        let pod = Pod::prepare(&tool);
        let line = pod.launch(&["--new-pid", "--cgroup-parent", &format!("/{}", pod.name)]);
        assert_eq!(line["ready"], true, "{line}");
        let status = pod.client().status().unwrap();
        assert_eq!(status.pod_init_alive, Some(true));
        let init = status.pod_init_pid.unwrap();
        // Two containers, one namespace: both see process 1, and each other.
        let mut events = pod.events();
        pod.run("a", "exec sleep 1000");
        let line = "ps -o pid,comm | grep -c -e davit-init -e sleep; (sh -c 'sleep 0.1 & echo $!' ) ; exit 0";
        pod.run("b", line);
        assert_eq!(exit_of(&mut events, "b").code, 0, "{}", tool.name);
        let log = pod.log("b");
        assert!(
            log[0].text.parse::<u32>().unwrap() >= 2,
            "{}: {log:?}",
            tool.name
        );
        let zombies = || {
            sys::process::stat(sys::Pid::from_raw(init)).unwrap();
            let children =
                fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
            children
                .split_whitespace()
                .filter(|pid| !runs(pid.parse().unwrap()))
                .count()
        };
        wait_until("orphans are reaped", || zombies() == 0);
        let proc = |file: &str| fs::read_to_string(format!("/proc/{init}/{file}")).unwrap();
        let status = proc("status");
        for line in [
            "Uid:\t65535\t65535\t65535\t65535",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{status}");
        }
        assert_eq!(
            proc("mountinfo").lines().count(),
            1,
            "an empty root and nothing else"
        );
        let write = fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{init}/exe"))
            .unwrap_err();
        assert!(
            matches!(write.raw_os_error(), Some(30 | 26)),
            "read-only: {write}"
        );
        assert!(
            proc("cgroup").contains(&format!("/{}/init", pod.name)),
            "{}",
            proc("cgroup")
        );
        // Killed with force, the containers and the init go.
        pod.client().shutdown(true).unwrap();
        assert!(!runs(init));
        assert!(
            !Path::new("/sys/fs/cgroup/pids")
                .join(&pod.name)
                .join("init")
                .exists()
        );
    }
}

#[test]
fn the_death_of_the_pods_init_is_told_and_ends_its_containers() {
    let Some(tool) = any_runtime() else { return };
    let pod = Pod::start(&tool, &["--new-pid"]);
    let mut events = pod.events();
    pod.run("c", "exec sleep 1000");
    let mut client = pod.client();
    kill(client.status().unwrap().pod_init_pid.unwrap(), 9);
    let mut told = (false, false);
    while told != (true, true) {
        match events
            .next(support::PATIENCE)
            .unwrap()
            .expect("both events come")
        {
            Event::PodInitExit {} => told.0 = true,
            Event::Exit { exit, .. } => told.1 = exit.code == 137,
            Event::ExecExit { .. } => {}
        }
    }
    assert_eq!(client.status().unwrap().pod_init_alive, Some(false));
}

#[test]
fn in_a_shared_pid_namespace_the_rest_of_a_container_goes_with_its_init() {
    for tool in support::runtimes() {
        let pod = Pod::start(&tool, &["--new-pid"]);
        let mut events = pod.events();
        pod.run("c", "setsid sleep 1000 & sleep 1001 & echo up; exit 5");
        let exit = exit_of(&mut events, "c");
        assert_eq!((exit.code, exit.signal), (5, None), "{}", tool.name);
        assert_eq!(pod.log("c"), [entry("stdout", "F", "up")]);
        wait_until("nothing of it is left", || pod.processes("c").is_empty());
        assert_eq!(pod.client().status().unwrap().pod_init_alive, Some(true));
    }
}

/// user_namespaces(7): a namespace belongs to the user namespace of the process that made it.
#[test]
fn a_user_namespace_is_made_first_and_owns_the_others() {
    let Some(tool) = any_runtime().filter(|tool| tool.name != "crun") else {
        return;
    };
    let pod = Pod::start(
        &tool,
        &[
            "--uid-map",
            "0:100000:65536",
            "--gid-map",
            "0:200000:65536",
            "--new-net",
            "--new-ipc",
            "--new-uts",
            "--new-pid",
            "--hostname",
            "web-1",
            "--sysctl",
            "net.ipv4.ip_local_port_range=1024 2048",
            "--sysctl",
            "kernel.shmmni=77",
        ],
    );
    let directory = files::namespaces(&pod.path());
    namespace::open(&directory.join("user"), NamespaceKind::User).unwrap();
    // Only who enters the user namespace has rights over the others; its root is nobody's root outside.
    let script = "hostname changed; hostname; sysctl -n kernel.shmmni net.ipv4.ip_local_port_range; \
                  cat /proc/self/uid_map /proc/self/gid_map";
    let ns = |name: &str| directory.join(name).display().to_string();
    let output = Command::new("nsenter")
        .arg(format!("--user={}", ns("user")))
        .arg(format!("--net={}", ns("net")))
        .arg(format!("--ipc={}", ns("ipc")))
        .arg(format!("--uts={}", ns("uts")))
        .args(["sh", "-ec", script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "changed", "77", "1024", "2048", "0", "100000", "65536", "0", "200000", "65536"
        ],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    pod.client().shutdown(false).unwrap();
    assert!(!directory.exists() && !is_pinned(&directory.join("user")));
}
