//! Device rules, as the kernel lists and enforces them.

use super::*;

#[test]
fn the_devices_list_on_v1_is_the_rules_after_the_defaults_of_every_container() {
    let Some(fixture) = Fixture::with_v1("devices") else {
        return;
    };
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: DeviceAccess::parse(access).unwrap(),
    };
    let rules = [
        rule(false, DeviceType::All, None, None, "rwm"),
        rule(true, DeviceType::Char, Some(10), Some(229), "rw"),
        rule(true, DeviceType::Block, Some(7), None, "r"),
    ];
    fixture.cgroup.apply_devices(&rules).unwrap();
    let list = fixture.file("devices", "devices.list");
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    let expected = [
        "b *:* m",
        "b 7:* r",
        "c *:* m",
        "c 10:200 rwm",
        "c 10:229 rw",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:1 rwm",
        "c 5:2 rwm",
    ];
    assert_eq!(lines, expected);
    // A second time, as an update does, over the first list.
    fixture
        .cgroup
        .apply_devices(&[rule(true, DeviceType::All, None, None, "rwm")])
        .unwrap();
    assert_eq!(fixture.file("devices", "devices.list"), "a *:* rwm");
}

/// What a process of the cgroup gets when it opens the node.
fn can_read(cgroup: &Cgroup, node: &str) -> bool {
    let script = format!("read go; exec 3<{node}");
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cgroup
        .add_process(i32::try_from(shell.id()).unwrap())
        .unwrap();
    drop(shell.stdin.take());
    shell.wait().unwrap().success()
}

#[test]
fn device_rules_hold_and_can_be_replaced_and_lifted_on_every_host() {
    on_every_host(|fixture| {
        let everything = |allow| DeviceRule {
            allow,
            kind: DeviceType::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        };
        let kmsg = DeviceRule {
            allow: true,
            kind: DeviceType::Char,
            major: Some(1),
            minor: Some(11),
            access: DeviceAccess::READ,
        };
        assert!(can_read(&fixture.cgroup, "/dev/kmsg"), "before any rule");

        fixture.cgroup.apply_devices(&[everything(false)]).unwrap();
        assert!(!can_read(&fixture.cgroup, "/dev/kmsg"));
        assert!(can_read(&fixture.cgroup, "/dev/zero"), "a default device");

        fixture
            .cgroup
            .apply_devices(&[everything(false), kmsg])
            .unwrap();
        assert!(
            can_read(&fixture.cgroup, "/dev/kmsg"),
            "the first program or list is replaced, not joined"
        );

        fixture.cgroup.apply_devices(&[everything(false)]).unwrap();
        assert!(!can_read(&fixture.cgroup, "/dev/kmsg"));

        fixture.cgroup.apply_devices(&[everything(true)]).unwrap();
        assert!(can_read(&fixture.cgroup, "/dev/kmsg"));
    });
}

#[test]
fn a_hole_in_a_wider_device_rule_holds_on_a_unified_host() {
    on_unified_host(|| {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        let rule = |allow, minor| DeviceRule {
            allow,
            kind: DeviceType::Char,
            major: Some(1),
            minor,
            access: DeviceAccess::ALL,
        };
        fixture
            .cgroup
            .apply_devices(&[rule(true, None), rule(false, Some(11))])
            .unwrap();
        assert!(!can_read(&fixture.cgroup, "/dev/kmsg"));
        assert!(can_read(&fixture.cgroup, "/dev/null"));
    });
}
