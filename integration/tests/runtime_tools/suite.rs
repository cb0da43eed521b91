//! The built programs of the suite, and running them under one runtime.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use integration::bin;
use integration::command::{Outcome, outcome};

use crate::{Results, tap};

/// In seconds; the slowest takes five on a quiet machine.
const DEADLINE: &str = "90";
/// Most of the time the programs wait for a state.
const AT_ONCE: usize = 4;

/// Where the programs are.
pub(crate) struct Suite(PathBuf);

// === impl Suite ===

impl Suite {
    /// What `cargo xtask tools` has built; `None`, with the reason printed, where it has not.
    ///
    /// # Panics
    /// With `MUST_WORK=1`, where it has not.
    pub(crate) fn find() -> Option<Suite> {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        let dir = home.join(".cache/davit/tools/runtime-tools");
        if dir.join("runtimetest").is_file() {
            return Some(Suite(dir));
        }
        let reason = "runtime-tools is not built; `cargo xtask tools` builds it";
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "MUST_WORK is set, but {reason}"
        );
        eprintln!("skipped: {reason}");
        None
    }

    /// The names of all programs.
    pub(crate) fn programs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names
            .filter(|name| name != "runtimetest" && !name.contains('.'))
            .collect();
        names.sort();
        names
    }

    /// What the programs say of a runtime.
    pub(crate) fn run(&self, under: &Under, programs: &[String]) -> Results {
        // Those that limit resources use one cgroup by a fixed path.
        let (limiting, others): (Vec<String>, Vec<String>) = programs
            .iter()
            .cloned()
            .partition(|name| name.contains("cgroups") || name.contains("_resources"));
        let mut jobs: Vec<Vec<String>> = others.into_iter().map(|name| vec![name]).collect();
        jobs.push(limiting);
        let (jobs, results) = (Mutex::new(jobs), Mutex::new(Results::new()));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(job) = { jobs.lock().unwrap().pop() } {
                        for program in job {
                            let found = self.run_one(under, &program);
                            results.lock().unwrap().extend(found);
                        }
                    }
                });
            }
        });
        remove_cgroups();
        results.into_inner().unwrap()
    }

    fn run_one(&self, under: &Under, program: &str) -> Results {
        let tmp = tempfile::Builder::new()
            .prefix("davit-validation-")
            .tempdir()
            .unwrap();
        // In a mount namespace of its own: containers without one leave their mounts in that of the caller.
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{}; exec \"$@\"", under.arrange))
            .args(["sh", "timeout", "--kill-after=10", DEADLINE])
            .arg(self.0.join(program))
            .current_dir(&self.0)
            .env("TMPDIR", tmp.path())
            .env("RUNTIME", under.wrapper());
        let outcome = outcome(&mut command);
        if std::env::var_os("DAVIT_TEST_VERBOSE").is_some() {
            println!("{} {outcome}", under.name());
        }
        results_of(program, &outcome)
    }
}

/// The points of one program, and that it ends well as one more.
fn results_of(program: &str, outcome: &Outcome) -> Results {
    let mut results = Results::new();
    let end = ("the program ends well".to_owned(), outcome.code == 0);
    for (name, passes) in tap::points(&outcome.stdout).into_iter().chain([end]) {
        let all = results.entry((program.to_owned(), name)).or_insert(true);
        *all &= passes;
    }
    results
}

/// A runtime with a state directory of its own, behind a program that names the directory.
pub(crate) struct Under {
    name: &'static str,
    dir: tempfile::TempDir,
    runtime: PathBuf,
    /// What the shell does to the mount namespace first.
    arrange: &'static str,
}

// === impl Under ===

impl Under {
    pub(crate) fn ours() -> Under {
        Under::at("davit-oci", bin::ours("davit-oci"), ":", "")
    }

    pub(crate) fn runc() -> Under {
        let path = bin::genuine("runc").unwrap_or_default();
        Under::at("runc", path, ":", "")
    }

    /// Debian's refuses hybrid hosts, and knows no version of the specification after 1.0.
    pub(crate) fn crun() -> Under {
        let path = bin::genuine("crun").unwrap_or_default();
        let arrange = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; mount -t tmpfs none /sys/fs/cgroup/unified; fi";
        let older = r#"if [ "$1" = create ]; then
    bundle=. previous=
    for word; do
        if [ "$previous" = --bundle ]; then bundle=$word; fi
        previous=$word
    done
    sed -i 's/"ociVersion": *"1\.[1-9][^"]*"/"ociVersion": "1.0.2"/' "$bundle/config.json"
fi"#;
        Under::at("crun", path, arrange, older)
    }

    fn at(name: &'static str, runtime: PathBuf, arrange: &'static str, before: &str) -> Under {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new()
            .prefix("davit-validated-")
            .tempdir()
            .unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let wrapper = dir.path().join("runtime");
        let text = format!(
            "#!/bin/sh\n{before}\nexec {} --root {} \"$@\"\n",
            runtime.display(),
            state.display()
        );
        std::fs::write(&wrapper, text).unwrap();
        std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
        Under {
            name,
            dir,
            runtime,
            arrange,
        }
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn wrapper(&self) -> PathBuf {
        self.dir.path().join("runtime")
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        // What a program that was cut short left.
        let state = self.dir.path().join("state");
        for entry in std::fs::read_dir(&state).into_iter().flatten().flatten() {
            let mut delete = Command::new(&self.runtime);
            delete.arg("--root").arg(&state).args(["delete", "--force"]);
            outcome(delete.arg(entry.file_name()));
        }
    }
}

/// Removes the cgroups of the suite, which it names and the runtimes make: the parents stay after the container. A
/// relative path is below our own cgroup for some runtimes.
fn remove_cgroups() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: Vec<&str> = own
        .lines()
        .filter_map(|line| line.split(':').nth(2))
        .collect();
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    for top in hierarchies.flatten() {
        let below = own
            .iter()
            .map(|path| top.path().join(path.trim_start_matches('/')));
        for parent in below.chain([top.path()]) {
            for path in [
                "cgrouptest",
                "testdir/cgrouptest/container",
                "testdir/cgrouptest",
                "testdir",
            ] {
                // Not there, for most.
                std::fs::remove_dir(parent.join(path)).ok();
            }
        }
    }
}
