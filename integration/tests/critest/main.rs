//! critest, the conformance suite of the container runtime interface, on Debian's containerd: with runc, and with
//! davit-oci in its place. No spec that passes with runc may fail with ours.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod images;

use std::collections::BTreeMap;
use std::process::Command;

use integration::bin;
use integration::command::{outcome, run};
use integration::peer::{Containerd, ContainerdOptions};
use serde_json::Value;

/// Specs that no container takes part in, or that nobody can run here, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    (
        "Image Manager|Image Consistency|Image Identifier Consistency|RemoveImage",
        "about the image store: no OCI runtime is called, and one of the images exists nowhere but in its registry",
    ),
    (
        "AppArmor",
        "this kernel has none, they would skip themselves",
    ),
];
/// Most of the time a spec waits for a state.
const AT_ONCE: &str = "8";

/// How each spec ended.
type Specs = BTreeMap<String, Ended>;

/// How a spec ended.
struct Ended {
    /// `passed`, `skipped`, `failed`, `panicked`, `timedout` ...
    state: String,
    message: String,
}

/// Runs critest on a fresh containerd; `None` is its own runtime, runc.
fn critest(runtime: Option<&std::path::Path>, focus: &str) -> Specs {
    let containerd = Containerd::start_with(ContainerdOptions {
        runtime: runtime.map(Into::into),
        host_ports: true,
    });
    images::import(&containerd);
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let endpoint = format!("unix://{}", containerd.socket().display());
    let program = bin::genuine("critest").unwrap();
    let tools = program.parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(tools).chain(std::env::split_paths(&path));
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=30", "800"])
        .arg(program)
        .args([
            "--runtime-endpoint",
            &endpoint,
            "--image-endpoint",
            &endpoint,
        ])
        .args(["--parallel", AT_ONCE, "--ginkgo.no-color"])
        .arg(format!("--ginkgo.focus={focus}"))
        .args(LEFT_OUT.map(|(skip, _)| format!("--ginkgo.skip={skip}")))
        .arg("--ginkgo.json-report=report.json")
        .current_dir(dir.path())
        // A pod's own network is reached directly.
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env("PATH", std::env::join_paths(path).unwrap());
    let segments = shared_memory();
    let ended = outcome(&mut command);
    for segment in shared_memory().difference(&segments) {
        run("ipcrm", ["--shmem-id", segment]);
    }
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{error}\n{ended}\n{}", containerd.log()));
    let specs = specs(&serde_json::from_str(&text).unwrap());
    assert!(!specs.is_empty(), "no spec ran: {ended}");
    specs
}

/// The segments of System V shared memory: a spec makes one and leaves it.
fn shared_memory() -> std::collections::BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let ids = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

/// Reads ginkgo's report, leaving out what the focus left out.
fn specs(report: &Value) -> Specs {
    let mut specs = Specs::new();
    let texts = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for spec in report
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten())
    {
        if spec["LeafNodeType"] != "It" {
            continue;
        }
        let parts = spec["ContainerHierarchyTexts"]
            .as_array()
            .into_iter()
            .flatten();
        let mut name: Vec<String> = parts.map(texts).collect();
        name.push(texts(&spec["LeafNodeText"]));
        let message = texts(&spec["Failure"]["Message"]);
        // Left out by focus or skip: skipped without a word.
        if spec["State"] == "skipped" && message.is_empty() {
            continue;
        }
        let state = texts(&spec["State"]);
        specs.insert(name.join(" "), Ended { state, message });
    }
    specs
}

/// Runs both and compares.
fn compare(focus: &str) {
    if bin::skipped_for_want_of(&[
        "critest",
        "ginkgo",
        "containerd",
        "runc",
        "ctr",
        "nginx",
        "nft",
    ]) {
        return;
    }
    for (specs, reason) in LEFT_OUT {
        println!("left out: {specs}: {reason}");
    }
    let theirs = critest(None, focus);
    let ours = critest(Some(&bin::ours("davit-oci")), focus);
    let count =
        |specs: &Specs, state: &str| specs.values().filter(|spec| spec.state == state).count();
    for (name, specs) in [("runc", &theirs), ("davit-oci", &ours)] {
        println!(
            "containerd with {name}: {} passed, {} skipped of {}",
            count(specs, "passed"),
            count(specs, "skipped"),
            specs.len()
        );
    }
    for (name, spec) in theirs.iter().filter(|(_, spec)| spec.state == "skipped") {
        println!("skips itself with runc: {name}: {}", spec.message);
    }
    for (name, spec) in theirs.iter().filter(|(_, spec)| spec.state == "failed") {
        let with_ours = ours.get(name).map_or("missing", |spec| &spec.state);
        println!(
            "fails with runc, {with_ours} with davit-oci: {name}: {}",
            spec.message
        );
    }
    let broken: Vec<String> = theirs
        .iter()
        .filter(|(_, spec)| spec.state == "passed")
        .filter_map(|(name, _)| match ours.get(name) {
            Some(spec) if spec.state == "passed" => None,
            Some(spec) => Some(format!("{name}: {}: {}", spec.state, spec.message)),
            None => Some(format!("{name}: did not run")),
        })
        .collect();
    assert!(
        broken.is_empty(),
        "pass with runc, and not with davit-oci:\n{}",
        broken.join("\n")
    );
    let passed = count(&theirs, "passed");
    assert!(
        passed > theirs.len() / 2,
        "only {passed} pass with runc: the test itself is wrong"
    );
}

/// All specs take three minutes for both; `DAVIT_TEST_FOCUS` runs only those that match.
#[test]
fn critest_passes_on_containerd_with_davit_oci_as_with_runc() {
    compare(&std::env::var("DAVIT_TEST_FOCUS").unwrap_or_else(|_| ".".to_owned()));
}
