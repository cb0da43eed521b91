//! conmon by itself, as podman and cri-o call it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::command::{Outcome, outcome};
use integration::{bin, wait};
use serde_json::json;

use crate::place::Place;
use crate::{Runtime, Transcript, expect, same};

/// One container below a conmon.
struct Monitored<'a> {
    place: &'a Place,
    runtime: &'a Runtime,
    id: String,
}

impl Monitored<'_> {
    fn runtime(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(&self.runtime.path);
        command.arg("--root").arg(self.place.at("state"));
        outcome(command.args(args))
    }

    fn conmon(&self, log: &str, exit: &str, more: &[&str]) -> Outcome {
        let mut command = Command::new(bin::genuine("conmon").unwrap());
        let at = |name: &str| self.place.at(name).to_string_lossy().into_owned();
        std::fs::create_dir_all(at(exit)).unwrap();
        command
            .args(["--api-version", "1", "--cid", &self.id, "--cuuid", &self.id])
            .arg("--runtime")
            .arg(&self.runtime.path)
            .args(["--runtime-arg", "--root", "--runtime-arg", &at("state")])
            .args([
                "--bundle",
                &at(""),
                "--container-pidfile",
                &at(&format!("{exit}.pid")),
            ])
            .args([
                "--exit-dir",
                &at(exit),
                "--log-path",
                &format!("k8s-file:{}", at(log)),
            ])
            .args(["--socket-dir-path", &at("")])
            .args(more);
        outcome(&mut command)
    }
}

/// Waits for a file that is complete once it is there.
fn contents(path: &Path) -> String {
    wait::until(&path.to_string_lossy(), Duration::from_secs(20), || {
        let text = std::fs::read_to_string(path).ok();
        text.filter(|text| !text.is_empty())
    })
}

/// The lines of a log without their times.
fn lines(log: &Path) -> String {
    let text = contents(log);
    let line = |line: &str| line.split_once(' ').map(|(_, rest)| format!("{rest}\n"));
    text.lines().filter_map(line).collect()
}

fn steps(runtime: &Runtime) -> Transcript {
    let place = Place::new("conmon");
    let script = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let mut config = integration::bundle::default_config(&["/bin/sh", "-c", script]);
    let id = place.cgroup().trim_start_matches('/').to_owned();
    config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", place.cgroup()));
    std::fs::write(place.at("config.json"), config.to_string()).unwrap();
    let process = json!({"args": ["/bin/sh", "-c", "echo inside; exit 3"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    std::fs::write(place.at("process.json"), process.to_string()).unwrap();
    let monitored = Monitored {
        place: &place,
        runtime,
        id: id.clone(),
    };
    let created = monitored.conmon("log", "exits", &[]);
    assert_eq!(created.code, 0, "{created}");
    let pid = contents(&place.at("exits.pid"));
    let state = monitored.runtime(&["state", &id]).json();
    assert_eq!(state["pid"].to_string(), pid);
    monitored.runtime(&["start", &id]).ok();
    wait::until_true("both lines are logged", Duration::from_secs(20), || {
        lines(&place.at("log")).lines().count() == 2
    });
    let mut transcript = Transcript::new();
    let mut logged: Vec<String> = lines(&place.at("log")).lines().map(str::to_owned).collect();
    // Two pipes: either may be read first.
    logged.sort();
    transcript.push(("log".to_owned(), 0, logged.join("\n")));
    let spec = place.at("process.json").to_string_lossy().into_owned();
    let exec = ["--exec", "--exec-process-spec", &spec];
    let joined = monitored.conmon("exec-log", "exec-exits", &exec);
    assert_eq!(joined.code, 0, "{joined}");
    let code = contents(&place.at("exec-exits").join(&id));
    transcript.push((
        "exec".to_owned(),
        code.parse().unwrap(),
        lines(&place.at("exec-log")),
    ));
    monitored.runtime(&["kill", &id, "TERM"]).ok();
    let code = contents(&place.at("exits").join(&id));
    transcript.push(("exit code".to_owned(), code.parse().unwrap(), String::new()));
    monitored.runtime(&["delete", &id]).ok();
    transcript
}

#[test]
fn conmon_does_with_davit_oci_what_it_does_with_runc() {
    same(&["conmon"], |runtime| {
        let transcript = steps(runtime);
        eprintln!("conmon with {}", runtime.name);
        let expected = [
            ("log", 0, "stderr F err\nstdout F out"),
            ("exec", 3, "stdout F inside\n"),
            ("exit code", 7, ""),
        ];
        expect(&transcript, &expected);
        transcript
    });
}
