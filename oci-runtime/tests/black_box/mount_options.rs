//! Options beyond the plain attributes: links, filesystem parameters, id-mappings, the root as a destination.
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, text};

fn add_mount(container: Container, mount: Value) -> Container {
    container.with(|config| config["mounts"].as_array_mut().unwrap().push(mount))
}

fn add_namespace(container: Container, kind: &str) -> Container {
    let namespace = json!({"type": kind});
    container.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(namespace);
    })
}

/// A user namespace that maps the container's ids to those from 100000 on.
fn with_users(container: Container) -> Container {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    std::fs::set_permissions(
        container.bundle(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::os::unix::fs::chown(container.inside("/"), Some(100_000), Some(100_000)).unwrap();
    add_namespace(container, "user").with(|config| {
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })
}

/// A failing `run` and what it says.
fn refusal(container: &Container) -> String {
    let output = container.run();
    assert!(!output.status.success(), "{output:?}");
    container.assert_nothing_left();
    text(&output.stderr)
}

#[test]
fn every_superblock_option_is_taken_by_a_tmpfs() {
    for runtime in Runtime::all() {
        for option in [
            "sync",
            "dirsync",
            "mand",
            "silent",
            "loud",
            "iversion",
            "lazytime",
            "nomand",
            "acl",
            "async",
            "noiversion",
            "nolazytime",
            "noacl",
        ] {
            if runtime == Runtime::Runc
                && ["acl", "noacl", "lazytime", "nolazytime", "silent", "loud"].contains(&option)
            {
                // The installed release may not know them yet.
                continue;
            }
            let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option]});
            let script = "grep ' /x ' /proc/self/mountinfo";
            let shown = add_mount(Container::new(runtime, script), mount).output();
            let expected = ["sync", "dirsync", "lazytime", "mand"].contains(&option);
            let found = shown.trim().split([' ', ',']).any(|one| one == option);
            // Mandatory locks are gone from the kernel, the flag with them.
            assert!(
                found == expected || option == "mand",
                "{runtime:?} {option}: {shown}"
            );
        }
    }
}

#[test]
fn a_link_is_followed_copied_or_mounted_as_the_options_say() {
    let table: [&[&str]; 5] = [
        &["bind"],
        &["bind", "copy-symlink"],
        &["bind", "src-nofollow"],
        &["bind", "dest-nofollow"],
        &["bind", "src-nofollow", "dest-nofollow"],
    ];
    for runtime in Runtime::ours() {
        for options in table {
            let copies = options.contains(&"copy-symlink");
            let script =
                "readlink /target || echo no link; cat /target; echo; cat /elsewhere; true";
            let container = Container::new(runtime, script);
            let (data, link) = (
                container.bundle().join("data"),
                container.bundle().join("link"),
            );
            std::fs::write(&data, "content").unwrap();
            symlink("data", &link).unwrap();
            std::fs::write(container.inside("data"), "inside").unwrap();
            if !copies {
                symlink("elsewhere", container.inside("target")).unwrap();
            }
            let mount = json!({"destination": "/target", "source": link, "options": options});
            let container = add_mount(container, mount);
            let shown = text(&container.run().stdout);
            let lines: Vec<&str> = shown.lines().collect();
            let expected: &[&str] = match options {
                ["bind"] => &["elsewhere", "content", "content"],
                ["bind", "copy-symlink"] => &["data", "inside"],
                // The link itself lies over what the destination's link leads to, and leads on in the container.
                ["bind", "src-nofollow"] => &["elsewhere", "inside", "inside"],
                ["bind", "dest-nofollow"] => &["no link", "content"],
                _ => &["data", "inside"],
            };
            assert_eq!(lines, expected, "{options:?}");
        }
    }
}

