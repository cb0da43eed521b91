//! A host with many mounts: a mount namespace of the test's own that has a thousand more. There the runtime does not
//! copy the host's mounts for each container, and nobody notices.
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

/// Makes 1024 mounts below `$PWD/crowd`, by doubling one, and leaves their name in `$crowd`.
const CROWD: &str = "crowd=$PWD/crowd; mkdir -p $crowd && mount -t tmpfs crowd $crowd && (cd $crowd && mkdir 1 2 3 4 5 6 7 8 9 10) && \
    for n in 1 2 3 4 5 6 7 8 9 10; do mount --rbind $crowd $crowd/$n || exit 1; done;";

/// A shell in the bundle on a crowded host, with `davit-oci --root …` as `$oci` and the container's id as `$id`.
fn on_crowded_host(container: &Container, script: &str) -> Output {
    in_namespace(container, &format!("{CROWD} {script}"))
}

fn in_namespace(container: &Container, script: &str) -> Output {
    command(container, script).output().unwrap()
}

fn command(container: &Container, script: &str) -> Command {
    container.write_config();
    let oci = format!(
        "{} --root {}",
        container.runtime.program(),
        container.state_root().display()
    );
    let cpus = cpus();
    let mut command = Command::new("timeout");
    command
        .args(["-k", "1", "300"])
        // Mount namespaces are older or newer by their ids, of which every processor has a stock of its own.
        .args(["taskset", "-c", cpus.split([',', '-']).next().unwrap()])
        .args(["unshare", "-m", "--propagation", "private"])
        .args(["sh", "-c", script])
        .env("cpus", &cpus)
        .env("oci", oci)
        .env("id", &container.id)
        .current_dir(container.bundle())
        .stdin(Stdio::null());
    command
}

/// The processors that the tests may use.
fn cpus() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap().trim().to_owned()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// Mounting in detached trees came with 6.15; before, the host's mounts are copied as ever.
fn kernel_can() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
    let can = (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 15);
    if !can {
        eprintln!("skipped: Linux {} copies all mounts", release.trim());
    }
    can
}

fn push_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Whether the first process was seen in its runtime's own mount namespace, where it is only if it has no copy of it.
fn is_born_in_the_namespace_of_its_runtime(container: &Container) -> bool {
    let pid_file = container.bundle().join("pid");
    let script = format!("{CROWD} echo $$ > pid; exec $oci run $id >out 2>&1");
    let mut run = command(container, &script).spawn().unwrap();
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen = false;
    while run.try_wait().unwrap().is_none() {
        let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
        let pid = pid.trim();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let of_runtime = link(pid);
        for child in children.unwrap_or_default().split_whitespace() {
            seen |= of_runtime.is_some() && link(child) == of_runtime;
        }
        std::thread::yield_now();
    }
    let out = std::fs::read_to_string(container.bundle().join("out")).unwrap();
    assert!(run.wait().unwrap().success(), "{out}");
    std::fs::remove_file(pid_file).unwrap();
    seen
}

#[test]
fn mounts_of_a_crowded_host_are_copied_only_where_hooks_may_look_for_them() {
    if !kernel_can() {
        return;
    }
    for runtime in Runtime::ours() {
        for hook in [false, true] {
            let container = Container::new(runtime, "true").with(|config| {
                // That takes a moment, in which the process can be looked at.
                push_mount(config, json!({"destination": "/many", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}));
                if hook {
                    config["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]});
                }
            });
            let many = container.inside("/many");
            std::fs::create_dir(&many).unwrap();
            for number in 0..2_000 {
                std::fs::write(many.join(number.to_string()), "x").unwrap();
            }
            // Where it is there to be seen, ten times are enough to see it.
            let seen = (0..10).any(|_| is_born_in_the_namespace_of_its_runtime(&container));
            assert_eq!(seen, !hook);
        }
    }
}

/// Everything that the kernel says of a mount, but for its own number, its parent's and its filesystem's.
fn without_numbers(mountinfo: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next().unwrap();
        let device = if device.starts_with("0:") {
            "0"
        } else {
            device
        };
        let rest: Vec<&str> = fields.collect();
        format!("{device} {}\n", rest.join(" "))
    };
    mountinfo.lines().map(line).collect()
}

