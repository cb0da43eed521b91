//! Debian's podman with our runtime in place of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::bin;
use integration::bundle::make_rootfs;
use integration::command::{Outcome, outcome};
use integration::host::Cgroups;
use integration::wait;

/// podman with storage, state and cgroups of its own.
struct Podman {
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Podman {
    fn new() -> Podman {
        let dir = tempfile::Builder::new()
            .prefix("davit-podman-")
            .tempdir()
            .unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        // A host without controllers cannot limit processes, as podman does unless told not to.
        std::fs::write(
            dir.path().join("containers.conf"),
            "[containers]\npids_limit = -1\n",
        )
        .unwrap();
        let cgroup = format!("/{}", dir.path().file_name().unwrap().to_string_lossy());
        Podman { dir, cgroup }
    }

    /// `podman run` of a script in the root directory. podman asks for more open files and processes than this
    /// machine lets anyone raise, so they are given.
    fn run(&self, flags: &[&str], script: &str) -> Outcome {
        let at = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(bin::genuine("podman").unwrap());
        command
            .env("CONTAINERS_CONF", at("containers.conf"))
            .args([
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
                "--storage-driver=vfs",
            ])
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"))
            .arg("--tmpdir")
            .arg(at("tmp"))
            .arg("--runtime")
            .arg(bin::ours("davit-oci"))
            .args([
                "run",
                "--rm",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=20000:20000",
                "--security-opt=seccomp=unconfined",
                "--cgroup-parent",
            ])
            .arg(&self.cgroup)
            .args(flags)
            .arg("--rootfs")
            .arg(at("rootfs"))
            .args(["/bin/sh", "-c", script]);
        outcome(&mut command)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // podman leaves the parent cgroup that it made, and its monitor in there for a moment.
        let name = self.cgroup.trim_start_matches('/');
        let mut dirs = vec![Path::new("/sys/fs/cgroup").join(name)];
        for top in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            dirs.push(top.path().join(name));
        }
        wait::until_true("podman's cgroups are gone", Duration::from_secs(10), || {
            dirs.iter().for_each(|dir| remove_cgroup(dir));
            dirs.iter().all(|dir| !dir.exists())
        });
    }
}

/// Removes a cgroup and its children where they are empty.
fn remove_cgroup(dir: &Path) {
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.path().is_dir() {
            remove_cgroup(&child.path());
        }
    }
    // Not there, or still in use: the caller looks.
    std::fs::remove_dir(dir).ok();
}

#[test]
fn podman_runs_a_container_on_every_kind_of_host() {
    if bin::skipped_for_want_of(&["podman", "conmon"]) {
        return;
    }
    for cgroups in [Cgroups::AsIs, Cgroups::V1, Cgroups::V2] {
        cgroups.run(|| {
            let podman = Podman::new();
            let outcome = podman.run(
                &["--network=none"],
                "echo from inside; hostname | wc -c; exit 5",
            );
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (5, "from inside\n13\n"),
                "on {}: {outcome}",
                cgroups.name()
            );
        });
    }
}

#[test]
fn podman_sets_limits_and_the_hosts_network() {
    if bin::skipped_for_want_of(&["podman", "conmon"]) {
        return;
    }
    let podman = Podman::new();
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; grep -c . /proc/net/route";
    let outcome = podman.run(
        &["--network=host", "--memory=64m", "--pids-limit=33"],
        script,
    );
    let routes = std::fs::read_to_string("/proc/net/route")
        .unwrap()
        .lines()
        .count();
    assert_eq!(
        outcome.clone().ok(),
        format!("67108864\n33\n{routes}"),
        "{outcome}"
    );
}

#[test]
fn podman_tells_a_missing_program_apart() {
    if bin::skipped_for_want_of(&["podman", "conmon"]) {
        return;
    }
    let podman = Podman::new();
    let mut outcome = podman.run(&["--network=none", "--entrypoint=/no/such/program"], "");
    assert_eq!(outcome.code, 127, "{outcome}");
    outcome = podman.run(&["--network=none", "--entrypoint=/etc/passwd"], "");
    assert_eq!(outcome.code, 126, "{outcome}");
}
