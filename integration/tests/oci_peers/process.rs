//! The container's process: how it ends, who it is, what it may do.

use serde_json::json;

use super::{on_each_host, same, same_output};
use integration::bundle::Bundle;
use integration::oci::Runtime;

#[test]
fn exit_code_and_both_streams_reach_the_caller() {
    for code in [0, 1, 7, 126, 255] {
        let outcomes = same(&format!("echo out; echo err >&2; exit {code}"), |_| {});
        for (_, ours) in outcomes {
            assert_eq!(
                (ours.code, ours.stdout.as_str(), ours.stderr.as_str()),
                (code, "out\n", "err\n")
            );
        }
    }
}

#[test]
fn a_signal_that_ends_the_process_is_128_and_its_number() {
    // A process cannot kill itself as pid 1 of its namespace; an illegal instruction of pid 1 is not asked.
    for (_, ours) in same("kill -TERM $$; exit 3", |config| {
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|n| n["type"] != "pid");
    }) {
        assert_eq!(ours.code, 128 + 15);
    }
}

#[test]
fn arguments_environment_and_directory_are_the_bundles() {
    let script = "pwd; echo \"$0|$1|$2\"; env | grep -v ^PWD= | grep -v ^SHLVL= | sort";
    for (_, ours) in same(script, |config| {
        let args = config["process"]["args"].as_array_mut().unwrap();
        args.extend([json!("zero"), json!("one two"), json!("")]);
        config["process"]["env"] = json!(["PATH=/bin", "B=last", "A=x=y", "EMPTY="]);
        config["process"]["cwd"] = json!("/data");
    }) {
        assert!(
            ours.stdout
                .starts_with("/data\nzero|one two|\nA=x=y\nB=last\nEMPTY=\n"),
            "{ours}"
        );
    }
}

#[test]
fn user_group_additional_groups_and_umask_are_the_bundles() {
    same_output(
        "id -u; id -g; id -G; umask; grep -c . /etc/passwd",
        "33\n1000\n1000 7 8\n0027\n2\n",
        |config| {
            config["process"]["user"] =
                json!({"uid": 33, "gid": 1000, "additionalGids": [7, 8], "umask": 0o27});
        },
    );
}

#[test]
fn the_home_directory_comes_from_the_containers_own_passwd() {
    same_output("echo $HOME", "/root\n", |_| {});
    same_output("echo $HOME", "/data\n", |config| {
        config["process"]["user"] = json!({"uid": 33, "gid": 33})
    });
}

#[test]
fn capabilities_are_the_bundles_and_no_others() {
    let script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status";
    let _defaults = same(script, |_| {});
    let _none = same(script, |config| {
        config["process"]["capabilities"] = json!({});
        config["process"]["noNewPrivileges"] = json!(false);
    });
    for (_, ours) in same(script, |config| {
        config["process"]["user"] = json!({"uid": 33, "gid": 33});
        let two = json!(["CAP_NET_ADMIN", "CAP_CHOWN"]);
        config["process"]["capabilities"] = json!({"bounding": two, "permitted": two, "effective": two, "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
    }) {
        assert!(
            ours.stdout.contains("CapBnd:\t0000000000001001\n"),
            "{ours}"
        );
        assert!(
            ours.stdout.contains("CapAmb:\t0000000000000001\n"),
            "{ours}"
        );
    }
}

#[test]
fn resource_limits_are_the_bundles() {
    same_output(
        "ulimit -Sn; ulimit -Hn; ulimit -Sc",
        "100\n200\n0\n",
        |config| {
            config["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ]);
        },
    );
}

#[test]
fn the_hostname_is_the_bundles_and_the_hosts_stays() {
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    same_output("hostname", "bundle\n", |_| {});
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        before
    );
}

#[test]
fn sysctls_are_set_in_the_containers_namespaces() {
    let script =
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    same_output(script, "80\n1\n", |config| {
        config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"});
    });
}

#[test]
fn the_process_is_pid_1_alone_with_three_descriptors() {
    // The shell expands both patterns itself; 3 is the directory that it reads while doing so.
    let script = "cd /proc; set -- [0-9]*; echo $$ $*; cd self/fd; set -- *; echo $*";
    for (_, ours) in same(script, |_| {}) {
        assert!(ours.stdout.starts_with("1 1\n0 1 2"), "{ours}");
    }
}

#[test]
fn loopback_is_there_and_nothing_else_in_a_new_network_namespace() {
    let _same = same(
        "cat /proc/net/dev | cut -d: -f1 | tail -n +3; cat /sys/class/net/lo/flags",
        |_| {},
    );
}

#[test]
fn a_missing_program_is_an_error_that_names_it_as_runc_does() {
    let _checked = on_each_host(|_, peer| {
        let bundle = Bundle::new(&["no-such-program"]);
        let (theirs, ours) = (peer.run(&bundle), Runtime::ours().run(&bundle));
        assert_eq!(ours.code, theirs.code, "{ours}\n{theirs}");
        // podman and moby look for these very words.
        assert!(ours.stderr.contains("no-such-program"), "{ours}");
        assert!(
            ours.stderr.contains("executable file not found in $PATH"),
            "{ours}"
        );
    });
}
