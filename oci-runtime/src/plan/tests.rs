//! Plans from configurations: what is decided, and how each bad field is named.
use super::*;

pub(super) fn base() -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["true"], "env": ["PATH=/bin", "A=1", "PATH=/usr/bin"]},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]}
    })
}

pub(super) fn plan(config: &serde_json::Value) -> Result<Plan, Problems> {
    let spec: Spec = serde_json::from_value(config.clone()).unwrap();
    Plan::new("web", Path::new("/bundle"), &spec)
}

#[test]
fn a_plain_configuration_is_decided() {
    let plan = plan(&base()).unwrap();
    assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
    assert_eq!(
        plan.process.env,
        [c"PATH=/usr/bin".to_owned(), c"A=1".to_owned()],
        "the last value wins"
    );
    assert_eq!(plan.process.umask, 0o022);
    assert_eq!(plan.process.capabilities, CapabilityPlan::default());
    assert_eq!(plan.devices.len(), 6);
    assert!(plan.fill_dev);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let mut config = base();
    config["annotations"] =
        serde_json::json!({"run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup"});
    let problems = plan(&config).unwrap_err().to_string();
    assert!(
        problems.contains("annotations[\"run.oci.systemd.force_cgroup_v1\"]: not supported"),
        "{problems}"
    );
}

#[test]
fn every_bad_field_is_named_with_its_reason() {
    let table = [
        (
            "/ociVersion",
            serde_json::json!("2.0.0"),
            "ociVersion: unsupported version \"2.0.0\"",
        ),
        (
            "/ociVersion",
            serde_json::json!(""),
            "ociVersion: unsupported version",
        ),
        (
            "/root",
            serde_json::json!(null),
            "root: root property must not be empty",
        ),
        (
            "/root/path",
            serde_json::json!(""),
            "root.path: must not be empty",
        ),
        (
            "/root/path",
            serde_json::json!("/"),
            "root.path: the root of the host",
        ),
        (
            "/process",
            serde_json::json!(null),
            "process: process property must not be empty",
        ),
        (
            "/process/cwd",
            serde_json::json!("tmp"),
            "process.cwd: Cwd must be an absolute path",
        ),
        (
            "/process/cwd",
            serde_json::json!(""),
            "process.cwd: Cwd property must not be empty",
        ),
        (
            "/process/args",
            serde_json::json!([]),
            "process.args: args must not be empty",
        ),
        (
            "/process/args",
            serde_json::json!(["a\0b"]),
            "process.args[0]: holds a NUL byte",
        ),
        (
            "/process/env",
            serde_json::json!(["A"]),
            "process.env[0]: \"A\" is not of the form NAME=value",
        ),
        (
            "/linux/namespaces",
            serde_json::json!([{"type": "user", "path": "/proc/1/ns/user"}]),
            "linux.namespaces: a user namespace needs a new mount namespace",
        ),
    ];
    for (pointer, value, expected) in table {
        let mut config = base();
        *config.pointer_mut(pointer).unwrap() = value;
        let text = plan(&config).unwrap_err().to_string();
        assert!(text.contains(expected), "{pointer}: {text}");
    }
}

