//! A small image as an OCI layout: busybox, whatever the host has, and a passwd file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Dirs;

/// A static busybox; without it containers cannot be tested here.
const BUSYBOX: &str = "/bin/busybox";

/// Whether the host has what the image is made of. If not, the test says so, and with MUST_WORK=1 it fails.
pub(crate) fn can_be_made() -> bool {
    if Path::new(BUSYBOX).is_file() {
        return true;
    }
    assert!(
        std::env::var_os("MUST_WORK").is_none(),
        "{BUSYBOX} is not there: apt-get install busybox-static"
    );
    eprintln!("skipped: {BUSYBOX} is not there: apt-get install busybox-static");
    false
}

/// Writes the layout; the answer is its directory and the image's id.
pub(crate) fn layout(dirs: &Dirs, name: &str, user: &str) -> (PathBuf, String) {
    let root = dirs.path(name);
    fs::create_dir_all(root.join("blobs/sha256")).expect("made");
    let layer = rootfs();
    let diff_id = digest(&layer);
    let layer = blob(&root, &layer, "application/vnd.oci.image.layer.v1.tar");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "User": user},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = blob(
        &root,
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let id = config["digest"].as_str().expect("a digest").to_owned();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let manifest = blob(
        &root,
        manifest.as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    fs::write(
        root.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )
    .expect("written");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    (root, id)
}

fn rootfs() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        let mut header = header(tar::EntryType::Directory, 0);
        tar.append_data(&mut header, directory, &[][..])
            .expect("appended");
    }
    let busybox = fs::read(BUSYBOX).expect("readable");
    for (name, content) in [
        ("bin/busybox", &busybox[..]),
        (
            "etc/passwd",
            b"root:x:0:0::/:/bin/sh\nweb:x:1002:1003::/:/bin/sh\n",
        ),
    ] {
        let mut header = header(tar::EntryType::Regular, content.len());
        tar.append_data(&mut header, name, content)
            .expect("appended");
    }
    for applet in ["sh", "sleep", "echo", "cat", "true", "ps", "id"] {
        let mut header = header(tar::EntryType::Symlink, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .expect("appended");
    }
    tar.into_inner().expect("complete")
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size.try_into().expect("a size"));
    header
}

fn blob(root: &Path, content: &[u8], media_type: &str) -> Value {
    let digest = digest(content);
    let file = root
        .join("blobs/sha256")
        .join(digest.trim_start_matches("sha256:"));
    fs::write(file, content).expect("written");
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}
