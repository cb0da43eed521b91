//! Who and what the program is: ids, groups, umask, capabilities, limits, directories, environment, names, terminal.
use serde_json::json;

use crate::harness::{Container, Runtime, eventually, text};

/// The caller's /dev/null is a file of the host.
#[test]
fn a_null_device_of_the_host_becomes_the_containers_own() {
    let script = "for fd in 0 1 2; do test $(stat -L -c %d:%i /proc/$$/fd/$fd) = $(stat -c %d:%i /dev/null) || echo $fd >> /other; done; \
                  echo x > /dev/stdout && echo x > /dev/stderr && touch /end; cat";
    for runtime in Runtime::all() {
        let container = Container::new(runtime, script);
        container.write_config();
        // In the foreground runc puts pipes of its own in between.
        let mut command = container.command(&["run", "--detach", &container.id]);
        let null = std::process::Stdio::null;
        let status = command.stdin(null()).stdout(null()).stderr(null()).status();
        assert!(status.unwrap().success(), "{runtime:?}");
        eventually("it has ended", || container.status() == "stopped");
        assert!(container.inside("/end").exists(), "{runtime:?}");
        assert!(!container.inside("/other").exists(), "{runtime:?}");
    }
}

/// Nor does an image that has something else there get it in place of what the caller gave.
#[test]
fn a_file_that_only_has_the_name_of_the_null_device_is_left_alone() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cat; stat -L -c %t:%T /proc/self/fd/0 > /seen").with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            mounts.push(serde_json::json!({"destination": "/dev", "type": "bind", "source": "dev", "options": ["bind"]}));
        });
        std::fs::create_dir(container.bundle().join("dev")).unwrap();
        std::fs::write(container.bundle().join("dev/null"), "of the image").unwrap();
        container.output();
        assert_eq!(
            std::fs::read_to_string(container.inside("/seen")).unwrap(),
            "1:3\n"
        );
    }
}

#[test]
fn ids_groups_and_umask_are_those_of_the_configuration() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "id -u; id -g; id -G; umask; touch /tmp/f; stat -c '%a %u %g' /tmp/f",
        );
        std::fs::set_permissions(
            container.inside("tmp"),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        let container = container.with(|config| {
            config["process"]["user"] =
                json!({"uid": 33, "gid": 44, "umask": 0o27, "additionalGids": [5, 6]});
        });
        assert_eq!(
            container.output(),
            "33\n44\n44 5 6\n0027\n640 33 44\n",
            "{runtime:?}"
        );
    }
}

#[test]
fn capabilities_are_exactly_those_of_the_five_sets() {
    for runtime in Runtime::all() {
        let container =
            Container::new(runtime, "grep Cap /proc/self/status | cut -f 2").with(|config| {
                config["process"]["capabilities"] = json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "permitted": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                    "effective": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                    "inheritable": ["CAP_NET_BIND_SERVICE"],
                    "ambient": ["CAP_NET_BIND_SERVICE"]
                });
                config["process"]["user"] = json!({"uid": 33, "gid": 33});
            });
        let shown = container.output();
        // As uid 33 only the ambient ones outlast execve; the bounding set is what was asked for.
        let expected = [
            "0000000000000400",
            "0000000000000400",
            "0000000000000400",
            "0000000000000421",
            "0000000000000400",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{runtime:?}");
    }
}

#[test]
fn without_capabilities_none_is_kept() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "grep Cap /proc/self/status | cut -f 2 | sort -u")
            .with(|config| {
                config["process"]
                    .as_object_mut()
                    .unwrap()
                    .remove("capabilities");
            });
        assert_eq!(container.output(), "0000000000000000\n", "{runtime:?}");
    }
}

#[test]
fn an_unknown_capability_is_ignored_with_a_warning() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_FUTURE"]);
        });
        let output = container.run();
        assert!(output.status.success());
        assert!(text(&output.stderr).contains("CAP_FUTURE"), "{output:?}");
    }
}

