//! Plans of the fields of version 1.1 and later, of labels and of clocks: what is decided, how each mistake is named.
use serde_json::{Value, json};

use super::tests::{base, plan};
use super::*;

/// The base with one more property of the object at `pointer`, with the namespaces that it needs.
fn with(pointer: &str, key: &str, value: Value) -> Value {
    let mut config = base();
    config["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "network"}, {"type": "time"}, {"type": "ipc"}]);
    let object = config.pointer_mut(pointer).unwrap();
    object
        .as_object_mut()
        .unwrap()
        .insert(key.to_owned(), value);
    config
}

#[test]
fn every_mistake_in_these_fields_is_named_with_its_reason() {
    let table = [
        (
            ("/process", "apparmorProfile"),
            json!("a\0b"),
            "process.apparmorProfile: holds a NUL byte",
        ),
        (
            ("/process", "selinuxLabel"),
            json!("a\0b"),
            "process.selinuxLabel: holds a NUL byte",
        ),
        (
            ("/linux", "mountLabel"),
            json!("a\0b"),
            "linux.mountLabel: holds a NUL byte",
        ),
        (
            ("/process", "execCPUAffinity"),
            json!({"initial": "3-1"}),
            "process.execCPUAffinity.initial: invalid range: 3-1",
        ),
        (
            ("/process", "execCPUAffinity"),
            json!({"final": "0-8192"}),
            "process.execCPUAffinity.final: values larger than 8191 are not supported",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({}),
            "linux.memoryPolicy.mode: invalid memory policy mode \"\"",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_X"}),
            "linux.memoryPolicy.mode: invalid memory policy mode \"MPOL_X\"",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_BIND"}),
            "linux.memoryPolicy.nodes: MPOL_BIND requires at least one node but got 0",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_LOCAL", "nodes": "0-1"}),
            "linux.memoryPolicy.nodes: MPOL_LOCAL requires 0 nodes but got 2",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_BIND", "nodes": "1024"}),
            "linux.memoryPolicy.nodes: values larger than 1023 are not supported",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"]}),
            "linux.memoryPolicy.flags: invalid memory policy flag \"MPOL_F_X\"",
        ),
        (
            ("/linux", "memoryPolicy"),
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
        ),
        (
            ("/linux", "personality"),
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags: unknown personality flag \"X\"",
        ),
        (
            ("/linux", "timeOffsets"),
            json!({"realtime": {"secs": 1}}),
            "linux.timeOffsets[\"realtime\"]: no such clock",
        ),
        (
            ("/linux", "timeOffsets"),
            json!({"boottime": {"nanosecs": 1_000_000_000}}),
            "linux.timeOffsets[\"boottime\"].nanosecs: more than 999999999",
        ),
        (
            ("/linux", "netDevices"),
            json!({"a/b": {}}),
            "linux.netDevices[\"a/b\"]: invalid network device name \"a/b\"",
        ),
        (
            ("/linux", "netDevices"),
            json!({"eth%d": {}}),
            "invalid network device name \"eth%d\"",
        ),
        (
            ("/linux", "netDevices"),
            json!({"eth0": {"name": "0123456789abcdef"}}),
            "linux.netDevices[\"eth0\"].name: invalid network device name",
        ),
        (
            ("/linux", "netDevices"),
            json!({"eth0": {"name": "%d%d"}}),
            "linux.netDevices[\"eth0\"].name: invalid network device name",
        ),
        (
            ("/linux", "netDevices"),
            json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
            "linux.netDevices[\"eth1\"].name: \"x\" is the name of another one in the container",
        ),
        (
            ("/process", "scheduler"),
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: outside -20 to 19",
        ),
        (
            ("/process", "scheduler"),
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            "process.scheduler.priority: only for SCHED_FIFO and SCHED_RR",
        ),
        (
            ("/process", "scheduler"),
            json!({"policy": "SCHED_FIFO", "deadline": 1}),
            "runtime, deadline and period are only for SCHED_DEADLINE",
        ),
        (
            ("/process", "scheduler"),
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}),
            "process.scheduler.flags: invalid scheduler flag \"SCHED_FLAG_X\"",
        ),
        (
            ("/process", "ioPriority"),
            json!({"class": "IOPRIO_CLASS_X"}),
            "process.ioPriority.class: invalid io priority class \"IOPRIO_CLASS_X\"",
        ),
        (
            ("", "annotations"),
            json!({"run.oci.keep_original_groups": "1"}),
            "process.user.additionalGids: the annotation run.oci.keep_original_groups keeps",
        ),
    ];
    for ((object, key), value, expected) in table {
        let mut config = with(object, key, value);
        config["process"]["user"] = json!({"additionalGids": [5]});
        let text = plan(&config).unwrap_err().to_string();
        assert!(text.contains(expected), "{key}: {text}");
    }
}

