//! The container's file system: mounts, devices, what is masked and what is read-only.

use serde_json::{Value, json};

use super::{on_each_host, same, same_output};
use integration::bundle::{self, Bundle};
use integration::oci::Runtime;

/// Mount point, options and type of every mount but those that show cgroups and masks, which differ in kind.
const MOUNTS: &str = "sed -E 's/^([^ ]+ ){4}([^ ]+) ([^ ]+) .*- ([^ ]+) .*/\\2 \\4 \\3/' /proc/self/mountinfo \
    | grep -vE '^(/sys/fs/cgroup|/proc/.+|/sys/.+) ' | sort";

fn add_mounts(config: &mut Value, mounts: &[Value]) {
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .extend_from_slice(mounts);
}

#[test]
fn the_default_mounts_have_the_same_options() {
    for (_, ours) in same(MOUNTS, |_| {}) {
        assert_eq!(ours.stdout.lines().count(), 7, "{ours}");
    }
}

#[test]
fn a_read_only_root_takes_no_file_and_a_writable_one_does() {
    for (_, ours) in same("echo x > /new 2>/dev/null; echo $?; cat /new", |_| {}) {
        assert!(ours.stdout.starts_with("1\n"), "{ours}");
    }
    same_output("echo x > /new; cat /new; rm /new", "x\n", |config| {
        config["root"]["readonly"] = json!(false)
    });
}

#[test]
fn bind_mounts_show_the_source_with_the_options_asked_for() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("file"), "content").unwrap();
    let bind = |destination: &str, source: &std::path::Path, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    let script =
        format!("cat /data/file /data2/file /etc/one; echo x > /data/file; echo $?; {MOUNTS}");
    for (_, ours) in same(&script, |config| {
        config["root"]["readonly"] = json!(false);
        let mounts = [
            bind("/data", source.path(), &["rbind", "ro", "nosuid"]),
            bind("/data2", source.path(), &["bind", "rw", "nodev", "noexec"]),
            bind("/etc/one", &source.path().join("file"), &["bind", "ro"]),
        ];
        add_mounts(config, &mounts);
    }) {
        assert!(
            ours.stdout.starts_with("contentcontentcontent1\n"),
            "{ours}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(source.path().join("file")).unwrap(),
        "content"
    );
}

#[test]
fn tmpfs_mounts_have_mode_size_and_flags() {
    let script = format!("stat -c '%a %u' /new; touch /new/x && echo writable; {MOUNTS}");
    for (_, ours) in same(&script, |config| {
        config["root"]["readonly"] = json!(false);
        add_mounts(
            config,
            &[bundle::mount(
                "/new",
                "tmpfs",
                &["nosuid", "nodev", "noexec", "mode=1770", "size=1m"],
            )],
        );
    }) {
        assert!(ours.stdout.starts_with("1770 0\nwritable\n"), "{ours}");
    }
}

#[test]
fn a_mount_through_a_symlink_makes_nothing_outside_of_the_root() {
    let _checked = on_each_host(|cgroups, peer| {
        let outside = tempfile::tempdir().unwrap();
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("link")).unwrap();
        let bundle = Bundle::changed(&["/bin/true"], |config| {
            config["root"]["readonly"] = json!(false);
            let volume = json!({"destination": "/data", "type": "bind", "source": volume.path(), "options": ["bind"]});
            add_mounts(
                config,
                &[volume, bundle::mount("/data/link/inside", "tmpfs", &[])],
            );
        });
        for runtime in [peer, &Runtime::ours()] {
            // crun refuses, runc mounts below the same path inside of the root; either is safe.
            let outcome = runtime.run(&bundle);
            let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
            assert!(
                left.is_empty(),
                "{} on {}: {outcome}",
                runtime.name(),
                cgroups.name()
            );
        }
    });
}

#[test]
fn masked_paths_show_nothing_and_read_only_paths_take_nothing() {
    let script = "cat /proc/kcore | head -c 9 | wc -c; ls /sys/firmware | wc -l; \
        echo x > /proc/sys/kernel/domainname; echo $?; cat /etc/masked | wc -c; ls /tmp/masked | wc -l";
    for (_, ours) in same(script, |config| {
        config["linux"]["maskedPaths"]
            .as_array_mut()
            .unwrap()
            .extend([json!("/etc/passwd"), json!("/no/such/path")]);
        config["linux"]["readonlyPaths"]
            .as_array_mut()
            .unwrap()
            .push(json!("/no/such/path"));
    }) {
        assert!(ours.stdout.starts_with("0\n0\n1\n"), "{ours}");
    }
    same_output(
        "cat /etc/passwd | wc -c; ls /data | wc -l",
        "0\n0\n",
        |config| {
            config["linux"]["maskedPaths"]
                .as_array_mut()
                .unwrap()
                .extend([json!("/etc/passwd"), json!("/data")]);
        },
    );
}

#[test]
fn dev_has_the_default_devices_and_links() {
    let script = "cd /dev; for f in $(ls | grep -v core | sort); do [ -L $f ] && readlink $f; stat -c '%n %F %t:%T %a %u:%g' $f; done";
    for (_, ours) in same(script, |_| {}) {
        for line in [
            "null character special file 1:3 666 0:0",
            "tty character special file 5:0 666 0:0",
            "pts/ptmx",
        ] {
            assert!(ours.stdout.contains(line), "{line}: {ours}");
        }
    }
}

#[test]
fn a_device_of_the_bundle_has_its_numbers_mode_and_owner_and_can_be_opened_if_a_rule_allows_it() {
    // 10:229 is fuse, which is not among the devices that every container may use.
    let script = "stat -c '%F %t:%T %a %u:%g' /dev/mine; (exec 3< /dev/mine) 2>/dev/null && echo opened; echo end";
    let with = |config: &mut Value, allowed: bool| {
        config["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 33, "gid": 7}]);
        // root without CAP_DAC_OVERRIDE would need the mode's permission, too.
        config["process"]["user"] = json!({"uid": 33, "gid": 7});
        let rule = json!({"allow": allowed, "type": "c", "major": 10, "minor": 229, "access": "r"});
        config["linux"]["resources"]["devices"]
            .as_array_mut()
            .unwrap()
            .push(rule);
    };
    let node = "character special file a:e5 640 33:7\n";
    same_output(script, &format!("{node}opened\nend\n"), |config| {
        with(config, true)
    });
    same_output(script, &format!("{node}end\n"), |config| {
        with(config, false)
    });
}

#[test]
fn cgroups_are_shown_and_cannot_be_changed() {
    // On v2 the directory is the cgroup, on v1 it holds one for each hierarchy.
    let script = "cd /sys/fs/cgroup; [ -e cgroup.procs ] || cd memory; ls cgroup.procs; mkdir x 2>/dev/null; echo $?";
    for (cgroups, ours) in same(script, |_| {}) {
        assert!(
            ours.stdout == "cgroup.procs\n1\n",
            "on {}: {ours}",
            cgroups.name()
        );
    }
}
