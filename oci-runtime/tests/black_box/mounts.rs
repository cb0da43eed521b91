//! The option table, propagation, bind mounts, tmpcopyup, id-mapped mounts.
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use crate::harness::{Container, Runtime};

fn add_mount(container: Container, mount: serde_json::Value) -> Container {
    container.with(|config| config["mounts"].as_array_mut().unwrap().push(mount))
}

/// The options of the mount at `/x`, as the container sees them.
const SHOW: &str = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 6";

#[test]
fn each_option_becomes_the_attribute_it_names() {
    let table: [(&[&str], &[&str], &[&str]); 14] = [
        (&["ro"], &["ro"], &["rw"]),
        (&["rw"], &["rw"], &["ro"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["nosuid"], &["nosuid"], &[]),
        (&["nosuid", "suid"], &[], &["nosuid"]),
        (&["nodev"], &["nodev"], &[]),
        (&["nodev", "dev"], &[], &["nodev"]),
        (&["noexec"], &["noexec"], &[]),
        (&["noexec", "exec"], &[], &["noexec"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["noatime", "relatime"], &["relatime"], &["noatime"]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["nodiratime"], &["nodiratime"], &[]),
        (
            &["nosuid", "nodev", "noexec", "ro"],
            &["nosuid", "nodev", "noexec", "ro"],
            &[],
        ),
    ];
    for runtime in Runtime::all() {
        for (options, with, without) in table {
            if runtime == Runtime::Runc && options == ["noatime", "relatime"] {
                // runc sets both, and the kernel prefers the first.
                continue;
            }
            for bind in [false, true] {
                let mut all: Vec<&str> = options.to_vec();
                let mount = if bind {
                    all.push("bind");
                    json!({"destination": "/x", "type": "bind", "source": "/etc", "options": all})
                } else {
                    json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": all})
                };
                let shown = add_mount(Container::new(runtime, SHOW), mount).output();
                let shown: Vec<&str> = shown.trim().split(',').collect();
                for one in with {
                    assert!(
                        shown.contains(one),
                        "{runtime:?} {options:?} bind={bind}: {shown:?}"
                    );
                }
                for one in without {
                    assert!(
                        !shown.contains(one),
                        "{runtime:?} {options:?} bind={bind}: {shown:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn recursive_options_reach_the_mounts_below() {
    for runtime in Runtime::ours() {
        let script =
            "grep -E ' /x(/pts)? ' /proc/self/mountinfo | cut -d ' ' -f 6 | cut -d , -f 1-4";
        let mount = json!({"destination": "/x", "source": "/dev", "options": ["rbind", "rro", "rnosuid", "rnodev", "rnoexec"]});
        let shown = add_mount(Container::new(runtime, script), mount).output();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() >= 2, "{shown}");
        assert!(
            lines.iter().all(|line| *line == "ro,nosuid,nodev,noexec"),
            "{shown}"
        );
    }
}

#[test]
fn a_plain_bind_does_not_bring_the_mounts_below() {
    for runtime in Runtime::all() {
        let count = |option: &str| {
            let mount =
                json!({"destination": "/x", "type": "bind", "source": "/dev", "options": [option]});
            let script = "grep -c ' /x' /proc/self/mountinfo";
            add_mount(Container::new(runtime, script), mount)
                .output()
                .trim()
                .parse::<u32>()
                .unwrap()
        };
        assert_eq!(count("bind"), 1);
        assert!(count("rbind") > 1);
    }
}

#[test]
fn a_file_is_bound_onto_a_file_that_is_made_for_it() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /new/dir/file");
        let source = container.bundle().join("source");
        std::fs::write(&source, "content").unwrap();
        let relative = json!({"destination": "/new/dir/file", "type": "bind", "source": source, "options": ["bind", "ro"]});
        let container = add_mount(container, relative);
        assert_eq!(container.output(), "content");
        assert!(container.inside("/new/dir/file").is_file());
    }
}

#[test]
fn a_file_bound_onto_a_dangling_link_is_made_where_the_link_points_inside() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /etc/resolv.conf /run/stub/resolv.conf");
        std::os::unix::fs::symlink(
            "../run/stub/resolv.conf",
            container.inside("/etc/resolv.conf"),
        )
        .unwrap();
        let source = container.bundle().join("source");
        std::fs::write(&source, "content").unwrap();
        let mount = json!({"destination": "/etc/resolv.conf", "type": "bind", "source": source, "options": ["bind", "ro"]});
        let container = add_mount(container, mount);
        assert_eq!(container.output(), "contentcontent");
    }
}

#[test]
fn a_relative_source_counts_from_the_bundle_and_a_relative_destination_from_the_root() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cat /x/file");
        std::fs::create_dir(container.bundle().join("data")).unwrap();
        std::fs::write(container.bundle().join("data/file"), "here").unwrap();
        let container = add_mount(
            container,
            json!({"destination": "x", "source": "data", "options": ["bind"]}),
        );
        assert_eq!(container.output(), "here");
    }
}

