//! The security context of pods and containers, as a kubelet asks for it: seccomp profiles and user namespaces.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::os::unix::fs::MetadataExt;

use integration::bin;
use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::node::{Node, Options};
use serde_json::{Value, json};

const IMAGE: &str = "davit.test/busybox:1";

/// The first id on the host of the pods' user namespaces.
const OUTSIDE: u32 = 200_000;

fn node() -> Node {
    let runc = bin::genuine("runc").unwrap_or_default();
    let node = Node::start_with(Options {
        config: format!("[runtimes.runc]\npath = {:?}\n", runc.display().to_string()),
        ..Options::default()
    });
    node.import(
        &TestImage::busybox().with_config("WorkingDir", json!("/new/work")),
        IMAGE,
    );
    node
}

/// What `script` logs in a container with this security context, in `pod`.
fn logged(
    node: &Node,
    name: &str,
    script: &str,
    security: Value,
    in_pod: (&str, &Value),
) -> String {
    let crictl = node.crictl();
    let (pod, config) = in_pod;
    let mut container = shell(name, IMAGE, script);
    container["linux"] = json!({"security_context": security});
    let id = crictl.create_and_start(pod, &container, config);
    let status = crictl.wait_for_exit(&id);
    let log = crictl.ok(&["logs", &id]);
    assert_eq!(status["exitCode"], json!(0), "{log}\n{status}");
    log
}

#[test]
fn seccomp_profiles_filter_what_they_say_with_ours_and_with_runc() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "runc"]) {
        return;
    }
    let node = node();
    let profile = node.path("no-chmod.json");
    let text = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
    });
    std::fs::write(&profile, text.to_string()).unwrap();
    let localhost = json!({"profile_type": 2, "localhost_ref": profile});
    let mode = "grep Seccomp: /proc/self/status | cut -f 2";
    let table = [
        ("none", json!({}), mode, "0"),
        (
            "unconfined",
            json!({"seccomp": {"profile_type": 1}}),
            mode,
            "0",
        ),
        (
            "default",
            json!({"seccomp": {"profile_type": 0}}),
            mode,
            "2",
        ),
        (
            "old",
            json!({"seccomp_profile_path": "runtime/default"}),
            mode,
            "2",
        ),
        (
            "mount",
            json!({"seccomp": {"profile_type": 0}}),
            "mount -t tmpfs none /tmp 2>&1 | grep -o 'permission denied'",
            "permission denied",
        ),
        (
            "local",
            json!({"seccomp": localhost}),
            "touch /tmp/x; chmod 600 /tmp/x 2>&1 | grep -o 'not permitted'",
            "not permitted",
        ),
    ];
    let crictl = node.crictl();
    for handler in ["", "runc"] {
        let config = pod(&format!("seccomp{handler}"), node.dir());
        let flags: &[&str] = if handler.is_empty() {
            &[]
        } else {
            &["--runtime", handler]
        };
        let id = crictl.run_pod_with(&config, flags);
        for (name, security, script, wanted) in &table {
            let log = logged(&node, name, script, security.clone(), (&id, &config));
            assert_eq!(log, *wanted, "{name} with {handler:?}");
        }
        assert!(crictl.ok(&["rmp", "-f", &id]).contains("Removed"));
    }
}

/// A pod with a user namespace of its own.
fn userns_pod(name: &str, node: &Node, network: u32) -> Value {
    let ids = json!([{"host_id": OUTSIDE, "container_id": 0, "length": 65536}]);
    let mut config = pod(name, node.dir());
    config["linux"]["security_context"]["namespace_options"] = json!({
        "network": network, "pid": 0, "userns_options": {"mode": 0, "uids": ids, "gids": ids},
    });
    config
}