#[test]
fn copy_symlink_leaves_what_is_there_already() {
    for runtime in Runtime::ours() {
        for (there, works) in [("data", true), ("other", false)] {
            let container = Container::new(runtime, "readlink /dir/target");
            let link = container.bundle().join("link");
            symlink("data", &link).unwrap();
            std::fs::create_dir(container.inside("dir")).unwrap();
            symlink(there, container.inside("dir/target")).unwrap();
            let mount = json!({"destination": "/dir/target", "source": link, "options": ["bind", "copy-symlink"]});
            let container = add_mount(container, mount);
            if works {
                assert_eq!(container.output(), "data\n");
            } else {
                let message = refusal(&container);
                assert!(message.contains("something other than a link"), "{message}");
            }
        }
    }
}

/// runc refuses it; crun takes it: <https://github.com/opencontainers/runc/issues/5070>.
#[test]
fn a_mount_over_the_root_becomes_the_root() {
    for runtime in Runtime::ours() {
        for propagation in ["", "shared"] {
            let container =
                Container::new(runtime, "cat /mark; ls /proc/self/status; touch /new; ls /");
            let other = container.bundle().join("other");
            std::fs::create_dir(&other).unwrap();
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .args([&container.inside("bin"), &other])
                .status();
            assert!(copied.unwrap().success());
            std::fs::write(other.join("mark"), "other\n").unwrap();
            let container = container.with(|config| {
                let mount = json!({"destination": "/", "source": other, "options": ["bind"]});
                config["mounts"].as_array_mut().unwrap().insert(0, mount);
                if !propagation.is_empty() {
                    config["linux"]["rootfsPropagation"] = propagation.into();
                }
            });
            assert_eq!(
                container.output(),
                "other\n/proc/self/status\nbin\ndev\nmark\nnew\nproc\nsys\n"
            );
            assert!(other.join("new").exists() && !container.inside("new").exists());
        }
    }
}

#[test]
fn a_tmpfs_over_the_root_with_tmpcopyup_is_a_throw_away_copy_of_it() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "touch /new && ls /new /etc/passwd; grep -c ' / / ' /proc/self/mountinfo")
            .with(|config| {
                let mount = json!({"destination": "/", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=64m"]});
                config["mounts"].as_array_mut().unwrap().insert(0, mount);
            });
        assert_eq!(container.output(), "/etc/passwd\n/new\n1\n");
        assert!(!container.inside("new").exists());
    }
}

#[test]
fn tmpcopyup_keeps_hard_links_and_attributes_and_follows_nothing() {
    for runtime in Runtime::ours() {
        let script = "test /x/a -ef /x/dir/b && echo same; stat -c %h /x/a; readlink /x/out";
        let container = Container::new(runtime, script);
        std::fs::create_dir_all(container.inside("x/dir")).unwrap();
        std::fs::write(container.inside("x/a"), "a").unwrap();
        std::fs::hard_link(container.inside("x/a"), container.inside("x/dir/b")).unwrap();
        symlink("/etc", container.inside("x/out")).unwrap();
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]});
        let container = add_mount(container, mount);
        assert_eq!(container.output(), "same\n2\n/etc\n");
    }
}

/// Longer than fsconfig(2) takes: an overlay of many layers.
#[test]
fn options_longer_than_a_value_of_the_mount_api_are_passed_in_one_text() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /x/file0 /x/file9");
        let mut lower = Vec::new();
        for number in 0..10 {
            let dir = container
                .bundle()
                .join(format!("layer-with-quite-a-long-name-{number}"));
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join(format!("file{number}")), format!("{number}\n")).unwrap();
            lower.push(dir.to_str().unwrap().to_owned());
        }
        let lower = format!("lowerdir={}", lower.join(":"));
        assert!(lower.len() > 255);
        let mount = json!({"destination": "/x", "type": "overlay", "source": "overlay", "options": ["ro", lower]});
        let container = add_mount(container, mount);
        assert_eq!(container.output(), "0\n9\n", "{runtime:?}");
    }
    for runtime in Runtime::ours() {
        let long = format!("lowerdir={}", "/x".repeat(3000));
        let mount =
            json!({"destination": "/x", "type": "overlay", "source": "overlay", "options": [long]});
        let message = refusal(&add_mount(Container::new(runtime, "true"), mount));
        assert!(
            message.contains("mounts[5]") && message.contains("the kernel takes 4095"),
            "{message}"
        );
    }
}