#[test]
fn every_bad_added_field_is_named_with_its_reason() {
    let table = [
        (
            ("", "hostname"),
            serde_json::json!("x".repeat(65)),
            "hostname: longer than 64 bytes",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "", "type": "tmpfs"}]),
            "mounts[0].destination: ",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "type": "tmpfs", "options": ["src-nofollow"]}]),
            "mounts[0].options: copy-symlink, src-nofollow and dest-nofollow are only for bind mounts",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "source": "/b", "options": ["bind", "copy-symlink", "dest-nofollow"]}]),
            "mounts[0].options: copy-symlink is mutually exclusive with",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]),
            "mounts[0].options: idmap needs uidMappings and gidMappings of the mount",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "source": "/b", "options": ["bind", "idmap=uids=0-1"]}]),
            "mounts[0].options: idmap: \"0-1\" is not FIRST-HOST-SIZE",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "type": "tmpfs", "options": ["idmap=uids=0-1-1;gids=0-1-1"]}]),
            "id-mapped mounts are only supported for bind mounts",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "options": ["remount", "bind", "size=1"]}]),
            "takes no filesystem options",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a"}]),
            "mounts[0].type: neither a type nor the option bind",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "type": "bind"}]),
            "mounts[0].source: a bind mount needs a source",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/proc/1/x", "type": "tmpfs"}]),
            "is inside /proc",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/proc", "type": "tmpfs"}]),
            "is inside /proc",
        ),
        (
            ("", "mounts"),
            serde_json::json!([{"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}]),
            "tmpcopyup is only for tmpfs",
        ),
        (
            ("/linux", "seccomp"),
            serde_json::json!({"defaultAction": "SCMP_ACT_NOPE"}),
            "linux.seccomp.defaultAction: string SCMP_ACT_NOPE is not a valid action for seccomp",
        ),
        (
            ("/linux", "intelRdt"),
            serde_json::json!({"closID": "a/b"}),
            "linux.intelRdt.closID: ",
        ),
        (
            ("/linux", "rootfsPropagation"),
            serde_json::json!("sharedd"),
            "linux.rootfsPropagation: unknown propagation",
        ),
        (
            ("/linux", "uidMappings"),
            serde_json::json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "linux.uidMappings: user namespace mappings are given",
        ),
        (
            ("/linux", "maskedPaths"),
            serde_json::json!(["proc"]),
            "linux.maskedPaths: every path must be absolute",
        ),
        (
            ("/linux", "personality"),
            serde_json::json!({"domain": "BSD"}),
            "linux.personality.domain: unknown execution domain",
        ),
        (
            ("/linux", "devices"),
            serde_json::json!([{"path": "/dev/x", "type": "q"}]),
            "linux.devices[0].type: invalid device type \"q\"",
        ),
        (
            ("/linux", "devices"),
            serde_json::json!([{"path": "x", "type": "c"}]),
            "linux.devices[0].path: \"x\" is not an absolute path",
        ),
        (
            ("/linux", "devices"),
            serde_json::json!([{"path": "/dev/x", "type": "c", "major": -1}]),
            "linux.devices[0]: no such device number -1:0",
        ),
        (
            ("/linux", "sysctl"),
            serde_json::json!({"vm.swappiness": "1"}),
            "linux.sysctl[\"vm.swappiness\"]: not in a separate kernel namespace",
        ),
        (
            ("/linux", "cgroupsPath"),
            serde_json::json!("/a/../b"),
            "linux.cgroupsPath: ",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"blockIO": {"weight": 9}}),
            "linux.resources.blockIO.weight: 9 is not between 10 and 1000",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"hugepageLimits": [{"pageSize": "2 MB", "limit": 1}]}),
            "linux.resources.hugepageLimits[0].pageSize: ",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"network": {"priorities": [{"name": "", "priority": 1}]}}),
            "linux.resources.network.priorities[0].name: ",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"rdma": {"mlx": {}}}),
            "linux.resources.rdma[\"mlx\"]: ",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"unified": {"../x": "1"}}),
            "linux.resources.unified: ",
        ),
        (
            ("/linux", "resources"),
            serde_json::json!({"devices": [{"access": "q"}]}),
            "linux.resources.devices[0].access: ",
        ),
        (
            ("/process", "oomScoreAdj"),
            serde_json::json!(1001),
            "process.oomScoreAdj: outside -1000 to 1000",
        ),
        (
            ("/process", "rlimits"),
            serde_json::json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type: invalid rlimit type \"RLIMIT_X\"",
        ),
        (
            ("/process", "rlimits"),
            serde_json::json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]),
            "process.rlimits[1].type: duplicate rlimit RLIMIT_CORE",
        ),
        (
            ("/process", "rlimits"),
            serde_json::json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]),
            "soft limit 2 is above the hard limit 1",
        ),
        (
            ("/process", "scheduler"),
            serde_json::json!({"policy": "SCHED_X"}),
            "process.scheduler.policy: invalid scheduler policy \"SCHED_X\"",
        ),
        (
            ("/process", "ioPriority"),
            serde_json::json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: 8 is outside 0 to 7",
        ),
        (
            ("", "hooks"),
            serde_json::json!({"prestart": [{"path": "x"}]}),
            "hooks.prestart[0].path: \"x\" is not an absolute path",
        ),
        (
            ("", "hooks"),
            serde_json::json!({"poststop": [{"path": "/x", "timeout": 0}]}),
            "hooks.poststop[0].timeout: must be greater than zero",
        ),
    ];
    for ((object, key), value, expected) in table {
        let mut config = base();
        let parent = config.pointer_mut(object).unwrap().as_object_mut().unwrap();
        parent.insert(key.to_owned(), value);
        let text = plan(&config).unwrap_err().to_string();
        assert!(text.contains(expected), "{key}: {text}");
    }
}

