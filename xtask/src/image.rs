//! The sample image: an OCI image layout in one tar file, made of one static binary. The same input gives the same bytes.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where the sample's image lives by name; `localhost` so that nobody takes it for one from a public registry.
const REFERENCE: &str = "localhost/davit-sample:latest";
/// The sample serves as an ordinary user: nothing in it needs more.
const USER: u32 = 65532;
const PORT: &str = "8080/tcp";

/// Writes the image of `binary` to `image`.
pub(crate) fn write_sample(binary: &Path, image: &Path) -> Result<()> {
    let program = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let bytes = layout(&program)?;
    let temporary = image.with_extension("tar.new");
    fs::write(&temporary, bytes).with_context(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, image)
        .with_context(|| format!("rename {} to {}", temporary.display(), image.display()))
}

/// The whole layout: `oci-layout`, `index.json` and three blobs.
fn layout(program: &[u8]) -> Result<Vec<u8>> {
    let layer = layer(program)?;
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": {PORT: {}},
            "Entrypoint": ["/davit-sample"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": {"org.opencontainers.image.title": "davit-sample", "org.opencontainers.image.licenses": "Apache-2.0"},
        },
        // The layer is not compressed, so its digest and its diff id are the same.
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created_by": "cargo xtask build"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    // The first is the spec's, which allows a tag alone or a whole name; the second is containerd's and docker's.
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": REFERENCE, "io.containerd.image.name": REFERENCE});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry],
    }))?;

    let mut tar = Archive::new();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, &index)?;
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    for blob in [&config, &manifest, &layer] {
        tar.file(&format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
    }
    tar.finish()
}

/// The root file system: the program, and names for the user it runs as.
fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Archive::new();
    tar.directory("etc/")?;
    tar.file(
        "etc/passwd",
        0o644,
        format!("root:x:0:0:root:/:/none\nsample:x:{USER}:{USER}:sample:/:/none\n").as_bytes(),
    )?;
    tar.file(
        "etc/group",
        0o644,
        format!("root:x:0:\nsample:x:{USER}:\n").as_bytes(),
    )?;
    tar.file("davit-sample", 0o755, program)?;
    tar.finish()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A tar whose every header is the same on every machine and day.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, mode, tar::EntryType::Regular, content)
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, 0o755, tar::EntryType::Directory, &[])
    }

    fn entry(&mut self, path: &str, mode: u32, kind: tar::EntryType, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(u64::try_from(content.len())?);
        self.0
            .append_data(&mut header, path, content)
            .with_context(|| format!("tar entry {path}"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("finish the tar")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let each = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        each.collect()
    }

    /// image-layout.md: every blob is named by the digest of its content, and every descriptor says its size.
    #[test]
    fn each_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let files = files(&layout(b"the program").unwrap());
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"]
                .as_str()
                .unwrap()
                .replace("sha256:", "blobs/sha256/");
            let content = &files[&name];
            assert_eq!(digest(content), descriptor["digest"].as_str().unwrap());
            assert_eq!(
                u64::try_from(content.len()).unwrap(),
                descriptor["size"].as_u64().unwrap()
            );
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(super::tests::files(&layer)["davit-sample"], b"the program");
    }

    #[test]
    fn the_same_program_gives_the_same_image() {
        assert_eq!(layout(b"x").unwrap(), layout(b"x").unwrap());
        assert_ne!(layout(b"x").unwrap(), layout(b"y").unwrap());
    }

    #[test]
    fn the_image_appears_under_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (binary, image) = (
            dir.path().join("davit-sample"),
            dir.path().join("davit-sample.tar"),
        );
        assert!(write_sample(&binary, &image).is_err());
        assert!(!image.exists());
        fs::write(&binary, b"x").unwrap();
        write_sample(&binary, &image).unwrap();
        assert_eq!(fs::read(&image).unwrap(), layout(b"x").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