#[test]
fn root_of_a_pod_with_a_user_namespace_owns_what_is_the_pods_and_nothing_of_the_host() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "runc"]) {
        return;
    }
    let node = node();
    let crictl = node.crictl();
    let warm = crictl.run_pod(&userns_pod("warm", &node, 0));
    assert!(crictl.ok(&["rmp", "-f", &warm]).contains("Removed"));
    let before = node.scope().snapshot();
    let config = userns_pod("mapped", &node, 0);
    let id = crictl.run_pod(&config);
    let echoed = crictl.pod_status(&id)["linux"]["namespaces"]["options"]["usernsOptions"].clone();
    assert_eq!(echoed["uids"][0]["hostId"], json!(OUTSIDE), "{echoed}");

    let volume = node.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let ids = json!([{"host_id": OUTSIDE, "container_id": 0, "length": 65536}]);
    let script = "set -e; cat /proc/self/uid_map | tr -s ' '; \
        stat -c '%n %u:%g' / /bin/busybox /etc/hosts /etc/resolv.conf /new /new/work /dev/shm; \
        echo x > /root/file; echo 127.0.0.9 extra >> /etc/hosts; echo y > /volume/file; \
        cat /proc/1/comm; ip -o -4 addr show eth0 | wc -l; ls -d /sys/class/net/eth0; \
        touch /proc/sys/vm/swappiness 2>/dev/null && echo broken || echo kept; exec sleep 1000000";
    let mut main = shell("main", IMAGE, script);
    main["mounts"] = json!([{
        "host_path": volume, "container_path": "/volume", "uidMappings": ids, "gidMappings": ids,
    }]);
    main["linux"]["security_context"]["namespace_options"] =
        config["linux"]["security_context"]["namespace_options"].clone();
    let container = crictl.create_and_start(&id, &main, &config);
    integration::wait::until_true(
        "the script logs",
        std::time::Duration::from_secs(20),
        || crictl.ok(&["logs", &container]).lines().count() == 12,
    );
    let log = crictl.ok(&["logs", &container]);
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            &format!("0 {OUTSIDE} 65536"),
            "/ 0:0",
            "/bin/busybox 0:0",
            "/etc/hosts 0:0",
            "/etc/resolv.conf 0:0",
            "/new 0:0",
            "/new/work 0:0",
            "/dev/shm 0:0",
            "davit-init",
            "1",
            "/sys/class/net/eth0",
            "kept",
        ],
        "{log}"
    );
    // On the host: its processes are somebody's, the volume's file is root's.
    let pid = crictl.json(&["inspect", &container])["info"]["pid"].clone();
    assert_eq!(
        std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(),
        OUTSIDE
    );
    assert_eq!(std::fs::metadata(volume.join("file")).unwrap().uid(), 0);
    assert_eq!(crictl.ok(&["exec", "-s", &container, "id", "-u"]), "0");

    let mut other = shell("other", IMAGE, "true");
    other["linux"] = json!({"security_context": {"run_as_user": {"value": 70000}}});
    let error = crictl.try_create(&id, &other, &config).err();
    assert!(
        error.contains("user 70000 is not among the 65536 ids"),
        "{error}"
    );
    other["linux"] =
        json!({"security_context": {"namespace_options": {"userns_options": {"mode": 2}}}});
    let error = crictl.try_create(&id, &other, &config).err();
    assert!(error.contains("its pod has"), "{error}");

    assert!(crictl.ok(&["rmp", "-f", &id]).contains("Removed"));
    node.nothing_is_left_since(&before, "a pod with a user namespace");
}

#[test]
fn a_pod_with_a_user_namespace_may_have_the_hosts_network() {
    if bin::skipped_for_want_of(&["crictl", "busybox"]) {
        return;
    }
    let node = node();
    let config = userns_pod("hostnet", &node, 2);
    let id = node.crictl().run_pod(&config);
    let script = "tail -n 1 /proc/self/uid_map | tr -s ' '; ls -d /sys/class/net/lo; ip link add x type dummy 2>/dev/null || echo refused";
    let log = logged(&node, "main", script, json!({}), (&id, &config));
    assert_eq!(
        log.lines().map(str::trim).collect::<Vec<_>>(),
        [
            &format!("0 {OUTSIDE} 65536"),
            "/sys/class/net/lo",
            "refused"
        ]
    );
}

#[test]
fn a_handler_that_knows_no_idmapped_mounts_refuses_a_user_namespace_by_name() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "runc"]) {
        return;
    }
    let node = node();
    let before = node.scope().snapshot();
    let crictl = node.crictl();
    let info = crictl.json(&["info"]);
    let handlers = info["runtimeHandlers"].as_array().unwrap().clone();
    let runc = handlers.iter().find(|one| one["name"] == "runc").unwrap();
    if runc["features"]["user_namespaces"] == json!(true) {
        println!("skipped: this runc knows id-mapped mounts");
        return;
    }
    let file = crictl.file("mapped.pod.json", &userns_pod("mapped", &node, 0));
    let error = crictl.run(&["runp", "--runtime", "runc", &file]).err();
    assert!(
        error.contains("userns_options") && error.contains("id-mapped mounts"),
        "{error}"
    );
    node.nothing_is_left_since(&before, "a refused user namespace");
}