#[test]
fn namespaces_are_new_or_joined_once_each() {
    let mut config = base();
    config["linux"]["namespaces"] = serde_json::json!([
        {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}, {"type": "pid"}, {"type": "pid"}, {"type": "nope"}
    ]);
    let text = plan(&config).unwrap_err().to_string();
    assert!(
        text.contains("linux.namespaces[3]: malformed spec file: duplicated ns \"pid\""),
        "{text}"
    );
    assert!(
        text.contains("linux.namespaces[4].type: namespace \"nope\" does not exist"),
        "{text}"
    );
}

#[test]
fn overlapping_id_maps_are_refused() {
    let mut config = base();
    config["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}, {"type": "user"}]);
    config["linux"]["uidMappings"] = serde_json::json!([
        {"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 9, "hostID": 5000, "size": 10}
    ]);
    config["linux"]["gidMappings"] =
        serde_json::json!([{"containerID": 0, "hostID": u32::MAX, "size": 2}]);
    let text = plan(&config).unwrap_err().to_string();
    assert!(
        text.contains("linux.uidMappings[1]: overlaps an earlier range"),
        "{text}"
    );
    assert!(
        text.contains("linux.gidMappings[0]: the range passes 4294967295"),
        "{text}"
    );
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let mut config = base();
    config["process"]["capabilities"] =
        serde_json::json!({"bounding": ["CAP_CHOWN", "CAP_FUTURE", "chown"]});
    let plan = plan(&config).unwrap();
    assert_eq!(
        plan.process
            .capabilities
            .bounding
            .numbers()
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
}

#[test]
fn options_of_a_filesystem_are_a_warning_for_a_bind_mount() {
    let mut config = base();
    config["mounts"] = serde_json::json!([{"destination": "/a", "type": "bind", "source": "/b", "options": ["size=1"]}]);
    let plan = plan(&config).unwrap();
    assert_eq!(
        plan.warnings,
        ["mounts[0].options: \"size=1\": options of a filesystem are ignored for a bind mount"]
    );
}

#[test]
fn a_bind_mount_over_dev_keeps_it_untouched() {
    let mut config = base();
    config["mounts"] =
        serde_json::json!([{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]);
    assert!(!plan(&config).unwrap().fill_dev);
}

#[test]
fn a_destination_never_leaves_the_root_by_its_letters() {
    for (text, clean) in [
        ("/a/../../b", "/b"),
        ("a/./b", "/a/b"),
        ("//x//", "/x"),
        ("/..", "/"),
    ] {
        assert_eq!(
            mounts::clean_absolute(Path::new(text)),
            Path::new(clean),
            "{text}"
        );
    }
}