#[test]
fn remount_changes_the_filesystem_and_the_mount() {
    for runtime in Runtime::all() {
        let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 6-";
        let make = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]});
        let change = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "size=128k", "noexec"]});
        let container = add_mount(Container::new(runtime, script), make);
        let shown = add_mount(container, change).output();
        assert!(
            shown.contains("noexec") && shown.contains("size=128k"),
            "{runtime:?}: {shown}"
        );
    }
}

#[test]
fn a_mount_has_the_propagation_of_its_last_words() {
    for runtime in Runtime::all() {
        let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 7";
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["rslave", "shared", "rshared"]});
        let shown = add_mount(Container::new(runtime, script), mount).output();
        assert!(shown.starts_with("shared:"), "{runtime:?}: {shown}");
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["unbindable"]});
        let shown = add_mount(Container::new(runtime, script), mount).output();
        assert!(shown.starts_with("unbindable"), "{runtime:?}: {shown}");
    }
}

/// What the host's mount does not allow, a container with users of its own cannot have: asking for it is an error, and
/// what is not asked for stays.
#[test]
fn the_flags_of_the_hosts_mount_stay_locked_for_the_users_of_a_container() {
    for runtime in Runtime::ours() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::set_permissions(
            outside.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let context = sys::mount::FsContext::open("tmpfs").unwrap();
        let flags = sys::mount::MountAttr::MOUNT_ATTR_NOSUID
            | sys::mount::MountAttr::MOUNT_ATTR_NODEV
            | sys::mount::MountAttr::MOUNT_ATTR_NOATIME;
        let made = context.mount(flags).unwrap();
        sys::mount::attach(&made, outside.path()).unwrap();
        let script = "grep ' /x ' /proc/self/mountinfo | cut -d ' ' -f 6";
        let with = |options: &[&str]| {
            let mount = json!({"destination": "/x", "source": outside.path(), "options": options});
            with_users(add_mount(Container::new(runtime, script), mount))
        };
        let shown = with(&["bind", "ro"]).output();
        let message = refusal(&with(&["bind", "suid"]));
        let recursive = refusal(&with(&["rbind", "rdev"]));
        sys::mount::unmount_detach(outside.path()).unwrap();
        assert_eq!(shown.trim(), "ro,nosuid,nodev,noatime");
        assert!(
            message.contains("mounts[5] at \"/x\"") && message.contains("EPERM"),
            "{message}"
        );
        assert!(
            message.contains("a user namespace locks the flags"),
            "{message}"
        );
        assert!(recursive.contains("EPERM"), "{recursive}");
    }
}

#[test]
fn an_id_mapped_mount_takes_the_maps_of_the_option() {
    for runtime in Runtime::ours() {
        let script = "stat -c '%u %g' /x/file";
        let with = |option: &str, users: bool| {
            let container = Container::new(runtime, script);
            let data = container.bundle().join("data");
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join("file"), "").unwrap();
            std::os::unix::fs::chown(data.join("file"), Some(5), Some(6)).unwrap();
            let mount = json!({"destination": "/x", "source": data, "options": ["bind", option]});
            let container = add_mount(container, mount);
            if users {
                with_users(container).output()
            } else {
                container.output()
            }
        };
        assert_eq!(
            with("idmap=uids=0-1000-100;gids=0-2000-100", false),
            "1005 2006\n"
        );
        assert_eq!(
            with("ridmap=uids=5-70-1#6-90-1;gids=6-80-1", false),
            "70 80\n"
        );
        // On disk as 5, in the container as 5: the container's own maps are applied.
        assert_eq!(with("idmap", true), "5 6\n");
        assert_eq!(with("idmap=uids=@5-7-1;gids=@6-8-1", true), "7 8\n");
        assert_eq!(with("idmap=uids=5-100009-1;gids=6-100008-1", true), "9 8\n");
    }
}

