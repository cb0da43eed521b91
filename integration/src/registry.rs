//! A real registry (Debian's docker-registry) on a free port of 127.0.0.1.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::image::TestImage;
use crate::{bin, command, wait};

/// A running registry; dropping it ends it and removes its files.
pub struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

// === impl Registry ===

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// When docker-registry cannot be started.
    #[must_use]
    pub fn start() -> Registry {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
                storage.display()
            ),
        )
        .expect("the registry's configuration");
        let program = bin::genuine("docker-registry").expect("docker-registry");
        let log = std::fs::File::create(dir.path().join("log")).expect("the registry's log");
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Registry { child, dir, port };
        wait::until_true("the registry listens", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        registry
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes `image` (and, where it is an index, each of its platforms) and returns its reference.
    #[track_caller]
    pub fn push(&self, image: &TestImage, name: &str) -> String {
        let layout = self.dir.path().join(name.replace(['/', ':'], "-"));
        image.write_layout(&layout);
        let reference = format!("{}/{name}", self.host());
        let skopeo = bin::genuine("skopeo").expect("skopeo");
        let source = format!("oci:{}", layout.display());
        let target = format!("docker://{reference}");
        let args = [
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--insecure-policy",
            &source,
            &target,
        ];
        let _pushed: String = command::run(skopeo, args).ok();
        reference
    }

    /// The digest that the registry gives for a tag of a repository.
    #[must_use]
    #[track_caller]
    pub fn digest(&self, name: &str) -> String {
        let skopeo = bin::genuine("skopeo").expect("skopeo");
        let source = format!("docker://{}/{name}", self.host());
        let raw = command::run(skopeo, ["inspect", "--raw", "--tls-verify=false", &source]);
        assert!(raw.code == 0, "{raw}");
        crate::image::digest_of(raw.stdout.as_bytes())
    }

    /// The directory where the registry keeps its blobs, for tests that damage them.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Already gone is what a drop wants.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port of 127.0.0.1 on which nothing listens at this moment.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
