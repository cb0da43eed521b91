use std::fs;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn dir_with(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "bridge"}]}"#;

fn reason(text: &str) -> String {
    match NetworkList::parse(text.as_bytes()) {
        Ok(list) => panic!("{text} is a network: {list:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_missing_or_empty_directory_has_no_network() {
    assert_eq!(
        NetworkList::load_dir(Path::new("/nonexistent/net.d")).unwrap(),
        None
    );
    let dir = dir_with(&[("README", "no configuration"), ("x.conf.bak", "{")]);
    assert_eq!(NetworkList::load_dir(dir.path()).unwrap(), None);
}

#[test]
fn the_first_file_by_name_wins_whatever_its_extension() {
    let dir = dir_with(&[
        ("20-b.conflist", LIST),
        (
            "10-a.conf",
            r#"{"cniVersion": "0.4.0", "name": "single", "type": "ptp"}"#,
        ),
        ("05-dir.conflist/x", ""),
    ]);
    let network = NetworkList::load_dir(dir.path()).unwrap().unwrap();
    assert_eq!((network.name(), network.plugins().len()), ("single", 1));
    assert_eq!(network.plugins()[0].plugin, "ptp");
    assert_eq!(network.cni_version().to_string(), "0.4.0");
}

#[test]
fn a_broken_file_is_skipped_and_told() {
    let dir = dir_with(&[
        ("10-broken.conflist", "{"),
        ("15-empty.conf", " \n"),
        ("20-good.conflist", LIST),
        ("30-never.conf", "{"),
    ]);
    let scan = NetworkList::scan_dir(dir.path()).unwrap();
    let (path, network) = scan.network.unwrap();
    assert!(path.ends_with("20-good.conflist"));
    assert_eq!(network.name(), "a");
    let skipped: Vec<String> = scan.skipped.iter().map(|s| s.error.to_string()).collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(
        skipped[0].contains("10-broken.conflist") && skipped[0].contains("EOF"),
        "{skipped:?}"
    );
    assert!(skipped[1].ends_with("the file is empty"), "{skipped:?}");
}

/// A typo must not silently put the node on another network.
#[test]
fn a_directory_of_broken_files_is_an_error_and_not_an_empty_one() {
    let dir = dir_with(&[("10-a.conflist", "{"), ("20-b.conf", "[]")]);
    let error = NetworkList::load_dir(dir.path()).unwrap_err().to_string();
    assert!(
        error.starts_with("no usable network configuration in "),
        "{error}"
    );
    assert!(
        error.contains("10-a.conflist") && error.contains("20-b.conf\": not a JSON object"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        ("", "the file is empty"),
        ("[]", "not a JSON object"),
        (r#"{"cniVersion": "1.0.0"}"#, "key \"name\" is missing"),
        (
            r#"{"cniVersion": "1.0.0", "name": 1}"#,
            "key \"name\" is not a string: 1",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "../x"}"#,
            "network name \"../x\": must start with",
        ),
        (
            r#"{"name": "a", "plugins": [{"type": "b"}]}"#,
            "key \"cniVersion\" is missing; one of 0.3.0",
        ),
        (
            r#"{"cniVersion": "0.2.0", "name": "a"}"#,
            "cniVersion 0.2.0 is not supported; supported: 0.3.0",
        ),
        (
            r#"{"cniVersion": "2.0.0", "name": "a"}"#,
            "cniVersion 2.0.0 is not supported",
        ),
        (
            r#"{"cniVersion": "one", "name": "a"}"#,
            "cniVersion: \"one\" is not a version",
        ),
        (
            r#"{"cniVersions": "1.0.0", "name": "a"}"#,
            "key \"cniVersions\" is not a list",
        ),
        (
            r#"{"cniVersions": ["1.0.0", 2], "name": "a"}"#,
            "cniVersions[1]: not a string: 2",
        ),
        (r#"{"cniVersion": "1.0.0", "name": "a"}"#, "no plugins"),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#,
            "key \"plugins\" is empty",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": {}}"#,
            "key \"plugins\" is not a list",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [1]}"#,
            "plugins[0]: not a JSON object",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x"}, {}]}"#,
            "plugins[1]: key \"type\" is missing",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "../sh"}]}"#,
            "plugins[0]: type \"../sh\" contains `/`",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": ".."}]}"#,
            "plugins[0]: type \"..\" is not a file name",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x", "capabilities": {"mac": "yes"}}]}"#,
            "plugins[0]: capability \"mac\" is neither true nor false",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "loadOnlyInlinedPlugins": true}"#,
            "\"loadOnlyInlinedPlugins\" is true",
        ),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "disableGC": 1}"#,
            "key \"disableGC\" is neither true nor false: 1",
        ),
        (&format!("{LIST} x"), "trailing characters"),
    ] {
        let got = reason(text);
        assert!(got.contains(expected), "{text}: {got}");
    }
}

