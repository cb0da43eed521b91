//! Test images, made from Debian's static busybox and from plain files, as OCI layouts.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// An image to be: some files in one layer each, and a configuration.
#[derive(Debug, Clone)]
pub struct TestImage {
    layers: Vec<Vec<u8>>,
    compression: Compression,
    config: Value,
    platforms: Vec<String>,
    ref_name: String,
}

/// `sha256:<hex>` of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

// === impl TestImage ===

impl TestImage {
    /// An image with busybox and its usual links, users and directories.
    ///
    /// # Panics
    /// When busybox-static is not installed.
    #[must_use]
    pub fn busybox() -> TestImage {
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let mut layer = Layer::new();
        for dir in [
            "bin", "etc", "proc", "sys", "dev", "root", "var", "var/www", "home",
        ] {
            layer.dir(dir, 0o755);
        }
        layer.dir("tmp", 0o1777);
        layer.file("bin/busybox", 0o755, &busybox);
        for applet in APPLETS {
            layer.link(&format!("bin/{applet}"), "busybox");
        }
        layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
        layer.file(
            "etc/group",
            0o644,
            b"root:x:0:\nwww:x:33:\nextra:x:1234:www\nnogroup:x:65534:\n",
        );
        TestImage {
            layers: vec![layer.finish()],
            compression: Compression::Gzip,
            config: json!({"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["/bin/sh"]}),
            platforms: vec!["amd64".to_owned()],
            ref_name: "latest".to_owned(),
        }
    }

    /// The same image with another layer on top that holds `files` (path, content).
    #[must_use]
    pub fn with_files(mut self, files: &[(&str, &[u8])]) -> TestImage {
        let mut layer = Layer::new();
        for (path, content) in files {
            layer.file(path, 0o644, content);
        }
        self.layers.push(layer.finish());
        self
    }

    /// The same image with a ready layer (an uncompressed tar) on top.
    #[must_use]
    pub fn with_layer(mut self, tar: Vec<u8>) -> TestImage {
        self.layers.push(tar);
        self
    }

    /// The same image with one key of its configuration set, for example `User`.
    #[must_use]
    pub fn with_config(mut self, key: &str, value: Value) -> TestImage {
        self.config[key] = value;
        self
    }

    /// The same image with its layers compressed another way.
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> TestImage {
        self.compression = compression;
        self
    }

    /// The same image as an index over several architectures.
    #[must_use]
    pub fn for_platforms(mut self, architectures: &[&str]) -> TestImage {
        self.platforms = architectures.iter().map(|&arch| arch.to_owned()).collect();
        self
    }

    /// The same image with another `org.opencontainers.image.ref.name`.
    #[must_use]
    pub fn named(mut self, name: &str) -> TestImage {
        self.ref_name = name.to_owned();
        self
    }

    /// Writes an OCI image layout to `dir`.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn write_layout(&self, dir: &Path) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("the layout's directory");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("oci-layout");
        let manifests: Vec<Value> = self
            .platforms
            .iter()
            .map(|arch| self.write_manifest(dir, arch))
            .collect();
        let mut top = match manifests.as_slice() {
            [one] => one.clone(),
            many => {
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": many});
                put(dir, INDEX, index.to_string().as_bytes())
            }
        };
        top["annotations"] = json!({"org.opencontainers.image.ref.name": self.ref_name});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
        std::fs::write(dir.join("index.json"), index.to_string()).expect("index.json");
    }

    /// Writes an OCI layout as one tar file.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_archive(&self, file: &Path) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        self.write_layout(dir.path());
        let mut tar = tar::Builder::new(std::fs::File::create(file).expect("the archive"));
        tar.append_dir_all(".", dir.path()).expect("the layout");
        tar.finish().expect("the archive's end");
    }

    /// One platform's manifest, its configuration and its layers; returns the manifest's descriptor.
    fn write_manifest(&self, dir: &Path, arch: &str) -> Value {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest_of(layer)).collect();
        let config = json!({
            "architecture": arch, "os": "linux", "created": "2026-01-02T03:04:05Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = put(
            dir,
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| self.write_layer(dir, layer))
            .collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = put(dir, MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"architecture": arch, "os": "linux"});
        descriptor
    }

    fn write_layer(&self, dir: &Path, tar: &[u8]) -> Value {
        match self.compression {
            Compression::None => put(dir, "application/vnd.oci.image.layer.v1.tar", tar),
            Compression::Gzip => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(tar).expect("gzip");
                put(
                    dir,
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    &gzip.finish().expect("gzip"),
                )
            }
            Compression::Zstd => {
                let bytes = zstd::encode_all(tar, 3).expect("zstd");
                put(dir, "application/vnd.oci.image.layer.v1.tar+zstd", &bytes)
            }
        }
    }
}

/// One layer under construction.
pub struct Layer(tar::Builder<Vec<u8>>);

// === impl Layer ===

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    /// Adds a directory.
    pub fn dir(&mut self, path: &str, mode: u32) {
        self.entry(path, tar::EntryType::Directory, mode, &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, tar::EntryType::Regular, mode, content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0
            .append_link(&mut header, path, target)
            .expect("a link");
    }

    /// Adds a program of this machine as `path`, with the shared libraries that it needs in their places.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn program(&mut self, path: &str, mode: u32, of_host: &Path) {
        let read =
            |file: &str| std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.file(path, mode, &read(&of_host.to_string_lossy()));
        let needed = crate::command::run("ldd", [of_host]).ok();
        // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x7f...)", and the loader by its path alone.
        let libraries = needed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for library in libraries {
            self.file(library.trim_start_matches('/'), 0o755, &read(library));
        }
    }

    /// The finished tar.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("the layer's end")
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
        let mut header = header(kind, mode, content.len() as u64);
        self.0
            .append_data(&mut header, path, content)
            .expect("an entry");
    }
}

impl Default for Layer {
    fn default() -> Self {
        Layer::new()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    // A fixed time keeps the digests the same in every run.
    header.set_mtime(1_700_000_000);
    header
}

/// Stores a blob in a layout and returns its descriptor.
fn put(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest_of(bytes);
    std::fs::write(
        dir.join("blobs/sha256").join(&digest["sha256:".len()..]),
        bytes,
    )
    .expect("a blob");
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The busybox applets that the tests use.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "id", "hostname", "sleep", "true", "false", "env", "mount", "grep",
    "dd", "head", "tail", "wc", "seq", "ip", "nc", "wget", "httpd", "ping", "kill", "ps", "top",
    "touch", "mkdir", "rm", "chmod", "stat", "awk", "sed", "printf", "test", "date", "readlink",
    "mknod", "nslookup", "df", "yes", "tr", "cut", "netstat", "pidof", "brctl",
];