#[test]
fn an_id_mapped_mount_takes_the_maps_of_the_namespace_that_is_joined() {
    for runtime in Runtime::ours() {
        let first = with_users(Container::new(runtime, "sleep 1000"));
        first.start();
        let path = format!("/proc/{}/ns/user", first.pid());
        let container = Container::new(runtime, "stat -c '%u %g' /x/file");
        std::fs::create_dir(container.inside("x")).unwrap();
        let container = container.with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user", "path": path}));
        });
        std::fs::set_permissions(
            container.bundle(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let data = container.bundle().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "").unwrap();
        std::os::unix::fs::chown(data.join("file"), Some(5), Some(6)).unwrap();
        let mount = json!({"destination": "/x", "source": data, "options": ["bind", "idmap"]});
        assert_eq!(add_mount(container, mount).output(), "5 6\n");
    }
}

#[test]
fn an_id_mapping_that_cannot_be_says_why() {
    for runtime in Runtime::ours() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        let mount = |source: &str| {
            let mount = json!({"destination": "/x", "source": source, "options": ["bind"], "uidMappings": map, "gidMappings": map});
            add_mount(Container::new(runtime, "true"), mount)
        };
        let message = refusal(&mount("/sys/kernel"));
        assert!(
            message.contains("mounts[5] at \"/x\"") && message.contains("EINVAL"),
            "{message}"
        );
        assert!(
            message.contains("does not support id-mapped mounts"),
            "{message}"
        );
    }
}

/// What the container's users may not reach is opened by who runs the container, as runc does.
#[test]
fn a_source_that_is_closed_to_the_users_of_the_container_is_mounted_nonetheless() {
    for runtime in Runtime::ours() {
        let container = with_users(Container::new(runtime, "cat /x/file; touch /x/new"));
        let closed = container.bundle().join("closed");
        std::fs::create_dir_all(closed.join("data")).unwrap();
        std::fs::write(closed.join("data/file"), "here\n").unwrap();
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let mount =
            json!({"destination": "/x", "source": closed.join("data"), "options": ["bind"]});
        let container = add_mount(container, mount);
        let output = container.run();
        assert_eq!(text(&output.stdout), "here\n", "{output:?}");
        assert!(!closed.join("data/new").exists(), "but not written by them");
    }
}

/// The directory of the test's bundle is closed to everybody but root.
#[test]
fn a_root_filesystem_in_a_closed_directory_serves_users_of_the_container() {
    for runtime in Runtime::ours() {
        let container = with_users(Container::new(
            runtime,
            "touch /new && stat -c %u /new; pwd",
        ));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(container.bundle(), mode).unwrap();
        assert_eq!(container.output(), "0\n/\n");
    }
}

#[test]
fn procfs_takes_its_own_options() {
    for runtime in Runtime::ours() {
        let shown = Container::new(
            runtime,
            "ls /proc | grep -c -E '^(meminfo|cpuinfo|sys)$'; grep ' /proc ' /proc/self/mountinfo",
        )
        .with(|config| {
            config["mounts"][0]["options"] =
                json!(["subset=pid", "hidepid=2", "nosuid", "noexec", "nodev"]);
        })
        .output();
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some("0"), "{shown}");
        let mount = lines.next().unwrap();
        assert!(
            mount.contains("subset=pid") && mount.contains("hidepid="),
            "{mount}"
        );
    }
}

#[test]
fn message_queues_are_those_of_the_container() {
    for runtime in Runtime::all() {
        let mount = json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]});
        let script = "touch /dev/mqueue/one && ls /dev/mqueue";
        let container = add_mount(Container::new(runtime, script), mount);
        assert_eq!(container.output(), "one\n", "{runtime:?}");
        let container = with_users(container);
        if runtime == Runtime::Davit {
            assert_eq!(container.output(), "one\n");
        }
    }
}

