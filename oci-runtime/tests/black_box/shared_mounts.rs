//! Containers in a mount namespace that is not their own: the caller's, and one that they join by path.
//!
//! runc would change what the host sees there (it makes `/` a slave and, in a namespace that is joined, takes everybody's
//! root), so everything runs in a mount namespace of the test's own.
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

/// A mount namespace that lasts as long as this does.
struct Namespace(std::process::Child);

impl Namespace {
    /// Made by running `script` in a copy of the host's, from which nothing comes back.
    fn new(script: &str) -> Self {
        use std::io::Read;
        let mut child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{script}\necho ready; read end"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut ready).unwrap();
        Self(child)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/mnt", self.0.id())
    }

    fn link(&self) -> String {
        let link = std::fs::read_link(self.path()).unwrap();
        link.to_str().unwrap().to_owned()
    }

    /// What is mounted in it, as the process that holds it sees it.
    fn mounts(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.0.id())).unwrap()
    }

    /// What others mounted may be gone: the kernel unmounts what lies on a directory that somebody removes.
    fn assert_nothing_new(&self, before: &str) {
        let mounts = self.mounts();
        let new: Vec<&str> = mounts
            .lines()
            .filter(|line| !before.lines().any(|known| known == *line))
            .collect();
        assert_eq!(new, Vec::<&str>::new());
    }

    /// `run` of the container, from inside.
    fn run(&self, container: &Container) -> Output {
        container.write_config();
        let command = container.command(&["run", &container.id]);
        Command::new("nsenter")
            .arg(format!("--mount={}", self.path()))
            // Entering leads to the root of the namespace.
            .args(["sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(container.bundle())
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn own_link() -> String {
    let link = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    link.to_str().unwrap().to_owned()
}

/// The namespaces of the configuration with another one for mounts, or none.
fn with_mounts_of(container: Container, path: Option<&str>) -> Container {
    container.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "mount");
        if let Some(path) = path {
            namespaces.push(json!({"type": "mount", "path": path}));
        }
    })
}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn a_container_runs_in_the_mount_namespace_of_its_caller() {
    for runtime in Runtime::all() {
        let namespace = Namespace::new("");
        let script = "readlink /proc/self/ns/mnt; cat /x/file; echo /etc/*; test -c /dev/null && echo device; \
                      test -d /sys/class && echo sysfs; echo new > /written";
        let container = with_mounts_of(Container::new(runtime, script), None);
        let data = container.bundle().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "bound\n").unwrap();
        let mount =
            json!({"destination": "/x", "source": data, "type": "bind", "options": ["bind", "ro"]});
        let container = container.with(|config| add_mount(config, mount));
        let output = namespace.run(&container);
        assert!(output.status.success(), "{runtime:?}: {output:?}");
        let expected = format!("{}\nbound\n/etc/passwd\ndevice\nsysfs\n", namespace.link());
        assert_eq!(text(&output.stdout), expected, "{runtime:?}");
        assert_eq!(
            std::fs::read_to_string(container.inside("/written")).unwrap(),
            "new\n"
        );
    }
}

#[test]
fn nothing_is_mounted_in_the_namespace_of_the_caller() {
    for runtime in Runtime::ours() {
        let namespace = Namespace::new("");
        let before = namespace.mounts();
        let container = with_mounts_of(Container::new(runtime, "true"), None);
        assert!(namespace.run(&container).status.success());
        namespace.assert_nothing_new(&before);
        // Nor in the host's, in which the tests run.
        let container = with_mounts_of(Container::new(runtime, "sleep 100"), None);
        container.start();
        let of_container = std::fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).unwrap();
        assert_eq!(of_container, Path::new(&own_link()));
        container.must(&["delete", "--force", &container.id]);
        container.assert_nothing_left();
    }
}