#[test]
fn a_container_of_a_crowded_host_has_the_same_mounts() {
    for runtime in Runtime::ours() {
        let outside = tempfile::tempdir().unwrap();
        let source = outside.path().to_str().unwrap();
        let container = Container::new(runtime, "cat /proc/self/mountinfo").with(|config| {
            for (name, options) in [
                ("plain", json!(["bind"])),
                ("rbind", json!(["rbind", "ro", "rprivate"])),
                ("slave", json!(["rbind", "rslave", "nosuid"])),
                ("unbindable", json!(["bind", "unbindable"])),
            ] {
                let at = format!("/mnt/{name}");
                push_mount(config, json!({"destination": at, "type": "bind", "source": source, "options": options}));
            }
            push_mount(config, json!({"destination": "/ro", "type": "tmpfs", "source": "t", "options": ["ro", "mode=755"]}));
            push_mount(config, json!({"destination": "/ro/in", "type": "tmpfs", "source": "t", "options": ["private"]}));
            push_mount(config, json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}));
            config["root"]["readonly"] = true.into();
            config["process"]["cwd"] = "/made/for/it".into();
            config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/sys/firmware", "/none"]);
            config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/bus"]);
        });
        let few = without_numbers(&said(&in_namespace(&container, "$oci run $id")));
        let many = without_numbers(&said(&on_crowded_host(&container, "$oci run $id")));
        assert!(few.lines().count() > 20, "{few}");
        assert_eq!(few, many);
        container.assert_nothing_left();
    }
}

/// `HostToContainer` of Kubernetes; what the container mounts itself stays its own.
#[test]
fn later_mounts_of_a_crowded_host_arrive_where_they_are_wanted() {
    let script = "sh -c 'mkdir src src/later src/inner && mount -t tmpfs src src && mount --make-shared src && mkdir src/later src/inner' && \
        $oci create $id >out 2>&1 </dev/null && $oci start $id && \
        mount -t tmpfs later src/later && touch src/later/file && \
        for at in default rslave rprivate; do $oci exec $id ls /$at/later | grep -c file; done; \
        grep -c /src/inner /proc/self/mountinfo; $oci exec $id grep -c /default/inner /proc/self/mountinfo; $oci delete --force $id";
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000").with(|config| {
            for at in ["default", "rslave", "rprivate"] {
                let mut options = vec!["rbind"];
                options.extend(Some(at).filter(|at| *at != "default"));
                push_mount(config, json!({"destination": format!("/{at}"), "type": "bind", "source": "src", "options": options}));
            }
            push_mount(config, json!({"destination": "/default/inner", "type": "tmpfs", "source": "t"}));
        });
        let few = said(&in_namespace(&container, script));
        let many = said(&on_crowded_host(
            &container,
            &format!("rm -rf src; {script}"),
        ));
        assert_eq!(few, many, "{runtime:?}");
        assert_eq!(many, "1\n1\n0\n0\n1\n", "{runtime:?}");
    }
}

/// A tree with such a file cannot go into a newer mount namespace, while the copy of a whole namespace leaves it out.
#[test]
fn a_pinned_mount_namespace_in_a_source_does_not_matter_on_a_crowded_host() {
    let script = "mkdir src && mount -t tmpfs src src && touch src/pinned && unshare --mount=src/pinned true && \
        exec $oci run $id";
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "ls /x; ls /proc/self/fd | wc -l").with(|config| {
            let mount =
                json!({"destination": "/x", "type": "bind", "source": "src", "options": ["rbind"]});
            push_mount(config, mount);
        });
        let few = said(&in_namespace(&container, script));
        let many = said(&on_crowded_host(
            &container,
            &format!("rm -rf src; {script}"),
        ));
        assert_eq!(few, many);
        assert!(many.starts_with("pinned\n"), "{many}");
        container.assert_nothing_left();
    }
}

/// Who has a root of his own keeps it, also where the mounts have to be made a second time.
#[test]
fn a_caller_with_another_root_finds_the_bundle_on_a_crowded_host() {
    // Only below that root is the bundle at /mnt.
    let script = "mkdir new && mount --rbind / new && mount --bind . new/mnt && \
        exec chroot new sh -c 'cd /mnt && exec $oci run $id'";
    for runtime in Runtime::ours() {
        for pinned in [false, true] {
            let container = Container::new(runtime, "echo here").with(|config| {
                if pinned {
                    let mount = json!({"destination": "/x", "type": "bind", "source": "src", "options": ["rbind"]});
                    push_mount(config, mount);
                }
            });
            let pin = "mkdir -p src && mount -t tmpfs src src && touch src/pinned && unshare --mount=src/pinned true &&";
            let pin = if pinned { pin } else { "" };
            let output = on_crowded_host(&container, &format!("{pin} {script}"));
            assert_eq!(said(&output), "here\n", "{pinned}");
        }
    }
}

/// The tests of everything that has to do with mounts (but of what has a copy of all mounts anyway), once more, on a crowded host.
#[test]
fn the_tests_of_mounts_pass_on_a_crowded_host() {
    if !kernel_can() {
        return;
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let exe = std::env::current_exe().unwrap();
        let tests =
            "mounts:: mount_options:: messages:: mounts_command:: cgroup_views:: security::";
        let script = format!(
            "cd / && taskset -c $cpus {} --test-threads 2 {tests} 2>&1",
            exe.display()
        );
        let output = on_crowded_host(&container, &script);
        assert!(output.status.success(), "{}", text(&output.stdout));
    }
}