#[test]
fn a_namespace_is_needed_and_for_clocks_a_new_one() {
    let time = |path: Value| json!([{"type": "mount"}, path]);
    let mut config = with("/linux", "timeOffsets", json!({"monotonic": {"secs": 1}}));
    config["linux"]["namespaces"] = time(json!({"type": "time", "path": "/proc/1/ns/time"}));
    let text = plan(&config).unwrap_err().to_string();
    assert!(
        text.contains("both namespace path and time offsets"),
        "{text}"
    );
    config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    config["linux"]["netDevices"] = json!({"eth0": {}});
    let text = plan(&config).unwrap_err().to_string();
    assert!(
        text.contains(
            "linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled"
        ),
        "{text}"
    );
    assert!(
        text.contains("linux.netDevices: unable to move network devices without a NET namespace"),
        "{text}"
    );
}

#[test]
fn every_mode_and_flag_of_memory_policies_is_known() {
    let expect = [
        ("MPOL_DEFAULT", "", 0),
        ("MPOL_PREFERRED", "", 1),
        ("MPOL_PREFERRED", "3", 1),
        ("MPOL_BIND", "0-1", 2),
        ("MPOL_INTERLEAVE", "0", 3),
        ("MPOL_LOCAL", "", 4),
        ("MPOL_PREFERRED_MANY", "0", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", "0", 6),
    ];
    for (mode, nodes, number) in expect {
        let config = with(
            "/linux",
            "memoryPolicy",
            json!({"mode": mode, "nodes": nodes}),
        );
        let policy = plan(&config).unwrap().execution.memory_policy.unwrap();
        assert_eq!(policy.0, number, "{mode}");
    }
    for (flag, bit) in [
        ("MPOL_F_NUMA_BALANCING", 0x2000),
        ("MPOL_F_RELATIVE_NODES", 0x4000),
        ("MPOL_F_STATIC_NODES", 0x8000),
    ] {
        let policy = json!({"mode": "MPOL_BIND", "nodes": "1,5", "flags": [flag]});
        let plan = plan(&with("/linux", "memoryPolicy", policy)).unwrap();
        assert_eq!(plan.execution.memory_policy, Some((2 | bit, vec![1, 5])));
    }
}

#[test]
fn a_personality_is_its_domain_and_its_flags() {
    let personality = json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE", "UNAME26"]});
    let plan = plan(&with("/linux", "personality", personality)).unwrap();
    assert_eq!(plan.execution.personality, Some(0x6_0008));
}

#[test]
fn clocks_are_written_as_the_kernel_reads_them() {
    let offsets =
        json!({"monotonic": {"secs": -3, "nanosecs": 7}, "boottime": {"secs": 1_000_000}});
    let plan = plan(&with("/linux", "timeOffsets", offsets)).unwrap();
    assert_eq!(plan.time_offsets, "boottime 1000000 0\nmonotonic -3 7\n");
}

#[test]
fn a_network_device_keeps_its_name_unless_it_gets_another() {
    let devices =
        json!({"eth0": null, "eth1": {}, "eth2": {"name": "in%d"}, "eth3": {"name": "in%d"}});
    let plan = plan(&with("/linux", "netDevices", devices)).unwrap();
    let names: Vec<_> = plan
        .net_devices
        .iter()
        .map(|one| (one.name.as_str(), one.name_inside.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("eth0", "eth0"),
            ("eth1", "eth1"),
            ("eth2", "in%d"),
            ("eth3", "in%d")
        ]
    );
}

#[test]
fn a_mount_label_goes_to_the_filesystems_that_take_it() {
    let mut config = with("/linux", "mountLabel", json!("u:r:t:s0:c1,c2"));
    config["mounts"] = json!([
        {"destination": "/proc", "type": "proc"},
        {"destination": "/sys", "type": "sysfs"},
        {"destination": "/dev", "type": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts"},
        {"destination": "/dev/mqueue", "type": "mqueue"},
        {"destination": "/b", "type": "bind", "source": "/b"},
        {"destination": "/o", "type": "overlay"}
    ]);
    let data = |config: &Value| -> Vec<Vec<String>> {
        let mut plan = plan(config).unwrap();
        let label = plan.mount_label.take().unwrap();
        label.add_to(&mut plan.mounts);
        plan.mounts
            .into_iter()
            .map(|one| one.options.data)
            .collect()
    };
    let label = "context=u:r:t:s0:c1,c2";
    let expected: [&[&str]; 7] = [&[], &[], &["mode=755", label], &[label], &[], &[], &[label]];
    assert_eq!(data(&config), expected);
    config["annotations"] = json!({"run.oci.mount_context_type": "rootcontext"});
    assert_eq!(data(&config)[3], ["rootcontext=u:r:t:s0:c1,c2"]);
    config["annotations"] = json!({"run.oci.mount_context_type": "x"});
    let text = plan(&config).unwrap_err().to_string();
    assert!(
        text.contains("annotations[\"run.oci.mount_context_type\"]: \"x\" is not one of context, "),
        "{text}"
    );
}

#[test]
fn a_process_of_exec_has_what_it_does_not_say_from_the_container() {
    let mut config = with("/process", "apparmorProfile", json!("profile"));
    config["process"]["selinuxLabel"] = json!("a:b:c");
    config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
    config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE"});
    config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    config["linux"]["personality"] = json!({"domain": "LINUX32"});
    let defaults = plan(&config).unwrap().exec_defaults;
    // As the state keeps it.
    let text = serde_json::to_string(&defaults).unwrap();
    let defaults: ExecDefaults = serde_json::from_str(&text).unwrap();
    assert_eq!(defaults.execution.personality, Some(8));

    let mut process = crate::spec::Process::default();
    defaults.complete(&mut process);
    assert_eq!(process.apparmor_profile, "profile");
    assert_eq!(process.selinux_label, "a:b:c");
    assert_eq!(process.scheduler.unwrap().policy, "SCHED_BATCH");
    assert_eq!(process.io_priority.unwrap().class, "IOPRIO_CLASS_IDLE");
    assert_eq!(process.exec_cpu_affinity.unwrap().last, "1");

    let own = json!({"apparmorProfile": "other", "execCPUAffinity": {"final": "5"},
        "scheduler": {"policy": "SCHED_IDLE"}});
    let mut process: crate::spec::Process = serde_json::from_value(own).unwrap();
    defaults.complete(&mut process);
    assert_eq!(process.apparmor_profile, "other");
    assert_eq!(process.exec_cpu_affinity.unwrap().initial, "");
    assert_eq!(process.scheduler.unwrap().policy, "SCHED_IDLE");
}

#[test]
fn a_state_without_defaults_for_exec_is_read_as_one_with_none() {
    let defaults: ExecDefaults = serde_json::from_str("{}").unwrap();
    assert_eq!(
        serde_json::to_string(&defaults).unwrap(),
        r#"{"execution":{}}"#
    );
}

#[test]
fn groups_of_the_caller_are_kept_where_the_annotation_says_so() {
    for (value, expected) in [("1", true), ("true", true), ("0", false), ("", false)] {
        let annotations = json!({"run.oci.keep_original_groups": value});
        let plan = plan(&with("", "annotations", annotations)).unwrap();
        assert_eq!(plan.process.keep_groups, expected, "{value:?}");
    }
}