#[test]
fn paths_are_masked_and_read_only_in_the_namespace_of_the_caller() {
    for runtime in Runtime::ours() {
        let script = "cat /proc/timer_list /etc/passwd; ls /tmp; echo x > /etc/new || echo refused; \
                      touch /file || echo read-only; touch /dev/file || echo device; ls -a /../..";
        let container = with_mounts_of(Container::new(runtime, script), None).with(|config| {
            config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/etc/passwd", "/tmp"]);
            config["linux"]["readonlyPaths"] = json!(["/etc"]);
            config["root"]["readonly"] = json!(true);
            config["mounts"][1]["options"] = json!(["ro", "mode=755"]);
        });
        std::fs::write(container.inside("/tmp/secret"), "").unwrap();
        let shown = container.output();
        assert!(shown.starts_with("refused\nread-only\ndevice\n"), "{shown}");
        assert!(
            !shown.contains("home") && !shown.contains("boot"),
            "{shown}"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn a_container_joins_a_mount_namespace_and_finds_the_sources_there() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "readlink /proc/self/ns/mnt; cat /x/file /tmp/file; test -c /dev/null && echo device",
        );
        let data = container.bundle().join("data");
        std::fs::create_dir(&data).unwrap();
        let over = container.inside("/tmp");
        let namespace = Namespace::new(&format!(
            "mount -t tmpfs tmpfs {data:?}; echo source > {data:?}/file; mount -t tmpfs tmpfs {over:?}; echo root > {over:?}/file"
        ));
        let container = with_mounts_of(container, Some(&namespace.path())).with(|config| {
            add_mount(
                config,
                json!({"destination": "/x", "source": data, "type": "bind", "options": ["bind"]}),
            );
        });
        let expected = format!("{}\nsource\nroot\ndevice\n", namespace.link());
        assert_eq!(container.output(), expected, "{runtime:?}");
    }
}

#[test]
fn others_in_a_mount_namespace_that_is_joined_notice_nothing() {
    for runtime in Runtime::ours() {
        let namespace = Namespace::new("");
        let before = namespace.mounts();
        let container = Container::new(runtime, "sleep 100");
        let container = with_mounts_of(container, Some(&namespace.path()));
        container.start();
        namespace.assert_nothing_new(&before);
        let root = std::fs::read_link(format!("/proc/{}/root", namespace.0.id())).unwrap();
        assert_eq!(root, Path::new("/"));
        container.must(&["delete", "--force", &container.id]);
        namespace.assert_nothing_new(&before);
        container.assert_nothing_left();
    }
}

#[test]
fn an_added_process_gets_the_root_of_the_container_in_a_shared_mount_namespace() {
    for runtime in Runtime::ours() {
        let namespace = Namespace::new("");
        let path = namespace.path();
        for (path, link) in [(None, own_link()), (Some(path.as_str()), namespace.link())] {
            let container = with_mounts_of(Container::new(runtime, "sleep 100"), path);
            std::fs::write(container.inside("/marker"), "inside\n").unwrap();
            container.start();
            let script =
                "cat /marker; readlink /proc/self/ns/mnt; test -c /dev/null && echo device";
            let shown = container.must(&["exec", &container.id, "sh", "-c", script]);
            assert_eq!(shown, format!("inside\n{link}\ndevice\n"));
        }
    }
}

#[test]
fn what_a_shared_mount_namespace_cannot_have_is_refused_by_name() {
    for runtime in Runtime::ours() {
        let refused = |change: &dyn Fn(&mut Value), expected: &str| {
            let container = with_mounts_of(Container::new(runtime, "true"), None).with(change);
            let output = container.run();
            assert!(!output.status.success());
            let stderr = text(&output.stderr);
            assert!(stderr.contains(expected), "{stderr}");
            container.assert_nothing_left();
        };
        let users = |config: &mut Value| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
        };
        refused(&users, "a user namespace needs a new mount namespace");
        let unbindable = |config: &mut Value| {
            config["mounts"][1]["options"] = json!(["unbindable"]);
        };
        refused(&unbindable, "mounts[1].options: an unbindable mount needs");
    }
}

#[test]
fn mounts_of_a_container_in_a_shared_mount_namespace_cannot_be_changed() {
    for runtime in Runtime::ours() {
        let container = with_mounts_of(Container::new(runtime, "sleep 100"), None);
        container.start();
        let file = container.bundle().join("mounts.json");
        let mounts = json!([{"destination": "/x", "type": "tmpfs", "source": "tmpfs"}]);
        std::fs::write(&file, mounts.to_string()).unwrap();
        let file = file.to_str().unwrap();
        let (code, _, stderr) = container.call(&["mounts", "add", &container.id, file]);
        assert_ne!(code, Some(0));
        assert!(stderr.contains("no mount namespace of its own"), "{stderr}");
    }
}
