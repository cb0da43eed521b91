//! Device rules as properties of a unit, so that systemd enforces the same ones whenever it applies the unit's
//! settings again (`systemctl daemon-reload`).
//!
//! systemd knows a list of what is allowed, and nothing else. Rules that are no such list are enforced by us alone.

use super::manager::Property;
use super::value::Value;
use crate::cgroup::devices::{DeviceAccess, DevicePolicy, DeviceRule, DeviceType, V1List};

/// `DevicePolicy` and `DeviceAllow` for these rules of a container.
pub(super) fn properties(rules: &[DeviceRule], v2: bool, version: u32) -> Vec<Property> {
    let list = V1List::from_policy(&DevicePolicy::for_container(rules));
    let (policy, allowed) = match list {
        Ok(list) if list.allows_everything() => ("auto", Vec::new()),
        Ok(list) if !list.allows_by_default() => {
            let entry = |(kind, major, minor, access)| entry(kind, major, minor, access, version);
            ("strict", list.exceptions().filter_map(entry).collect())
        }
        // On v2 systemd's program stands beside ours, and a device needs both: systemd's allows all. On v1 both write
        // the same files, so until ours are written nothing is allowed.
        _ if v2 => ("auto", Vec::new()),
        _ => ("strict", Vec::new()),
    };
    let list = |entries| Value::Array("(ss)".into(), entries);
    let mut properties = vec![
        // Assignments add to a list; an empty one clears it.
        ("DeviceAllow".to_owned(), list(Vec::new())),
        ("DevicePolicy".to_owned(), Value::str(policy)),
    ];
    if !allowed.is_empty() {
        properties.push(("DeviceAllow".to_owned(), list(allowed)));
    }
    properties
}

/// One element of `DeviceAllow`; none for what systemd cannot say.
fn entry(
    kind: DeviceType,
    major: Option<u32>,
    minor: Option<u32>,
    access: DeviceAccess,
    version: u32,
) -> Option<Value> {
    let word = match kind {
        DeviceType::Block => "block",
        DeviceType::Char | DeviceType::All => "char",
    };
    let node = match (major, minor) {
        (None, None) => format!("{word}-*"),
        (None, Some(_)) => return None,
        (Some(major), None) if version >= 240 => format!("{word}-{major}"),
        (Some(major), None) => format!("{word}-{}", group(word, major)?),
        (Some(major), Some(minor)) => {
            let path = format!("/dev/{word}/{major}:{minor}");
            // Older ones look at the node itself.
            if version < 240 && !std::path::Path::new(&path).exists() {
                return None;
            }
            path
        }
    };
    let fields = vec![Value::Str(node), Value::Str(access.to_string())];
    Some(Value::Struct(fields))
}

/// The name of a major number in /proc/devices, which systemd before 240 wants instead of the number.
fn group(word: &str, major: u32) -> Option<String> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    find_group(&text, word, major)
}

fn find_group(text: &str, word: &str, major: u32) -> Option<String> {
    let title = if word == "block" {
        "Block devices:"
    } else {
        "Character devices:"
    };
    let lines = text.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (number, name) = line.trim_start().split_once(' ')?;
        (number.parse() == Ok(major)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, text: &str) -> DeviceRule {
        let parts: Vec<&str> = text.split([' ', ':']).collect();
        let number = |text: &str| text.parse().ok();
        DeviceRule {
            allow,
            kind: match parts[0] {
                "b" => DeviceType::Block,
                "c" => DeviceType::Char,
                _ => DeviceType::All,
            },
            major: number(parts[1]),
            minor: number(parts[2]),
            access: DeviceAccess::parse(parts[3]).unwrap(),
        }
    }

    /// The policy, and the list as `node access`.
    fn translate(rules: &[DeviceRule], v2: bool, version: u32) -> (String, Vec<String>) {
        let mut policy = String::new();
        let mut nodes = Vec::new();
        for (name, value) in properties(rules, v2, version) {
            match (name.as_str(), value) {
                ("DevicePolicy", Value::Str(text)) => policy = text,
                ("DeviceAllow", Value::Array(kind, entries)) => {
                    assert_eq!(kind, "(ss)");
                    if entries.is_empty() {
                        nodes.clear();
                    }
                    for entry in entries {
                        let Value::Struct(fields) = entry else {
                            panic!("{entry:?}")
                        };
                        let [Value::Str(node), Value::Str(access)] = fields.as_slice() else {
                            panic!("{fields:?}")
                        };
                        nodes.push(format!("{node} {access}"));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        (policy, nodes)
    }

    const DEFAULTS: [&str; 12] = [
        "char-* m",
        "block-* m",
        "/dev/char/1:3 rwm",
        "/dev/char/1:5 rwm",
        "/dev/char/1:7 rwm",
        "/dev/char/1:8 rwm",
        "/dev/char/1:9 rwm",
        "/dev/char/5:0 rwm",
        "/dev/char/5:1 rwm",
        "/dev/char/5:2 rwm",
        "/dev/char/10:200 rwm",
        "char-136 rwm",
    ];

    #[test]
    fn a_list_of_what_is_allowed_is_systemds_own_way() {
        for v2 in [false, true] {
            let (policy, nodes) = translate(&[rule(false, "a *:* rwm")], v2, 252);
            assert_eq!(
                (policy.as_str(), nodes),
                ("strict", DEFAULTS.map(str::to_owned).to_vec())
            );
        }
        let rules = [
            rule(false, "a *:* rwm"),
            rule(true, "c 195:* rw"),
            rule(true, "b 8:0 r"),
            rule(true, "c 10:229 rwm"),
            rule(false, "c 10:229 w"),
            rule(true, "c *:7 r"),
        ];
        let (policy, nodes) = translate(&rules, true, 252);
        assert_eq!(policy, "strict");
        for wanted in ["char-195 rw", "/dev/block/8:0 r", "/dev/char/10:229 rm"] {
            assert!(nodes.contains(&wanted.to_owned()), "{wanted}: {nodes:?}");
        }
        // "Minor 7 of any driver" cannot be said.
        assert_eq!(nodes.len(), DEFAULTS.len() + 3, "{nodes:?}");
    }

    #[test]
    fn everything_allowed_is_no_policy() {
        assert_eq!(
            translate(&[rule(true, "a *:* rwm")], false, 252),
            ("auto".into(), Vec::new())
        );
    }

    #[test]
    fn a_list_of_what_is_denied_is_left_to_us() {
        let rules = [rule(true, "a *:* rwm"), rule(false, "b 8:0 rwm")];
        assert_eq!(translate(&rules, true, 252), ("auto".into(), Vec::new()));
        assert_eq!(translate(&rules, false, 252), ("strict".into(), Vec::new()));
        // A hole in what is allowed.
        let rules = [rule(true, "c 195:* rw"), rule(false, "c 195:3 rw")];
        assert_eq!(translate(&rules, true, 252), ("auto".into(), Vec::new()));
    }

    #[test]
    fn an_old_systemd_gets_names_for_numbers() {
        let text = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  7 loop\n  8 sd\n";
        assert_eq!(find_group(text, "char", 136).as_deref(), Some("pts"));
        assert_eq!(find_group(text, "block", 7).as_deref(), Some("loop"));
        assert_eq!(find_group(text, "char", 7), None);
        let (_, nodes) = translate(&[], true, 239);
        assert!(nodes.contains(&"char-pts rwm".to_owned()), "{nodes:?}");
    }
}