#[test]
fn the_newest_supported_version_is_chosen() {
    let with = |versions: Value| {
        let text = json!({"cniVersion": "0.4.0", "cniVersions": versions, "name": "a", "plugins": [{"type": "b"}]}).to_string();
        NetworkList::parse(text.as_bytes())
            .unwrap()
            .cni_version()
            .to_string()
    };
    assert_eq!(with(json!([])), "0.4.0");
    assert_eq!(with(json!(["1.0.0", "0.3.1"])), "1.0.0");
    assert_eq!(with(json!(["1.1.0", "9.0.0", "0.2.0"])), "1.1.0");
}

/// libcni 1.3: plugin files in a directory of the network's name join the list.
#[test]
fn plugins_from_the_network_s_directory_join_and_are_kept_in_the_cached_form() {
    let dir = dir_with(&[
        ("10-a.conflist", LIST),
        ("a/20.conf", r#"{"type": "second"}"#),
        (
            "a/10.conf",
            r#"{"type": "first", "capabilities": {"portMappings": true}}"#,
        ),
        ("a/30.json", r#"{"type": "other"}"#),
    ]);
    let network = NetworkList::load_dir(dir.path()).unwrap().unwrap();
    let names: Vec<&str> = network
        .plugins()
        .iter()
        .map(|p| p.plugin.as_str())
        .collect();
    assert_eq!(names, ["bridge", "first", "second"]);
    assert_eq!(network.capabilities(), ["portMappings"]);
    assert_eq!(
        NetworkList::parse(network.raw().to_string().as_bytes()).unwrap(),
        network
    );
    let only = LIST.replace("\"name\"", "\"loadOnlyInlinedPlugins\": \"true\", \"name\"");
    fs::write(dir.path().join("10-a.conflist"), only).unwrap();
    assert_eq!(
        NetworkList::load_dir(dir.path())
            .unwrap()
            .unwrap()
            .plugins()
            .len(),
        1
    );
}

#[test]
fn the_builtin_network_knows_itself_after_it_was_cached() {
    let network = NetworkList::builtin(&crate::BuiltinOptions::default());
    assert!(network.is_builtin());
    let cached = NetworkList::parse(network.raw().to_string().as_bytes()).unwrap();
    assert_eq!(cached, network);
    assert!(!NetworkList::parse(LIST.as_bytes()).unwrap().is_builtin());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9./-]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof![
            Just("name"),
            Just("type"),
            Just("plugins"),
            Just("cniVersion"),
            Just("cniVersions"),
            Just("capabilities"),
            Just("ipam"),
            Just("x")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        NetworkList::parse(&text).ok();
    }

    /// What is taken can be cached and read back as the same, and every name in it is safe as a file name.
    #[test]
    fn what_the_parser_takes_survives_the_cache(value in any_json()) {
        for value in [value.clone(), json!({"cniVersion": "1.0.0", "name": "n", "plugins": value})] {
            let Ok(network) = NetworkList::parse(value.to_string().as_bytes()) else { continue };
            prop_assert_eq!(&NetworkList::parse(network.raw().to_string().as_bytes()).unwrap(), &network);
            prop_assert!(network.plugins().iter().all(|p| !p.plugin.contains('/') && !p.plugin.is_empty()));
        }
    }

    #[test]
    fn no_answer_of_a_plugin_makes_the_reader_panic(value in any_json()) {
        crate::AddResult::parse(value, Version::NEWEST).ok();
    }
}