#[test]
fn sysfs_is_the_hosts_where_the_network_is() {
    for runtime in Runtime::ours() {
        let script = "ls -d /sys/class/net/lo && touch /sys/x 2>/dev/null; grep -c ' /sys ' /proc/self/mountinfo; \
                      grep ' /sys' /proc/self/mountinfo | cut -d ' ' -f 6 | cut -d , -f 1-4 | sort -u";
        let container = with_users(Container::new(runtime, script)).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
        });
        assert_eq!(
            container.output(),
            "/sys/class/net/lo\n1\nro,nosuid,nodev,noexec\n"
        );
    }
}

#[test]
fn masked_directories_are_one_empty_read_only_filesystem() {
    for runtime in Runtime::ours() {
        let script = "ls /a /b | grep -c x; stat -c %d /a /b | sort -u | wc -l; touch /a/y 2>/dev/null || echo read-only; cat /c";
        let container = Container::new(runtime, script);
        for dir in ["a", "b"] {
            std::fs::create_dir(container.inside(dir)).unwrap();
            std::fs::write(container.inside(&format!("{dir}/x")), "x").unwrap();
        }
        std::fs::write(container.inside("c"), "c").unwrap();
        let container = container.with(|config| {
            config["linux"]["maskedPaths"] =
                json!(["/a", "/b", "/a", "/c", "/c", "/missing", "/c/below"]);
        });
        let output = container.run();
        let shown = text(&output.stdout);
        assert_eq!(shown, "0\n1\nread-only\n", "{output:?}");
    }
}

#[test]
fn a_relative_destination_is_warned_about() {
    for runtime in Runtime::ours() {
        let mount = json!({"destination": "x", "type": "tmpfs", "source": "tmpfs"});
        let container = add_mount(Container::new(runtime, "true"), mount);
        container.write_config();
        let log = container.bundle().join("log");
        let args = [
            "--debug",
            "--log",
            log.to_str().unwrap(),
            "run",
            &container.id,
        ];
        container.must(&args);
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("mounts[5].destination: \\\"x\\\" is not absolute"),
            "{log}"
        );
    }
}

/// The unified view of the hybrid host: without a cgroup namespace only the container's own directory is shown, and
/// read-only for users of its own (CVE-2023-25809).
#[test]
fn cgroups_of_a_container_with_its_own_users_are_read_only() {
    for runtime in Runtime::ours() {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev"]});
        let script = "for f in $(find_procs); do echo 1 > $f && echo written; done 2>/dev/null; cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | sort -u";
        let script = format!(
            "find_procs() {{ ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; }}; {script}"
        );
        let container = with_users(add_mount(Container::new(runtime, &script), mount));
        let output = container.run();
        let shown = text(&output.stdout);
        assert!(
            !shown.contains("written") && shown.contains("1\n"),
            "{output:?}"
        );
    }
}

#[test]
fn devices_have_their_kind_mode_and_owner() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "stat -c '%F %a %u %g %t:%T' /dev/c /dev/u /dev/b /dev/p").with(|config| {
            config["linux"]["devices"] = json!([
                {"path": "/dev/c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
                {"path": "/dev/u", "type": "u", "major": 1, "minor": 5, "fileMode": 0o666},
                {"path": "/dev/b", "type": "b", "major": 7, "minor": 1, "fileMode": 0o600},
                {"path": "/dev/p", "type": "p", "fileMode": 0o622, "uid": 1},
            ]);
        });
        let shown = container.output();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "character special file 640 5 6 1:3",
                "character special file 666 0 0 1:5",
                "block special file 600 0 0 7:1",
                "fifo 622 1 0 0:0",
            ],
            "{runtime:?}"
        );
    }
}

