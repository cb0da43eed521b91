use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

fn profile(kind: ProfileKind, reference: &str) -> SecurityProfile {
    SecurityProfile {
        kind,
        localhost_ref: reference.to_owned(),
    }
}

/// The built-in profile as JSON.
fn built(capabilities: &[Capability]) -> Value {
    let all: HashSet<Capability> = capabilities.iter().copied().collect();
    let default = profile(ProfileKind::RuntimeDefault, "");
    let filter = filter(Some(&default), Some(&all)).expect("a profile");
    serde_json::to_value(filter).expect("JSON")
}

/// Every rule as (action, errno, conditions, call).
fn rules(profile: &Value) -> BTreeSet<(String, String, String, String)> {
    let mut all = BTreeSet::new();
    for rule in profile["syscalls"].as_array().expect("rules") {
        for name in rule["names"].as_array().expect("names") {
            let args: Vec<String> = rule["args"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|arg| {
                    let two = arg["valueTwo"].as_u64().unwrap_or(0);
                    format!("{} {} {} {two}", arg["index"], arg["op"], arg["value"])
                })
                .collect();
            all.insert((
                rule["action"].to_string(),
                rule["errnoRet"].to_string(),
                args.join(","),
                name.to_string(),
            ));
        }
    }
    all
}

fn allows(profile: &Value, name: &str) -> bool {
    let wanted = Value::from(name).to_string();
    rules(profile).iter().any(|(action, _, args, call)| {
        action == "\"SCMP_ACT_ALLOW\"" && args.is_empty() && *call == wanted
    })
}

/// containerd's profile for Docker's default capabilities, as containerd 2.1 writes it into config.json.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_built_in_profile_is_that_of_containerd_rule_by_rule() {
    let theirs = include_str!("../../../../../oci-runtime/tests/seccomp/profiles/containerd.json");
    let theirs: Value = serde_json::from_str(theirs).expect("JSON");
    let ours = built(&[Capability::Chown, Capability::SysChroot]);
    assert_eq!(ours["defaultAction"], theirs["defaultAction"]);
    assert_eq!(ours["architectures"], theirs["architectures"]);
    assert_eq!(rules(&ours), rules(&theirs));
}

#[test]
fn a_capability_brings_its_calls() {
    let plain = built(&[]);
    for (capability, name) in [
        (Capability::SysAdmin, "mount"),
        (Capability::SysAdmin, "clone3"),
        (Capability::SysChroot, "chroot"),
        (Capability::SysTime, "clock_settime"),
        (Capability::Bpf, "bpf"),
        (Capability::SysNice, "mbind"),
    ] {
        assert!(!allows(&plain, name), "{name}");
        assert!(allows(&built(&[capability]), name), "{name}");
    }
}

#[test]
fn nothing_asked_for_and_unconfined_are_no_filter() {
    assert_eq!(filter(None, None).expect("none"), None);
    let unconfined = profile(ProfileKind::Unconfined, "");
    assert_eq!(filter(Some(&unconfined), None).expect("none"), None);
}

#[test]
fn a_file_of_the_node_is_taken_as_it_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("profile.json");
    let text = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": null}],
    });
    std::fs::write(&path, text.to_string()).expect("written");
    let local = profile(ProfileKind::Localhost, &path.to_string_lossy());
    let found = filter(Some(&local), None).expect("a profile");
    let found = serde_json::to_value(found).expect("JSON");
    assert_eq!(found["defaultAction"], "SCMP_ACT_ALLOW");
    assert_eq!(found["syscalls"][0]["errnoRet"], 7);
}

#[test]
fn a_file_that_is_no_profile_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("text"), "hello").expect("written");
    std::fs::write(path("wrong"), r#"{"defaultAction":"NO_SUCH_ACTION"}"#).expect("written");
    nix::unistd::mkfifo(path("fifo").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let large = File::create(path("large")).expect("created");
    large.set_len(LIMIT + 1).expect("grown");
    for (reference, problem) in [
        ("relative.json".to_owned(), "no absolute path"),
        (String::new(), "no absolute path"),
        (path("missing"), "ENOENT"),
        (path("text"), "no seccomp profile"),
        (path("wrong"), "NO_SUCH_ACTION"),
        (path("fifo"), "not a regular file"),
        (path("large"), "larger than"),
    ] {
        let local = profile(ProfileKind::Localhost, &reference);
        let error = filter(Some(&local), None).expect_err("no profile").report();
        assert!(error.contains(FIELD), "{error}");
        assert!(error.contains(&format!("{reference:?}")), "{error}");
        assert!(error.contains(problem), "{reference:?}: {error}");
    }
}
