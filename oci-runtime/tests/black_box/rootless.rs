//! A user without privileges: everything in a user namespace of the container's own.
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Runtime, text};

const UID: u32 = 1000;

/// What a person without privileges has: a home with a bundle, a runtime directory, ids in `/etc/subuid`.
struct Person {
    home: tempfile::TempDir,
    ranges: bool,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::Builder::new()
            .prefix("davit-rootless-")
            .tempdir()
            .unwrap();
        let person = Self {
            home,
            ranges: false,
        };
        for dir in ["run", "bundle/rootfs/bin"] {
            std::fs::create_dir_all(person.path(dir)).unwrap();
        }
        for dir in ["proc", "sys", "dev", "etc", "tmp"] {
            std::fs::create_dir(person.path("bundle/rootfs").join(dir)).unwrap();
        }
        std::fs::copy("/bin/busybox", person.path("bundle/rootfs/bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "id", "stat", "touch", "ls", "grep", "sleep", "hostname", "echo", "cut",
            "wc",
        ] {
            let link = person.path("bundle/rootfs/bin").join(applet);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        // The build directory may be closed to others.
        std::fs::copy(Runtime::Davit.program(), person.path("davit-oci")).unwrap();
        std::fs::write(
            person.path("passwd"),
            format!("root:x:0:0::/root:/bin/sh\nsailor:x:{UID}:{UID}::/:/bin/sh\n"),
        )
        .unwrap();
        std::fs::write(person.path("subids"), "sailor:200000:65536\n").unwrap();
        let files = Command::new("chown")
            .args(["-R", &format!("{UID}:{UID}")])
            .arg(person.home.path())
            .status();
        assert!(files.unwrap().success());
        // newuidmap takes only root's files.
        for file in ["passwd", "subids"] {
            chown(person.path(file), Some(0), Some(0)).unwrap();
        }
        std::fs::set_permissions(person.home.path(), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        person
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn call(&self, args: &[&str]) -> Output {
        let ranges = if self.ranges {
            "mount --bind $H/subids /etc/subuid; mount --bind $H/subids /etc/subgid;"
        } else {
            "mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid;"
        };
        let script = format!(
            "set -e; H=$1; shift; mount --bind $H/passwd /etc/passwd; {ranges} cd $H/bundle; \
             exec setpriv --reuid {UID} --regid {UID} --clear-groups \"$@\""
        );
        Command::new("timeout")
            .args(["-k", "1", "30", "unshare", "-m", "sh", "-c", &script, "sh"])
            .arg(self.home.path())
            .arg(self.path("davit-oci"))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        text(&output.stdout)
    }

    /// Writes the configuration that `spec --rootless` gives, changed.
    fn configure(&self, script: &str, change: impl FnOnce(&mut Value)) {
        let file = self.path("bundle/config.json");
        if !file.exists() {
            self.must(&["spec", "--rootless"]);
        }
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", script]);
        change(&mut config);
        std::fs::write(&file, config.to_string()).unwrap();
    }

    fn assert_nothing_left(&self) {
        let dir = self.path("run/davit-oci");
        let left = std::fs::read_dir(dir).map(|dir| dir.flatten().count());
        assert_eq!(left.unwrap_or(0), 0, "state directories are left");
    }
}

fn people() -> Vec<Person> {
    if Runtime::ours().is_empty() {
        return Vec::new();
    }
    if !Path::new("/usr/bin/newuidmap").exists() {
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "needs newuidmap (package uidmap)"
        );
        eprintln!("skipped: needs newuidmap (package uidmap)");
        return Vec::new();
    }
    vec![Person::new()]
}

#[test]
fn a_person_without_privileges_runs_what_spec_rootless_writes() {
    for person in people() {
        let script = "id -u; id -g; cat /proc/self/uid_map; hostname; ls /dev/null /dev/pts/ptmx; echo x > /dev/null; \
                      ls /sys/fs/cgroup | wc -l; touch /sys/x /x 2>/dev/null || echo read-only; cat /proc/1/comm; true";
        person.configure(script, |config| config["hostname"] = "davit".into());
        let shown = person.must(&["run", "one"]);
        let lines: Vec<&str> = shown.lines().map(str::trim).collect();
        assert_eq!(lines[..2], ["0", "0"], "{shown}");
        let map: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(map, ["0", &UID.to_string(), "1"]);
        assert_eq!(
            lines[3..6],
            ["davit", "/dev/null", "/dev/pts/ptmx"],
            "{shown}"
        );
        assert_eq!(lines[7..], ["read-only", "sh"], "{shown}");
        person.assert_nothing_left();
    }
}

#[test]
fn the_whole_life_of_a_rootless_container() {
    for person in people() {
        person.configure("echo started; sleep 1000", |config| {
            config["root"]["readonly"] = false.into();
        });
        let out = std::fs::File::create(person.path("out")).unwrap();
        drop(out);
        chown(person.path("out"), Some(UID), Some(UID)).unwrap();
        let script = "exec ../davit-oci run --detach one >../out 2>&1";
        let run = ["sh", "-c", script];
        let started = Command::new("setpriv")
            .args([
                "--reuid",
                &UID.to_string(),
                "--regid",
                &UID.to_string(),
                "--clear-groups",
            ])
            .args(run)
            .current_dir(person.path("bundle"))
            .env("XDG_RUNTIME_DIR", person.path("run"))
            .status()
            .unwrap();
        let said = std::fs::read_to_string(person.path("out")).unwrap();
        assert!(started.success(), "{said}");
        let state: Value = serde_json::from_str(&person.must(&["state", "one"])).unwrap();
        assert_eq!(state["status"], "running");
        assert_eq!(person.must(&["exec", "one", "id", "-u"]), "0\n");
        person.must(&["kill", "one", "KILL"]);
        crate::harness::eventually("the container stops", || {
            person.must(&["state", "one"]).contains("\"stopped\"")
        });
        person.must(&["delete", "one"]);
        person.assert_nothing_left();
    }
}

#[test]
fn the_ids_of_a_person_are_mapped_by_the_set_user_id_helpers() {
    for person in people() {
        let person = Person {
            ranges: true,
            ..person
        };
        let script =
            "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; cat /proc/self/setgroups";
        person.configure(script, |config| {
            let map = json!([
                {"containerID": 0, "hostID": UID, "size": 1},
                {"containerID": 1, "hostID": 200_000, "size": 1000},
            ]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            config["process"]["user"] = json!({"uid": 33, "gid": 34});
        });
        let shown = person.must(&["run", "one"]);
        let words: Vec<&str> = shown.split_whitespace().collect();
        let map = ["0", "1000", "1", "1", "200000", "1000"];
        assert_eq!(words[..6], map, "{shown}");
        assert_eq!(words[6..12], map, "{shown}");
        assert_eq!(words[12..], ["33", "34", "allow"], "{shown}");
        person.assert_nothing_left();
    }
}

/// As crun: what `spec` writes for root serves as well, with the ids that the person has.
#[test]
fn a_person_needs_no_user_namespace_in_the_configuration() {
    for person in people() {
        let person = Person {
            ranges: true,
            ..person
        };
        person.must(&["spec"]);
        let script = "cat /proc/self/uid_map; id -u; ls /sys/fs/cgroup | wc -l; touch /sys/fs/cgroup/x 2>/dev/null || echo no";
        person.configure(script, |config| {
            config["linux"].as_object_mut().unwrap().remove("resources");
        });
        let shown = person.must(&["run", "one"]);
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(
            words[..6],
            ["0", "1000", "1", "1", "200000", "65536"],
            "{shown}"
        );
        assert_eq!((words[6], words[8]), ("0", "no"), "{shown}");
        person.assert_nothing_left();
    }
}

#[test]
fn ids_that_a_person_does_not_have_are_refused_by_name() {
    for person in people() {
        person.configure("true", |config| {
            let map = json!([{"containerID": 0, "hostID": UID, "size": 2}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        });
        let output = person.call(&["run", "one"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("linux.uidMappings: newuidmap: "),
            "{message}"
        );
        assert!(message.contains("/etc/subuid"), "{message}");
        person.assert_nothing_left();
    }
}

/// The text is runc's.
#[test]
fn a_person_cannot_give_additional_groups() {
    for person in people() {
        person.configure("true", |config| {
            config["process"]["user"]["additionalGids"] = json!([0]);
        });
        let output = person.call(&["run", "one"]);
        let message = text(&output.stderr);
        assert!(
            message.contains("cannot set any additional groups in a rootless container"),
            "{message}"
        );
        person.assert_nothing_left();
    }
}

#[test]
fn a_person_mounts_into_a_running_container() {
    for person in people() {
        let script = "while ! test -e /tmp/new/file; do sleep 0.1; done; cat /tmp/new/file";
        person.configure(script, |config| {
            let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
            config["mounts"].as_array_mut().unwrap().push(tmpfs);
        });
        std::fs::create_dir(person.path("data")).unwrap();
        std::fs::write(person.path("data/file"), "arrived\n").unwrap();
        let mounts = json!([{"destination": "/tmp/new", "source": person.path("data"), "options": ["bind"]}]);
        std::fs::write(person.path("mounts.json"), mounts.to_string()).unwrap();
        let file = person.path("mounts.json");
        std::thread::scope(|scope| {
            let running = scope.spawn(|| person.must(&["run", "one"]));
            crate::harness::eventually("the mount is added", || {
                let args = ["mounts", "add", "one", file.to_str().unwrap()];
                running.is_finished() || person.call(&args).status.success()
            });
            assert_eq!(running.join().unwrap(), "arrived\n");
        });
    }
}
