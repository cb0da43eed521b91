//! The main job: `cargo xtask up` ends with the sample page fetched, `cargo xtask down` leaves nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration::command::{self, Outcome};
use integration::crictl::Crictl;
use integration::{bin, wait};

/// `cargo xtask <verb>` in this checkout, with the environment of a fresh login.
fn xtask(verb: &str) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["xtask", verb]);
    // What `cargo test` sets for its children must not reach another cargo.
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("CARGO_PKG_")
            || ours.starts_with("DAVIT_")
            || ours == "RUSTFLAGS"
            || ours == "MUST_WORK"
        {
            command.env_remove(&name);
        }
    }
    command::outcome(&mut command)
}

/// What a node with the default directories leaves on a machine.
fn machine() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    lines.extend(
        mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(|at| format!("mount {at}")),
    );
    for (kind, dir) in [
        ("link", "/sys/class/net"),
        ("network namespace", "/run/netns"),
        ("in /run", "/run"),
        ("address", "/var/lib/cni"),
    ] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            lines.insert(format!("{kind} {}", entry.file_name().to_string_lossy()));
        }
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        for group in std::fs::read_dir(hierarchy.path())
            .into_iter()
            .flatten()
            .flatten()
            .filter(|group| group.path().is_dir())
        {
            lines.insert(format!("cgroup {}", group.path().display()));
        }
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let exe = std::fs::read_link(process.path().join("exe")).unwrap_or_default();
        let name = exe
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("davit-") {
            lines.insert(format!(
                "process {name} {}",
                process.file_name().to_string_lossy()
            ));
        }
    }
    if let Some(nft) = bin::genuine("nft") {
        let rules = command::run(nft, ["list", "ruleset"]);
        lines.extend(
            rules
                .stdout
                .lines()
                .map(|line| format!("nftables {}", without_counts(line.trim()))),
        );
    }
    lines
}

/// A rule without its counters: other traffic of the machine moves those of rules that were there before.
fn without_counts(rule: &str) -> String {
    let mut words = Vec::new();
    let mut rest = rule.split(' ');
    while let Some(word) = rest.next() {
        words.push(word);
        if word == "packets" || word == "bytes" {
            rest.next();
        }
    }
    words.join(" ")
}

/// Takes the node down again when a test fails half-way.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", xtask("down"));
        }
    }
}

#[test]
fn up_ends_with_the_sample_page_fetched_and_down_leaves_nothing() {
    if bin::skipped_for_want_of(&["crictl", "nft"]) {
        return;
    }
    let socket = PathBuf::from("/run/davit/davit-cri.sock");
    assert!(
        !socket.exists(),
        "a node is already up on this machine: `cargo xtask down` first"
    );
    let before = machine();
    let down = Down;
    let up = xtask("up");
    let (code, text) = (up.code, format!("{}{}", up.stdout, up.stderr));
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("crictl") && text.contains("curl"),
        "it shows how to go on: {text}"
    );

    // The page is there for everybody, not only for `up` itself.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let crictl = Crictl::new(&socket, dir.path());
    let pod = crictl.ok(&["pods", "-q", "--state", "Ready"]);
    assert_eq!(pod.lines().count(), 1, "one pod: {pod}");
    let url = text
        .split_whitespace()
        .find(|word| word.starts_with("http://") && word.contains(&crictl.pod_ip(&pod)))
        .expect("the page's address")
        .trim_matches(|sign: char| !sign.is_alphanumeric() && sign != '/')
        .to_owned();
    let curl =
        bin::genuine("curl").map(|curl| command::run(curl, ["-sS", "--max-time", "5", &url]).ok());
    let name = crictl.pod_status(&pod)["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(page) = curl {
        assert!(
            page.contains(&name) && page.contains(&crictl.pod_ip(&pod)),
            "name and address: {page}"
        );
    }

    let again = xtask("up");
    assert_eq!(again.code, 0, "a second up is content: {again}");
    let _down: String = xtask("down").ok();
    wait::until("nothing is left", Duration::from_secs(20), || {
        let left: Vec<String> = machine().difference(&before).cloned().collect();
        if left.is_empty() {
            return Some(());
        }
        eprintln!("still there: {left:#?}");
        None
    });
    let _again: String = xtask("down").ok();
    drop(down);
}
