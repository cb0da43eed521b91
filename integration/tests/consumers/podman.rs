//! Debian's podman, which calls the runtime through conmon and by itself.

use std::process::Command;
use std::time::Duration;

use integration::command::{Outcome, outcome};
use integration::{bin, wait};

use crate::place::Place;
use crate::{Runtime, Transcript, expect, line, same};

struct Podman<'a> {
    place: Place,
    runtime: &'a Runtime,
}

impl Podman<'_> {
    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(bin::genuine("podman").unwrap());
        command
            .env("CONTAINERS_CONF", self.place.at("containers.conf"))
            .args([
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
                "--storage-driver=vfs",
            ]);
        for (flag, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(flag).arg(self.place.at(name));
        }
        command.arg("--runtime").arg(&self.runtime.path).args(args);
        outcome(&mut command)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time=0"]);
    }
}

fn steps(runtime: &Runtime) -> Transcript {
    let place = Place::new("podman");
    std::fs::write(
        place.at("containers.conf"),
        "[containers]\npids_limit = -1\n",
    )
    .unwrap();
    let podman = Podman { place, runtime };
    let (cgroup, rootfs) = (podman.place.cgroup(), podman.place.at("rootfs"));
    let rootfs = rootfs.to_string_lossy().into_owned();
    let mut transcript = Transcript::new();
    let mut step = |name: &str, args: &[&str]| {
        transcript.push(line(name, &podman.call(args)));
    };
    // More open files and processes than podman may ask for on a machine without CAP_SYS_RESOURCE.
    let given = [
        "--network=none",
        "--log-driver=k8s-file",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=20000:20000",
        "--cgroup-parent",
        &cgroup,
    ];
    let mut container = |name: &str, flags: &[&str], args: &[&str]| {
        step(
            name,
            &[
                &["run", "--rm"],
                &given[..],
                flags,
                &["--rootfs", &rootfs],
                args,
            ]
            .concat(),
        );
    };
    container(
        "output and exit code",
        &[],
        &["sh", "-c", "echo out; exit 5"],
    );
    container("seccomp", &[], &["grep", "Seccomp:", "/proc/self/status"]);
    container(
        "privileged",
        &["--privileged"],
        &["grep", "Seccomp:", "/proc/self/status"],
    );
    container(
        "user",
        &["--user=33:33", "--workdir=/data"],
        &["sh", "-c", "id; pwd"],
    );
    container(
        "terminal",
        &["--tty"],
        &["sh", "-c", "test -t 1 && echo terminal"],
    );
    container(
        "init",
        &["--init"],
        &["sh", "-c", "test $$ != 1 && cat /proc/1/comm"],
    );
    container(
        "mapped users",
        &["--uidmap=0:100000:1000", "--gidmap=0:100000:1000"],
        &["cat", "/proc/self/uid_map"],
    );
    container("no such program", &[], &["/no/such/program"]);
    container("not a program", &[], &["/etc/passwd"]);
    let script = "trap 'exit 7' TERM; echo begun; while :; do sleep 0.1; done";
    let run = [
        &["run", "--detach", "--name=long"],
        &given[..],
        &[
            "--memory=64m",
            "--health-cmd=true",
            "--health-interval=disable",
        ],
        &["--rootfs", &rootfs, "sh", "-c", script],
    ];
    let started = podman.call(&run.concat());
    assert_eq!(started.code, 0, "{started}");
    let begun = || podman.call(&["logs", "long"]).stdout == "begun\n";
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
    step("healthcheck", &["healthcheck", "run", "long"]);
    step(
        "health",
        &["inspect", "--format={{.State.Health.Status}}", "long"],
    );
    // Both name the container.
    podman.call(&["pause", "long"]).ok();
    step("paused", &["inspect", "--format={{.State.Status}}", "long"]);
    podman.call(&["unpause", "long"]).ok();
    podman.call(&["update", "--memory=80m", "long"]).ok();
    step(
        "updated",
        &[
            "exec",
            "long",
            "cat",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ],
    );
    step("top", &["top", "long", "user", "args"]);
    podman.call(&["stop", "--time=20", "long"]).ok();
    step("wait", &["wait", "long"]);
    podman.call(&["start", "long"]).ok();
    podman.call(&["kill", "--signal=KILL", "long"]).ok();
    step("wait for the killed", &["wait", "long"]);
    podman.call(&["rm", "long"]).ok();
    step("none is left", &["ps", "--all", "--quiet"]);
    transcript
}

#[test]
fn podman_does_with_davit_oci_what_it_does_with_runc() {
    same(&["podman", "conmon", "catatonit"], |runtime| {
        let transcript = steps(runtime);
        eprintln!("podman with {}", runtime.name);
        let expected = [
            ("output and exit code", 5, "out\n"),
            ("seccomp", 0, "Seccomp:\t2\n"),
            ("no such program", 127, ""),
            ("not a program", 126, ""),
            ("exec", 3, "inside\n"),
            ("health", 0, "healthy\n"),
            ("paused", 0, "paused\n"),
            ("updated", 0, "83886080\n"),
            ("wait", 0, "7\n"),
            ("wait for the killed", 0, "137\n"),
            ("none is left", 0, ""),
        ];
        expect(&transcript, &expected);
        transcript
    });
}