#[test]
fn a_bind_mount_at_dev_is_left_as_it_is() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "ls /dev");
        let dev = container.bundle().join("dev");
        std::fs::create_dir(&dev).unwrap();
        std::fs::write(dev.join("only"), "").unwrap();
        let (null, name) = (sys::fs::Node::Char(1, 3), std::ffi::OsStr::new("null"));
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        sys::fs::mknod(std::fs::File::open(&dev).unwrap(), name, null, mode).unwrap();
        let container = container.with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            mounts.push(
                json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}),
            );
        });
        assert_eq!(container.output(), "null\nonly\n", "{runtime:?}");
    }
}

#[test]
fn without_pivot_the_root_is_moved_and_nothing_of_the_host_is_seen() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "ls /; cut -d ' ' -f 5 /proc/self/mountinfo | sort | head -2",
        );
        container.write_config();
        let shown = text(
            &container
                .command(&["run", "--no-pivot", &container.id])
                .output()
                .unwrap()
                .stdout,
        );
        assert_eq!(
            shown, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n/\n/dev\n",
            "{runtime:?}"
        );
    }
}

/// What LXCFS does; every other file of procfs stays the kernel's.
#[test]
fn some_files_of_procfs_may_be_covered() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /proc/meminfo /proc/uptime");
        let mut config = container.config.clone();
        for name in ["meminfo", "uptime"] {
            let source = container.bundle().join(name);
            std::fs::write(&source, format!("{name} of ours\n")).unwrap();
            let mount = json!({"destination": format!("/proc/{name}"), "type": "bind", "source": source, "options": ["bind"]});
            config["mounts"].as_array_mut().unwrap().push(mount);
        }
        let container = container.with(|old| *old = config);
        assert_eq!(
            container.output(),
            "meminfo of ours\nuptime of ours\n",
            "{runtime:?}"
        );
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        std::fs::write(container.bundle().join("x"), "").unwrap();
        let mount =
            json!({"destination": "/proc/self/attr/exec", "source": "x", "options": ["bind"]});
        let message = refusal(&add_mount(container, mount));
        assert!(message.contains("is inside /proc"), "{message}");
    }
}

#[test]
fn a_source_that_is_id_mapped_already_is_refused_with_that_reason() {
    for runtime in Runtime::ours() {
        let first = with_users(Container::new(runtime, "sleep 1000"));
        first.start();
        let users = format!("/proc/{}/ns/user", first.pid());
        let users = std::fs::File::open(users).unwrap();
        let container = Container::new(runtime, "true");
        let data = container.bundle().join("data");
        std::fs::create_dir(&data).unwrap();
        let flags = sys::mount::OpenTree::OPEN_TREE_CLONE;
        let tree = sys::mount::open_tree(nix::fcntl::AT_FDCWD, &data, flags).unwrap();
        let change = sys::mount::MountAttrs {
            idmap: Some(std::os::fd::AsFd::as_fd(&users)),
            ..Default::default()
        };
        sys::mount::mount_setattr(&tree, change).unwrap();
        sys::mount::attach(&tree, &data).unwrap();
        let mount = json!({"destination": "/x", "source": data, "options": ["bind", "idmap=uids=0-1-1;gids=0-1-1"]});
        let container = add_mount(container, mount);
        let output = container.run();
        sys::mount::unmount_detach(&data).unwrap();
        let message = text(&output.stderr);
        assert!(!output.status.success(), "{output:?}");
        assert!(
            message.contains("EPERM") && message.contains("is id-mapped already"),
            "{message}"
        );
    }
}

#[test]
fn tmpcopyup_keeps_extended_attributes() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        std::fs::create_dir(container.inside("x")).unwrap();
        std::fs::write(container.inside("x/file"), "").unwrap();
        let file = std::fs::File::open(container.inside("x/file")).unwrap();
        let key = c"trusted.davit";
        sys::fs::set_xattr(&file, key, b"kept").unwrap();
        let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]});
        let container = add_mount(container, mount);
        container.start();
        let inside = format!("/proc/{}/root/x/file", container.pid());
        let copy = std::fs::File::open(inside).unwrap();
        assert_eq!(
            sys::fs::get_xattr(&copy, key).unwrap().as_deref(),
            Some(b"kept".as_slice())
        );
    }
}