#[test]
fn limits_are_set_also_for_another_user() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "grep -E 'open files|core file|stack' /proc/self/limits",
        )
        .with(|config| {
            config["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 1u64 << 40}
            ]);
        });
        let container = container.with(|config| {
            let limits = config["process"]["rlimits"].as_array_mut().unwrap();
            limits.pop();
        });
        let shown = container.output();
        let fields = |name: &str| {
            let line = shown.lines().find(|line| line.contains(name)).unwrap();
            line.split_whitespace()
                .filter_map(|field| field.parse::<u64>().ok())
                .collect::<Vec<_>>()
        };
        assert_eq!(fields("open files"), [100, 200], "{runtime:?}");
        assert_eq!(fields("core file"), [0, 0], "{runtime:?}");
    }
    for runtime in Runtime::ours() {
        let container =
            Container::new(runtime, "grep -E 'open files' /proc/self/limits").with(|config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
                config["process"]["user"] = json!({"uid": 33, "gid": 33});
            });
        assert!(container.output().contains("100"), "limits of another user");
    }
}

#[test]
fn no_new_privileges_is_what_its_value_says() {
    for runtime in Runtime::all() {
        for on in [true, false] {
            let container = Container::new(runtime, "grep NoNewPrivs /proc/self/status | cut -f 2")
                .with(|config| config["process"]["noNewPrivileges"] = on.into());
            assert_eq!(
                container.output().trim(),
                if on { "1" } else { "0" },
                "{runtime:?}"
            );
        }
    }
}

#[test]
fn a_missing_working_directory_is_made() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "pwd")
            .with(|config| config["process"]["cwd"] = "/new/dir".into());
        assert_eq!(container.output(), "/new/dir\n");
    }
}

#[test]
fn home_comes_from_the_image_unless_it_is_set() {
    for runtime in Runtime::all() {
        let home = |uid: u32, env: &[&str]| {
            Container::new(runtime, "echo $HOME")
                .with(|config| {
                    config["process"]["user"] = json!({"uid": uid, "gid": 0});
                    config["process"]["env"] = json!(env);
                })
                .output()
        };
        assert_eq!(home(33, &["PATH=/bin"]), "/srv\n", "{runtime:?}");
        assert_eq!(home(77, &["PATH=/bin"]), "/\n", "{runtime:?}");
        assert_eq!(
            home(33, &["PATH=/bin", "HOME=/mine"]),
            "/mine\n",
            "{runtime:?}"
        );
    }
}

#[test]
fn hostname_and_domainname_are_set() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "hostname; cat /proc/sys/kernel/hostname")
            .with(|config| config["hostname"] = "boat".into());
        assert_eq!(container.output(), "boat\nboat\n");
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "cat /proc/sys/kernel/domainname")
            .with(|config| config["domainname"] = "sea".into());
        assert_eq!(container.output(), "sea\n");
    }
}

#[test]
fn loopback_is_up_in_a_new_network_namespace_and_untouched_elsewhere() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /sys/class/net/lo/flags");
        assert_eq!(container.output(), "0x9\n", "{runtime:?}");

        // Its caller's network, where nobody brought the interface up.
        let container = container.with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
        });
        container.write_config();
        let run = container.command(&["run", &container.id]);
        let output = std::process::Command::new("unshare")
            .arg("--net")
            .arg(run.get_program())
            .args(run.get_args())
            .current_dir(container.bundle())
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "0x8\n", "{runtime:?}: {output:?}");
    }
}

#[test]
fn kernel_parameters_are_those_of_the_container() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
        )
        .with(|config| {
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "123"});
            config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        });
        assert_eq!(container.output(), "1\n123\n", "{runtime:?}");
    }
}

#[test]
fn the_program_gets_no_descriptor_but_its_own() {
    for runtime in Runtime::all() {
        // 3 is the directory that ls reads.
        let container = Container::new(runtime, "ls /proc/self/fd | sort -n | tail -1");
        container.write_config();
        let shown = inherit(
            &container,
            "exec 7</etc/passwd 9</etc; exec",
            &["run", &container.id],
        );
        assert_eq!(shown.trim(), "3", "{runtime:?}");
    }
}

#[test]
fn preserved_descriptors_keep_their_numbers() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "cat <&3; cat <&4; ls /proc/self/fd | sort -n | tail -1",
        );
        container.write_config();
        for name in ["a", "b"] {
            std::fs::write(container.bundle().join(name), format!("{name}\n")).unwrap();
        }
        let shown = inherit(
            &container,
            "exec 3<a 4<b 5<a; exec",
            &["run", "--preserve-fds", "2", &container.id],
        );
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[..2], ["a", "b"], "{runtime:?}");
    }
}

