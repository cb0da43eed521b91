//! Debian's docker: dockerd with its own containerd, whose shim calls the runtime.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use integration::command::{Outcome, outcome, run};
use integration::{bin, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::Place;
use crate::{Runtime, Transcript, expect, line, same};

/// A dockerd without networks of its own.
struct Docker {
    place: Place,
    daemon: Child,
}

impl Docker {
    fn start(runtime: &Runtime) -> Docker {
        let place = Place::new("docker");
        std::fs::write(place.at("daemon.json"), "{}").unwrap();
        let log = std::fs::File::create(place.at("log")).unwrap();
        let mut dockerd = Command::new(bin::genuine("dockerd").unwrap());
        for (flag, name) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "daemon.json"),
        ] {
            dockerd.arg(flag).arg(place.at(name));
        }
        let daemon = dockerd
            .arg("--host")
            .arg(format!("unix://{}", place.at("sock").display()))
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ])
            .args([
                "--ip-masq=false",
                "--bridge=none",
                "--storage-driver=overlay2",
            ])
            .args(["--cgroup-parent", &place.cgroup()])
            .arg(format!("--add-runtime=tested={}", runtime.path.display()))
            .arg("--default-runtime=tested")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Docker { place, daemon };
        wait::until_true("dockerd answers", Duration::from_secs(60), || {
            docker.call(&["version"]).code == 0
        });
        let archive = docker.place.at("rootfs.tar").to_string_lossy().into_owned();
        let rootfs = docker.place.at("rootfs").to_string_lossy().into_owned();
        let _packed: String = run("tar", ["-C", &rootfs, "-cf", &archive, "."]).ok();
        let _imported: String = docker.call(&["import", &archive, "box"]).ok();
        docker
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(bin::genuine("docker").unwrap());
        let socket = format!("unix://{}", self.place.at("sock").display());
        command
            .env("DOCKER_CONFIG", self.place.at("client"))
            .args(["--host", &socket])
            .args(args);
        outcome(&mut command)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.call(&["ps", "--all", "--quiet"]).stdout;
        for id in all.split_whitespace() {
            self.call(&["rm", "--force", id]);
        }
        let pid = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        // It ends its containerd, which a kill would leave.
        kill(pid, Signal::SIGTERM).ok();
        for _ in 0..300 {
            if self.daemon.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        self.daemon.kill().ok();
        self.daemon.wait().unwrap();
    }
}

fn steps(runtime: &Runtime) -> Transcript {
    let docker = Docker::start(runtime);
    let mut transcript = Transcript::new();
    let mut step = |name: &str, args: &[&str]| {
        transcript.push(line(name, &docker.call(args)));
    };
    let once = ["run", "--rm", "--network=none"];
    let mut container = |name: &str, flags: &[&str], args: &[&str]| {
        step(name, &[&once, flags, &["box"], args].concat());
    };
    container(
        "output and exit code",
        &[],
        &["sh", "-c", "echo out; exit 5"],
    );
    container("seccomp", &[], &["grep", "Seccomp:", "/proc/self/status"]);
    container(
        "capabilities",
        &["--cap-drop=ALL", "--cap-add=KILL"],
        &["grep", "CapEff", "/proc/self/status"],
    );
    container(
        "user",
        &["--user=33:33", "--workdir=/data"],
        &["sh", "-c", "id; pwd"],
    );
    container(
        "read-only",
        &["--read-only", "--tmpfs=/tmp"],
        &["sh", "-c", "touch /tmp/a && ! touch /b"],
    );
    container(
        "terminal",
        &["--tty"],
        &["sh", "-c", "test -t 0 && test -t 1 && echo terminal"],
    );
    container(
        "init",
        &["--init"],
        &["sh", "-c", "test $$ != 1 && cat /proc/1/comm"],
    );
    container(
        "hostname and environment",
        &["--hostname=box1", "--env=A=b"],
        &["sh", "-c", "hostname; echo $A"],
    );
    container(
        "limits",
        &["--memory=64m", "--pids-limit=33", "--cpus=0.5"],
        &[
            "sh",
            "-c",
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us",
        ],
    );
    container(
        "sysctl",
        &["--sysctl=net.ipv4.ip_default_ttl=42"],
        &["cat", "/proc/sys/net/ipv4/ip_default_ttl"],
    );
    container("no such program", &[], &["/no/such/program"]);
    container("not a program", &[], &["/etc/passwd"]);
    let script = "trap 'exit 7' TERM; echo begun; while :; do sleep 0.1; done";
    let run = [
        "run",
        "--detach",
        "--name=long",
        "--network=none",
        "--memory=64m",
    ];
    docker
        .call(
            &[
                &run[..],
                &[
                    "--health-cmd=true",
                    "--health-interval=1s",
                    "box",
                    "sh",
                    "-c",
                    script,
                ],
            ]
            .concat(),
        )
        .ok();
    let begun = || docker.call(&["logs", "long"]).stdout == "begun\n";
    wait::until_true("the container has begun", Duration::from_secs(20), begun);
    step("exec", &["exec", "long", "sh", "-c", "echo inside; exit 3"]);
    step(
        "exec as a user",
        &[
            "exec",
            "--user=33",
            "--env=A=b",
            "long",
            "sh",
            "-c",
            "id -u; echo $A",
        ],
    );
    step(
        "exec with a terminal",
        &[
            "exec",
            "--tty",
            "long",
            "sh",
            "-c",
            "test -t 1 && echo terminal",
        ],
    );
    step("exec of no program", &["exec", "long", "/no/such/program"]);
    let healthy = || {
        let health = docker.call(&["inspect", "--format={{.State.Health.Status}}", "long"]);
        health.stdout == "healthy\n"
    };
    wait::until_true("the container is healthy", Duration::from_secs(30), healthy);
    step("pause", &["pause", "long"]);
    step("paused", &["inspect", "--format={{.State.Status}}", "long"]);
    step("unpause", &["unpause", "long"]);
    step(
        "update",
        &["update", "--memory=80m", "--memory-swap=100m", "long"],
    );
    step(
        "updated",
        &[
            "exec",
            "long",
            "cat",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ],
    );
    step("top", &["top", "long", "-o", "user"]);
    step("stop", &["stop", "--time=20", "long"]);
    step("wait", &["wait", "long"]);
    step("start again", &["start", "long"]);
    step("kill", &["kill", "--signal=KILL", "long"]);
    step("wait for the killed", &["wait", "long"]);
    step("logs", &["logs", "long"]);
    step("rm", &["rm", "long"]);
    transcript
}

#[test]
fn docker_does_with_davit_oci_what_it_does_with_runc() {
    same(&["dockerd", "docker", "containerd"], |runtime| {
        let transcript = steps(runtime);
        let expected = [
            ("output and exit code", 5, "out\n"),
            ("seccomp", 0, "Seccomp:\t2\n"),
            ("no such program", 127, ""),
            ("not a program", 126, ""),
            ("exec", 3, "inside\n"),
            ("updated", 0, "83886080\n"),
            ("wait", 0, "7\n"),
            ("wait for the killed", 0, "137\n"),
        ];
        eprintln!("docker with {}", runtime.name);
        expect(&transcript, &expected);
        transcript
    });
}
