//! What rules mean, and how v1 keeps them.

use super::*;

fn rule(text: &str) -> DeviceRule {
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let kind = match parts[1] {
        "a" => DeviceType::All,
        "b" => DeviceType::Block,
        _ => DeviceType::Char,
    };
    let number = |text: &str| (text != "*").then(|| text.parse().unwrap());
    let access = DeviceAccess::parse(parts[4]).unwrap();
    DeviceRule {
        allow: parts[0] == "allow",
        kind,
        major: number(parts[2]),
        minor: number(parts[3]),
        access,
    }
}

fn policy(rules: &[&str]) -> DevicePolicy {
    DevicePolicy::new(rules.iter().copied().map(rule).collect())
}

fn list(rules: &[&str]) -> Result<(bool, Vec<String>)> {
    V1List::from_policy(&policy(rules)).map(|list| (list.allow_by_default, list.entries()))
}

#[test]
fn an_access_is_read_in_any_order_and_written_in_the_kernels() {
    assert_eq!(DeviceAccess::parse("mwr").unwrap().to_string(), "rwm");
    assert_eq!(DeviceAccess::parse("m").unwrap(), DeviceAccess::MKNOD);
    assert!(DeviceAccess::parse("").is_err());
    assert!(
        DeviceAccess::parse("rx")
            .unwrap_err()
            .to_string()
            .contains("\"rx\"")
    );
}

#[test]
fn v1_lists_the_exceptions_in_the_order_of_the_rules() {
    let rules = [
        "deny a *:* rwm",
        "allow c 10:229 rw",
        "allow b 8:20 r",
        "allow c 10:229 m",
    ];
    let (_, entries) = list(&rules).unwrap();
    assert_eq!(entries, ["c 10:229 rwm", "b 8:20 r"]);
}

#[test]
fn a_container_without_rules_has_the_default_devices_and_no_others() {
    let policy = DevicePolicy::for_container(&[]);
    let char_device = |major, minor, access| policy.allows(DeviceType::Char, major, minor, access);
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
        (136, 0),
        (136, 4711),
        (10, 200),
    ] {
        assert!(
            char_device(major, minor, DeviceAccess::ALL),
            "{major}:{minor}"
        );
    }
    assert!(!char_device(10, 229, DeviceAccess::READ), "fuse");
    assert!(!char_device(1, 1, DeviceAccess::READ), "/dev/mem");
    assert!(
        !policy.allows(DeviceType::Block, 8, 0, DeviceAccess::READ),
        "a disk"
    );
    assert!(
        policy.allows(DeviceType::Block, 8, 0, DeviceAccess::MKNOD),
        "making any node"
    );
}

#[test]
fn a_denying_rule_of_a_bundle_cannot_take_the_default_devices_away() {
    let policy = DevicePolicy::for_container(&[rule("deny c 1:3 rwm"), rule("deny a *:* rwm")]);
    assert!(policy.allows(DeviceType::Char, 1, 3, DeviceAccess::ALL));
}

#[test]
fn a_later_rule_overrides_an_earlier_one_only_for_what_it_names() {
    let policy = policy(&["allow c 10:* rwm", "deny c 10:5 w"]);
    assert!(policy.allows(DeviceType::Char, 10, 5, DeviceAccess::READ));
    assert!(!policy.allows(DeviceType::Char, 10, 5, DeviceAccess::WRITE));
    assert!(!policy.allows(DeviceType::Char, 10, 5, DeviceAccess::ALL));
    assert!(policy.allows(DeviceType::Char, 10, 6, DeviceAccess::ALL));
}

#[test]
fn accesses_that_two_rules_allow_are_allowed_together() {
    let policy = policy(&["allow c 10:5 r", "allow c 10:* w"]);
    assert!(policy.allows(DeviceType::Char, 10, 5, DeviceAccess::from_bits(6)));
    assert!(!policy.allows(DeviceType::Char, 10, 6, DeviceAccess::from_bits(6)));
}

#[test]
fn only_rules_that_deny_nothing_allow_everything() {
    assert!(policy(&["deny a *:* rwm", "allow a *:* rwm", "allow c 1:3 r"]).allows_everything());
    assert!(!policy(&["allow a *:* rwm", "deny c 1:3 r"]).allows_everything());
    assert!(!policy(&["allow a *:* rw"]).allows_everything());
    assert!(!policy(&[]).allows_everything());
}

#[test]
fn v1_keeps_a_default_and_exceptions() {
    let ok = |default, entries: &[&str]| {
        Ok((default, entries.iter().map(|e| (*e).to_owned()).collect()))
    };
    assert_eq!(
        list(&["deny a *:* rwm", "allow c 1:3 r", "allow c 1:3 w"]),
        ok(false, &["c 1:3 rw"])
    );
    assert_eq!(
        list(&["allow a *:* rwm", "deny b 8:* w"]),
        ok(true, &["b 8:* w"])
    );
    assert_eq!(list(&["allow a 1:3 r"]), ok(false, &["b 1:3 r", "c 1:3 r"]));
    assert_eq!(
        list(&["allow c 1:3 rw", "deny c 1:* w"]),
        ok(false, &["c 1:3 r"])
    );
    assert_eq!(
        list(&["allow c 1:3 r", "deny c 2:* r", "deny c 1:3 w"]),
        ok(false, &["c 1:3 r"])
    );
    assert_eq!(
        list(&["allow a *:* rwm", "deny c 1:3 rwm", "allow c 1:3 rwm"]),
        ok(true, &[])
    );
}

#[test]
fn a_hole_in_a_wider_rule_is_refused_on_v1_which_would_ignore_it() {
    let error = list(&["allow c 10:* rwm", "deny c 10:5 w"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device rule \"c 10:5 w\": it takes back a part of the earlier rule \"c 10:* rwm\", which cgroup v1 cannot do"
    );
}