#[test]
fn listen_fds_are_passed_with_the_new_process_id() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "echo $LISTEN_FDS $LISTEN_PID; cat <&3");
        container.write_config();
        std::fs::write(container.bundle().join("a"), "a\n").unwrap();
        let shown = inherit(
            &container,
            "exec 3<a; export LISTEN_FDS=1 LISTEN_PID=$$; exec",
            &["run", &container.id],
        );
        assert_eq!(shown, "1 1\na\n");
    }
}

/// Runs the runtime from a shell that opens descriptors first.
fn inherit(container: &Container, before: &str, args: &[&str]) -> String {
    let state = container.state_root();
    let line = format!(
        "{before} {} --root {} {}",
        container.runtime.program(),
        state.display(),
        args.join(" ")
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(container.bundle())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn signals_start_out_unblocked_and_not_ignored() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f 2",
        );
        container.write_config();
        let shown = inherit(
            &container,
            "trap '' PIPE USR1 HUP; exec",
            &["run", &container.id],
        );
        // runc keeps what its caller ignored; a program should not have to know who started it.
        let first = shown.lines().next().unwrap();
        assert_eq!(first, "0000000000000000", "{runtime:?}");
        if runtime == Runtime::Davit {
            assert_eq!(shown, "0000000000000000\n0000000000000000\n");
        }
    }
}

#[test]
fn a_terminal_is_sent_over_the_console_socket() {
    for runtime in Runtime::all() {
        let container = Container::new(
            runtime,
            "tty; stty size; cat /proc/self/stat | cut -d ' ' -f 7",
        )
        .with(|config| {
            config["process"]["terminal"] = true.into();
            config["process"]["consoleSize"] = json!({"height": 33, "width": 101});
        });
        container.write_config();
        let path = container.bundle().join("console.sock");
        let listener = sys::socket::listen(&path, sys::socket::Kind::Stream).unwrap();
        container.must(&[
            "create",
            "--console-socket",
            path.to_str().unwrap(),
            &container.id,
        ]);
        let connection = sys::socket::accept(&listener).unwrap().unwrap();
        let mut name = [0_u8; 64];
        let received = sys::socket::receive(&connection, &mut name).unwrap();
        assert_eq!(received.fds.len(), 1, "exactly one descriptor");
        container.must(&["start", &container.id]);
        let mut shown = Vec::new();
        let mut chunk = [0_u8; 256];
        // A pseudo-terminal ends with EIO once the last program has closed it.
        while let Ok(count @ 1..) = sys::fd::read(&received.fds[0], &mut chunk) {
            shown.extend_from_slice(&chunk[..count]);
        }
        let shown = text(&shown);
        let lines: Vec<&str> = shown.lines().map(str::trim).collect();
        assert!(
            lines[0] == "/dev/pts/0" || lines[0] == "/dev/console",
            "{runtime:?}: {shown}"
        );
        assert_eq!(lines[1], "33 101", "{runtime:?}");
        assert_ne!(lines[2], "0", "it is the controlling terminal");
    }
}

#[test]
fn scheduling_and_personality_are_set() {
    for runtime in Runtime::ours() {
        let container = Container::new(
            runtime,
            "cut -d ' ' -f 19,41 /proc/self/stat; cat /proc/self/personality",
        )
        .with(|config| {
            config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
            config["linux"]["personality"] = json!({"domain": "LINUX32"});
        });
        assert_eq!(container.output(), "5 3\n00000008\n");
    }
}

#[test]
fn oom_score_adj_is_set() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "cat /proc/self/oom_score_adj")
            .with(|config| config["process"]["oomScoreAdj"] = 777.into());
        assert_eq!(container.output(), "777\n");
    }
}

/// A limit on the size of files is for the program, not for what the runtime writes on its way.
#[test]
fn a_program_may_be_forbidden_to_write_files() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "ulimit -f; exit 3").with(|config| {
            config["process"]["rlimits"] = json!([{"type": "RLIMIT_FSIZE", "hard": 0, "soft": 0}]);
        });
        let output = container.run();
        assert_eq!(
            (output.status.code(), text(&output.stdout).trim()),
            (Some(3), "0"),
            "{output:?}"
        );
        container.assert_nothing_left();
    }
}
