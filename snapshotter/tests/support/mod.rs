//! What the tests of the store share: images made on the spot, registries, a scratch store.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses a part of it"
)]

pub mod http;
pub mod image;
pub mod mount;
pub mod registry;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snapshotter::{Options, RetryPolicy, Store};

/// A directory on a real file system, gone afterwards.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(
            tempfile::Builder::new()
                .prefix("davit-snapshotter-")
                .tempdir_in("/var/tmp")
                .unwrap(),
        )
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Options for a store in `scratch` that gives up soon.
pub fn options(scratch: &Scratch) -> Options {
    Options {
        root: scratch.join("store"),
        hosts_dirs: vec![scratch.join("hosts.d")],
        retry: RetryPolicy {
            attempts: 3,
            first_delay: Duration::from_millis(10),
            max_delay: Duration::from_secs(2),
        },
        progress_timeout: Duration::from_secs(2),
        ..Options::default()
    }
}

pub fn store(scratch: &Scratch) -> Store {
    Store::open(options(scratch)).unwrap()
}

/// Writes `hosts.toml` for a registry.
pub fn hosts_toml(scratch: &Scratch, registry: &str, text: &str) {
    let dir = scratch.join("hosts.d").join(registry);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hosts.toml"), text).unwrap();
}

/// What is in a directory, by name.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// That a failed operation left nothing in the store but what was there.
pub fn assert_clean(scratch: &Scratch, layers: usize) {
    assert_eq!(
        names(&scratch.join("store/ingest")),
        Vec::<String>::new(),
        "ingest"
    );
    assert_eq!(names(&scratch.join("store/layers")).len(), layers, "layers");
}

/// Waits for a condition, at most 10 s.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within 10 s"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A pull without credentials.
pub fn request(reference: &str) -> snapshotter::PullRequest {
    snapshotter::PullRequest {
        reference: reference.to_owned(),
        auth: None,
        platform: None,
    }
}

pub async fn pull(
    store: &Store,
    reference: &str,
) -> Result<snapshotter::Image, snapshotter::Error> {
    store
        .pull(request(reference), snapshotter::ProgressSink::none())
        .await
}