#[test]
fn propagation_is_what_the_option_says() {
    for runtime in Runtime::all() {
        for (option, expected) in [("rshared", "shared:"), ("rprivate", ""), ("rslave", "")] {
            let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option]});
            let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 7";
            let shown = add_mount(Container::new(runtime, script), mount).output();
            assert!(
                shown.starts_with(expected) && (!expected.is_empty() || shown.trim() == "-"),
                "{option}: {shown}"
            );
        }
    }
}

/// A tmpfs of the host that passes mounts on to its peers; gone with the value.
struct SharedMount(std::path::PathBuf);

impl SharedMount {
    fn new(at: std::path::PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let context = sys::mount::FsContext::open("tmpfs").unwrap();
        let made = context.mount(sys::mount::MountAttr::empty()).unwrap();
        sys::mount::attach(&made, &at).unwrap();
        sys::mount::set_propagation(&at, sys::mount::Propagation::Shared, false).unwrap();
        std::fs::create_dir(at.join("below")).unwrap();
        Self(at)
    }

    /// Its own part of `/proc/self/mountinfo`: `shared:N`.
    fn peer_group(&self) -> String {
        let all = sys::mountinfo::own().unwrap();
        let own = all.iter().find(|mount| mount.mount_point == self.0);
        own.unwrap().optional.join(" ")
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        drop(sys::mount::unmount_detach(&self.0));
    }
}

/// What containers of operators and of CSI drivers live by: `rshared` is the host's peer, `rslave` its receiver, and
/// neither becomes anything else by the propagation of the root.
#[test]
fn a_shared_mount_of_the_host_is_bound_as_its_peer_or_its_slave() {
    for runtime in Runtime::all() {
        for root in ["rshared", "shared"] {
            for option in ["rshared", "rslave", "rprivate"] {
                let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 7,8; \
                    mount -t tmpfs none /x/below && touch /x/below/file";
                let container = Container::new(runtime, script).with(|config| {
                    config["linux"]["rootfsPropagation"] = root.into();
                    for set in ["bounding", "effective", "permitted"] {
                        let set = &mut config["process"]["capabilities"][set];
                        set.as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
                    }
                });
                let outside = tempfile::tempdir().unwrap();
                let source = SharedMount::new(outside.path().join("source"));
                let mount = json!({"destination": "/x", "type": "bind", "source": source.0, "options": ["rbind", option]});
                let shown = add_mount(container, mount).output();
                let group = source.peer_group();
                let (expected, arrives) = match option {
                    "rshared" => (format!("{group} -"), true),
                    "rslave" => (format!("{} -", group.replace("shared", "master")), false),
                    _ => ("-".to_owned(), false),
                };
                let case = format!("{runtime:?} root={root} {option}");
                assert!(shown.starts_with(&expected), "{case}: {shown} of {group}");
                assert_eq!(source.0.join("below/file").exists(), arrives, "{case}");
                drop(sys::mount::unmount_detach(&source.0.join("below")));
            }
        }
    }
}

/// Without "r" only the host's root changes its propagation; the mount that the bundle lies on may still be shared.
#[test]
fn mounts_of_a_container_in_a_shared_mount_never_reach_the_host() {
    for runtime in Runtime::all() {
        for root in ["", "slave", "private", "shared", "rshared"] {
            let shared = tempfile::tempdir().unwrap();
            let mount = SharedMount::new(shared.path().join("mount"));
            let container = Container::new(runtime, "sleep 1000").with(|config| {
                if !root.is_empty() {
                    config["linux"]["rootfsPropagation"] = root.into();
                }
            });
            let rootfs = mount.0.join("rootfs");
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .args([&container.inside("/"), &rootfs])
                .status();
            assert!(copied.unwrap().success());
            let container = container.with(|config| config["root"]["path"] = json!(rootfs));
            container.start();
            let below = |mount: &sys::mountinfo::Mount| mount.mount_point.starts_with(&rootfs);
            let leaked = sys::mountinfo::own().unwrap().into_iter().find(below);
            assert!(leaked.is_none(), "{runtime:?} {root:?}: {leaked:?}");
            container.must(&["delete", "--force", &container.id]);
        }
    }
}

#[test]
fn the_root_has_the_propagation_asked_for() {
    let mounts = sys::mountinfo::own().unwrap();
    let below = std::env::temp_dir();
    let host = mounts
        .iter()
        .filter(|mount| below.starts_with(&mount.mount_point));
    let host = host.max_by_key(|mount| mount.mount_point.as_os_str().len());
    let host_is_shared =
        host.is_some_and(|mount| mount.optional.iter().any(|o| o.starts_with("shared:")));
    for runtime in Runtime::ours() {
        // Where the host's mount is shared, as systemd makes them all.
        let slave = if host_is_shared { "master:" } else { "-" };
        for (asked, expected) in [
            ("", slave),
            ("private", "-"),
            ("rprivate", "-"),
            ("slave", slave),
            ("rslave", slave),
            ("shared", "shared:"),
            ("rshared", "shared:"),
            ("unbindable", "unbindable"),
            ("runbindable", "unbindable"),
        ] {
            let container = Container::new(
                runtime,
                "cut -d ' ' -f 5,7 /proc/self/mountinfo | grep '^/ ' | cut -d ' ' -f 2",
            )
            .with(|config| {
                if !asked.is_empty() {
                    config["linux"]["rootfsPropagation"] = asked.into();
                }
            });
            let shown = container.output();
            assert!(
                shown.lines().last().unwrap().starts_with(expected),
                "{runtime:?} {asked:?}: {shown}"
            );
        }
    }
}

