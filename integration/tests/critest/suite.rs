//! One run of critest against one server, and its report.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use integration::bin;
use integration::command::{outcome, run};
use serde_json::Value;

/// How each spec ended.
pub(crate) type Specs = BTreeMap<String, Ended>;

/// How a spec ended.
pub(crate) struct Ended {
    /// `passed`, `skipped`, `failed`, `panicked`, `timedout` ...
    pub(crate) state: String,
    pub(crate) message: String,
}

/// What to run.
#[derive(Default)]
pub(crate) struct Suite<'a> {
    /// The runtime handler; empty for the server's default.
    pub(crate) handler: &'a str,
    /// A regular expression of specs.
    pub(crate) focus: &'a str,
    /// Regular expressions of specs to leave out.
    pub(crate) skip: &'a [&'a str],
    /// How many specs at a time; `None` is one after the other.
    pub(crate) at_once: Option<u32>,
    /// Further flags.
    pub(crate) flags: &'a [&'a str],
}

// === impl Suite ===

impl Suite<'_> {
    /// Runs it on the server behind `socket`; `log` says what the server did when there is no report.
    ///
    /// # Panics
    /// When critest leaves no report, or no spec ran.
    pub(crate) fn run(&self, socket: &Path, log: impl Fn() -> String) -> Specs {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report.json");
        let endpoint = format!("unix://{}", socket.display());
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=30", "800"])
            .arg(bin::genuine("critest").unwrap())
            .args(["--runtime-endpoint", &endpoint])
            .args(["--image-endpoint", &endpoint])
            .args(["--runtime-handler", self.handler])
            .arg("--ginkgo.no-color")
            .arg(format!("--ginkgo.focus={}", self.focus))
            .args(self.skip.iter().map(|skip| format!("--ginkgo.skip={skip}")))
            .arg("--ginkgo.json-report=report.json")
            .args(self.flags)
            .current_dir(dir.path())
            // A pod's own network is reached directly.
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env("PATH", path_with_ginkgo());
        if let Some(count) = self.at_once {
            command.args(["--parallel", &count.to_string()]);
        }
        let segments = shared_memory();
        let ended = outcome(&mut command);
        for segment in shared_memory().difference(&segments) {
            run("ipcrm", ["--shmem-id", segment]);
        }
        let text = std::fs::read_to_string(&report)
            .unwrap_or_else(|error| panic!("{error}\n{ended}\n{}", log()));
        let specs = read(&serde_json::from_str(&text).unwrap());
        assert!(!specs.is_empty(), "no spec ran: {ended}");
        specs
    }
}

/// How many specs ended in `state`.
pub(crate) fn count(specs: &Specs, state: &str) -> usize {
    specs.values().filter(|spec| spec.state == state).count()
}

/// `PATH` with the directory of critest, where ginkgo is, too: it runs specs in parallel.
fn path_with_ginkgo() -> std::ffi::OsString {
    let tools = bin::genuine("critest").unwrap();
    let tools = tools.parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(tools).chain(std::env::split_paths(&path));
    std::env::join_paths(path).unwrap()
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
fn read(report: &Value) -> Specs {
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
        let name = name.join(" ");
        let name = name.strip_prefix("[k8s.io] ").unwrap_or(&name).to_owned();
        specs.insert(name, Ended { state, message });
    }
    specs
}
