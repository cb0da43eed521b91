//! The built `davit`, as a person meets it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

/// Runs davit against a node that is nowhere, whatever runs on this machine.
fn davit(dir: &tempfile::TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_davit"));
    command
        .arg("--run-dir")
        .arg(dir.path().join("run"))
        .arg("--state-dir")
        .arg(dir.path().join("state"));
    command.args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_command_and_the_first_steps() {
    let output = davit(&tempfile::tempdir().unwrap(), &["--help"]);
    assert!(output.status.success());
    for word in [
        "up",
        "down",
        "status",
        "doctor",
        "image",
        "completion",
        "man",
        "version",
        "First steps",
    ] {
        assert!(
            stdout(&output).contains(word),
            "{word}: {}",
            stdout(&output)
        );
    }
    assert!(
        !stdout(&output).contains("exec-daemon"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_wrong_command_line_ends_with_64_and_names_the_mistake() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["--bogus"][..],
        &["nosuch"],
        &["image", "rm"],
        &["up", "--timeout", "soon"],
        &["up", "--log-level", "debug"],
    ] {
        let output = davit(&dir, args);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("error: "),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_node_that_is_not_there_is_told_with_its_socket_and_the_way_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["status"][..],
        &["image", "ls"],
        &["image", "pull", "busybox"],
        &["image", "rm", "busybox"],
    ] {
        let output = davit(&dir, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let socket = dir.path().join("run/davit-cri.sock");
        assert_eq!(
            stderr(&output),
            format!(
                "davit: no node answers at {}: no such file or directory (ENOENT)\n\
                 hint: `davit up` starts a node; --socket or --run-dir name another one\n",
                socket.display()
            )
        );
    }
}

#[test]
fn a_socket_that_nobody_listens_on_is_told_to_be_left_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("run/davit-cri.sock")).unwrap());
    let output = davit(&dir, &["status"]);
    assert!(
        stderr(&output).contains("connection refused (ECONNREFUSED)\nhint: it was there once"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_server_that_speaks_something_else_is_told_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let listener =
        std::os::unix::net::UnixListener::bind(dir.path().join("run/davit-cri.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::io::Write::write_all(&mut stream.unwrap(), b"220 mail.example ESMTP\r\n").ok();
        }
    });
    let output = davit(&dir, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("davit: no node answers at "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn version_answers_without_a_node() {
    let output = davit(&tempfile::tempdir().unwrap(), &["version"]);
    assert!(output.status.success());
    assert!(
        stdout(&output).starts_with(concat!(
            "davit ",
            env!("CARGO_PKG_VERSION"),
            "\nno node answers at "
        )),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_doctor_ends_with_0_exactly_if_nothing_required_is_missing() {
    let output = davit(&tempfile::tempdir().unwrap(), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let required = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["level"] == "required");
    let all_present = required.clone().all(|check| check["state"] == "present");
    assert!(required.count() > 5, "{report}");
    assert_eq!(report["ok"], all_present);
    assert_eq!(output.status.code(), Some(i32::from(!all_present)));
}

#[test]
fn the_doctor_tells_people_the_same_as_programs_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let links_before = std::fs::read_dir("/sys/class/net").unwrap().count();
    let text = stdout(&davit(&dir, &["doctor"]));
    let report: serde_json::Value =
        serde_json::from_slice(&davit(&dir, &["doctor", "--json"]).stdout).unwrap();
    for check in report["checks"].as_array().unwrap() {
        assert!(text.contains(check["title"].as_str().unwrap()), "{check}");
        if check["state"] != "present" {
            assert!(text.contains(check["without"].as_str().unwrap()), "{check}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(
        std::fs::read_dir("/sys/class/net").unwrap().count(),
        links_before
    );
}

#[test]
fn the_page_on_kernel_features_is_made_from_the_table() {
    let page = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/kernel-features.md"
    ))
    .unwrap();
    let made = stdout(&davit(
        &tempfile::tempdir().unwrap(),
        &["doctor", "--markdown"],
    ));
    assert_eq!(
        page, made,
        "run `davit doctor --markdown > docs/kernel-features.md`"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new("sh")
        .args([
            "-c",
            "\"$0\" completion bash | true; exec \"$0\" man | head -1",
            env!("CARGO_BIN_EXE_davit"),
        ])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definition() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            stdout(&davit(&dir, &["completion", shell])).contains("doctor"),
            "{shell}"
        );
    }
    let pages = dir.path().join("man");
    assert!(
        davit(&dir, &["man", "--out", pages.to_str().unwrap()])
            .status
            .success()
    );
    assert!(pages.join("davit.1").is_file() && pages.join("davit-up.1").is_file());
}

#[test]
fn down_without_a_node_is_success_and_says_so() {
    if !nix::unistd::geteuid().is_root() {
        let output = davit(&tempfile::tempdir().unwrap(), &["down"]);
        assert!(
            stderr(&output).contains("needs root"),
            "{}",
            stderr(&output)
        );
        return;
    }
    // A network and a cgroup of its own would come from a daemon's flags; the defaults may belong to a node of this machine.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let line = format!(
        "davit-cri\0--bridge\0davit-none\0--subnet\010.255.255.0/30\0--cgroup-root\0/davit-none\0--cni-cache-dir\0{}\0",
        dir.path().join("cni").display()
    );
    std::fs::write(dir.path().join("run/up.cmdline"), line).unwrap();
    let output = davit(&dir, &["down"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "down     nothing is left\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn down_and_up_refuse_directories_that_hold_anything_else_and_touch_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("run/netns")).unwrap();
    std::fs::create_dir_all(dir.path().join("run/pods/1")).unwrap();
    std::fs::create_dir_all(dir.path().join("state/dpkg")).unwrap();
    for args in [&["down"][..], &["down", "--purge"], &["up", "--no-sample"]] {
        let output = davit(&dir, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let says = format!(
            "davit: {} holds what no node puts there: netns\n",
            dir.path().join("run").display()
        );
        assert!(
            stderr(&output).starts_with(&says),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    for kept in ["run/netns", "run/pods/1", "state/dpkg"] {
        assert!(dir.path().join(kept).is_dir(), "{kept}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("state")).unwrap().count(),
        1
    );
}