#[test]
fn a_tmpfs_takes_the_mode_of_the_directory_below() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "stat -c %a /x /y /z");
        std::fs::create_dir(container.inside("x")).unwrap();
        std::fs::set_permissions(
            container.inside("x"),
            std::fs::Permissions::from_mode(0o2710),
        )
        .unwrap();
        let tmpfs = |path: &str, options: &[&str]| json!({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options});
        let container = add_mount(container, tmpfs("/x", &[]));
        let container = add_mount(container, tmpfs("/y", &["mode=701"]));
        let container = add_mount(container, tmpfs("/z", &["ro", "mode=700"]));
        let shown = container.output();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1..], ["701", "700"]);
        assert!(lines[0].ends_with("710"), "{shown}");
    }
}

#[test]
fn tmpcopyup_copies_what_the_tmpfs_hides() {
    for runtime in Runtime::all() {
        let script = "cat /x/file /x/dir/deep; readlink /x/link; stat -c '%a %u %g' /x/file /x/dir; touch /x/new 2>/dev/null; true";
        let container = Container::new(runtime, script);
        std::fs::create_dir_all(container.inside("x/dir")).unwrap();
        std::fs::write(container.inside("x/file"), "file\n").unwrap();
        std::fs::write(container.inside("x/dir/deep"), "deep\n").unwrap();
        symlink("/etc/passwd", container.inside("x/link")).unwrap();
        std::os::unix::fs::chown(container.inside("x/file"), Some(33), Some(34)).unwrap();
        std::fs::set_permissions(
            container.inside("x/file"),
            std::fs::Permissions::from_mode(0o4640),
        )
        .unwrap();
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"]});
        let container = add_mount(container, mount);
        assert_eq!(
            container.output(),
            "file\ndeep\n/etc/passwd\n4640 33 34\n755 0 0\n",
            "{runtime:?}"
        );
        assert!(
            !container.inside("x/new").exists(),
            "the image is untouched"
        );
    }
}

#[test]
fn an_id_mapped_mount_shows_other_owners() {
    for runtime in Runtime::ours() {
        let container = Container::new(
            runtime,
            "stat -c '%u %g' /x/file; touch /x/new 2>/dev/null; true",
        );
        let data = container.bundle().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "").unwrap();
        std::os::unix::fs::chown(data.join("file"), Some(5), Some(6)).unwrap();
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1000}]);
        let mount = json!({"destination": "/x", "source": data, "options": ["bind"], "uidMappings": map, "gidMappings": map});
        let container = add_mount(container, mount);
        assert_eq!(container.output(), "1005 1006\n");
        // The root of the container is no user of the map, so what it makes has no owner to be given: refused.
        assert!(
            !data.join("new").exists() || std::fs::metadata(data.join("new")).unwrap().uid() != 0
        );
    }
}

#[test]
fn a_read_only_root_cannot_be_written_and_its_mounts_can() {
    for runtime in Runtime::all() {
        let script = "touch /file 2>/dev/null && echo wrote; touch /tmp/x && touch /dev/shm/x && echo mounts; grep -q ' / / ro' /proc/self/mountinfo; echo";
        let container =
            Container::new(runtime, script).with(|config| config["root"]["readonly"] = true.into());
        let container = add_mount(
            container,
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        );
        assert_eq!(container.output().trim(), "mounts", "{runtime:?}");
    }
}

#[test]
fn the_cgroup_mount_shows_the_container_only() {
    for runtime in Runtime::ours() {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]});
        for private in [false, true] {
            let script = "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null; touch /sys/fs/cgroup/x 2>/dev/null && echo writable";
            let container =
                add_mount(Container::new(runtime, script), mount.clone()).with(|config| {
                    if private {
                        config["linux"]["namespaces"]
                            .as_array_mut()
                            .unwrap()
                            .push(json!({"type": "cgroup"}));
                    }
                });
            let output = container.run();
            let shown = crate::harness::text(&output.stdout);
            // A mount of cgroup2 shows what the cgroup namespace has; without one of its own, as with runc, the host's,
            // whose processes have no number in the container.
            let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
            let first = if unified && !private { "0\n" } else { "1\n" };
            assert!(
                shown.starts_with(first) && !shown.contains("writable"),
                "private={private}: {output:?}"
            );
        }
    }
}

#[test]
fn a_link_in_the_image_leads_a_mount_nowhere_else() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "grep -c ' /outside ' /proc/self/mountinfo");
        symlink("/../../../../outside", container.inside("link")).unwrap();
        let mount = json!({"destination": "/link", "type": "tmpfs", "source": "tmpfs"});
        let container = add_mount(container, mount);
        assert_eq!(container.output(), "1\n", "{runtime:?}");
        assert!(!std::path::Path::new("/outside").exists());
        assert!(container.inside("outside").is_dir());
    }
}
