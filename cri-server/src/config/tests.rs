use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;

/// Flags for a configuration file with this text; the directory must live as long as the flags.
fn flags(text: &str, more: &[&str]) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).expect("write the configuration");
    let fixed = [
        "davit-cri",
        "--shim",
        "/bin/true",
        "--oci-runtime",
        "/bin/true",
        "--config",
    ];
    let all = fixed
        .iter()
        .map(PathBuf::from)
        .chain([file])
        .chain(more.iter().map(PathBuf::from));
    (dir, Flags::parse_from(all))
}

fn load(text: &str, more: &[&str]) -> Settings {
    let (_dir, flags) = flags(text, more);
    Settings::load(&flags).expect("a good configuration")
}

/// The problems, without the directory of the file.
fn problems(text: &str, more: &[&str]) -> Vec<String> {
    let (dir, flags) = flags(text, more);
    let all = Settings::load(&flags)
        .expect_err("a bad configuration")
        .to_string();
    all.replace(&format!("{}/", dir.path().display()), "")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_empty_file_gives_our_runtime_under_its_name() {
    let settings = load("", &[]);
    assert_eq!(settings.socket, Path::new("/run/davit/davit-cri.sock"));
    assert_eq!(settings.engine.default_handler, "davit-oci");
    assert_eq!(
        settings.engine.handlers["davit-oci"],
        Handler::new("/bin/true")
    );
    assert_eq!(settings.engine.network.bridge, "davit0");
}

#[test]
fn the_socket_follows_the_run_directory() {
    assert_eq!(
        load("", &["--run-dir", "/run/other"]).socket,
        Path::new("/run/other/davit-cri.sock")
    );
}

#[test]
fn a_runtime_of_the_file_becomes_a_handler_and_the_default() {
    let text = "default_runtime = \"runc\"\n[runtimes.runc]\npath = \"/usr/sbin/runc\"\nroot = \"/run/r\"\nargs = [\"--debug\"]\n";
    let settings = load(text, &[]);
    let runc = Handler {
        path: "/usr/sbin/runc".into(),
        root: Some("/run/r".into()),
        args: vec!["--debug".into()],
    };
    assert_eq!(settings.engine.handlers["runc"], runc);
    assert_eq!(settings.engine.default_handler, "runc");
    assert!(settings.engine.handlers.contains_key("davit-oci"));
}

#[test]
fn a_flag_wins_over_the_file() {
    let text = "[network]\nsubnet = \"10.1.0.0/16\"\nbridge = \"br1\"\n[runtimes.davit-oci]\npath = \"/usr/bin/env\"\n";
    let settings = load(text, &["--subnet", "10.2.0.0/24"]);
    assert_eq!(
        settings.engine.network.subnet.as_deref(),
        Some("10.2.0.0/24")
    );
    assert_eq!(settings.engine.network.bridge, "br1");
    assert_eq!(
        settings.engine.handlers["davit-oci"].path,
        Path::new("/bin/true")
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = "\
default_runtime = \"rnuc\"
stop_timeout = 3

[runtimes.runc]
path = \"runc\"
arg = []

[runtimes.crun]
args = [1]

[network]
bridge = \"a-name-that-is-too-long\"
subnet = \"10.0.0.0/33\"
subnet6 = \"10.0.0.0/8\"
";
    assert_eq!(
        problems(text, &[]),
        [
            "config.toml:1: default_runtime: no runtime is called \"rnuc\"; known are crun, davit-oci, runc",
            "config.toml:2: stop_timeout: unknown key; known are default_runtime, cgroup_root, cgroup_driver, log_level, runtimes, network, metrics, images, streaming",
            "config.toml:5: runtimes.runc.path: \"runc\" is not an absolute path",
            "config.toml:6: runtimes.runc.arg: unknown key; known are path, root, args",
            "config.toml:8: runtimes.crun.path: is missing",
            "config.toml:9: runtimes.crun.args: must be an array of strings, is array",
            "config.toml:12: network.bridge: \"a-name-that-is-too-long\" cannot be the name of a network link (1 to 15 bytes, no slash, colon or space)",
            "config.toml:13: network.subnet: \"10.0.0.0/33\": a prefix of 33 bits leaves no room for pods; use 1 to 30",
            "config.toml:14: network.subnet6: \"10.0.0.0/8\" is neither \"auto\" nor an IPv6 subnet such as \"fd00:89::/64\"",
        ]
        .map(String::from)
        .to_vec()
    );
}

#[test]
fn the_cgroup_driver_is_one_of_two() {
    let driver = |text| load(text, &[]).engine.cgroup_driver;
    assert_eq!(driver(""), engine::CgroupDriver::Cgroupfs);
    assert_eq!(
        driver("cgroup_driver = \"systemd\"\n"),
        engine::CgroupDriver::Systemd
    );
    assert_eq!(
        problems("cgroup_driver = \"cgmanager\"\n", &[]),
        ["config.toml:1: cgroup_driver: \"cgmanager\" is neither \"cgroupfs\" nor \"systemd\""]
    );
}

#[test]
fn images_are_pinned_and_given_time_by_the_file() {
    let images = load(
        "[images]\npinned = [\"a/b:1\"]\npull_progress_timeout_s = 7\n",
        &[],
    )
    .engine
    .images;
    assert_eq!(images.pinned, ["a/b:1"]);
    assert_eq!(images.progress_timeout.as_secs(), 7);
    assert_eq!(
        problems("[images]\npull_progress_timeout_s = 0\npin = 1\n", &[]),
        [
            "config.toml:2: images.pull_progress_timeout_s: 0 is not between 1 and 86400 seconds",
            "config.toml:3: images.pin: unknown key; known are pinned, pull_progress_timeout_s",
        ]
    );
}

#[test]
fn a_syntax_error_is_reported_with_its_line() {
    let all = problems("default_runtime = \"runc\"\n[runtimes\n", &[]);
    assert!(all[0].starts_with("config.toml:2: "), "{all:?}");
}

#[test]
fn wrong_flags_are_reported_together_with_the_file() {
    let all = problems(
        "x = 1\n",
        &["--subnet", "fd00::/64", "--cgroup-root", "davit"],
    );
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.iter().any(|p| p.starts_with("--subnet: ")), "{all:?}");
    assert!(
        all.iter().any(|p| p.starts_with("--cgroup-root: ")),
        "{all:?}"
    );
}

#[test]
fn a_file_that_was_named_must_exist() {
    let flags = Flags::parse_from([
        "davit-cri",
        "--shim",
        "/bin/true",
        "--oci-runtime",
        "/bin/true",
        "--config",
        "/nonexistent/x.toml",
    ]);
    let text = Settings::load(&flags)
        .expect_err("no such file")
        .to_string();
    assert!(
        text.contains("/nonexistent/x.toml: cannot be read: No such file"),
        "{text}"
    );
}

#[test]
fn a_missing_binary_is_a_mistake_that_names_its_flag() {
    let flags = Flags::parse_from([
        "davit-cri",
        "--shim",
        "/nonexistent/shim",
        "--oci-runtime",
        "/etc/passwd",
    ]);
    let text = Settings::load(&flags)
        .expect_err("no such binaries")
        .to_string();
    assert!(
        text.contains("--shim: \"/nonexistent/shim\": No such file"),
        "{text}"
    );
    assert!(
        text.contains("--oci-runtime: \"/etc/passwd\" is not executable"),
        "{text}"
    );
}

#[test]
fn streams_are_served_on_the_loopback_unless_the_file_says_otherwise() {
    let streaming = load("", &[]).streaming;
    assert_eq!(streaming, StreamingConfig::default());
    assert!(streaming.address.is_loopback() && streaming.port == 0);
    let text = "[streaming]\naddress = \"::1\"\nport = 10250\ntls_cert = \"/c\"\ntls_key = \"/k\"\nidle_timeout_s = 60\nstream_creation_timeout_s = 5\n";
    let streaming = load(text, &[]).streaming;
    assert_eq!(streaming.address.to_string(), "::1");
    assert_eq!(streaming.port, 10250);
    assert_eq!(streaming.tls, Some(("/c".into(), "/k".into())));
    assert_eq!(streaming.idle_timeout.as_secs(), 60);
    assert_eq!(streaming.stream_creation_timeout.as_secs(), 5);
}

#[test]
fn mistakes_of_the_streaming_table_are_all_reported() {
    let text = "[streaming]\naddress = \"localhost\"\nport = 70000\nidle_timeout_s = 0\ntls_cert = \"/c\"\ntls = true\n";
    assert_eq!(
        problems(text, &[]),
        [
            "config.toml:1: streaming: tls_cert and tls_key belong together; one is missing",
            "config.toml:2: streaming.address: \"localhost\" is not an IP address",
            "config.toml:3: streaming.port: 70000 is not from 0 to 65535",
            "config.toml:4: streaming.idle_timeout_s: 0 is not from 1 to 604800",
            "config.toml:6: streaming.tls: unknown key; known are address, port, tls_cert, tls_key, idle_timeout_s, stream_creation_timeout_s",
        ]
    );
}
