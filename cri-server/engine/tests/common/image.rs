//! A test image from Debian's static busybox, as an OCI layout.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The links to busybox that the tests use.
const APPLETS: [&str; 22] = [
    "sh", "cat", "echo", "sleep", "true", "false", "id", "env", "ls", "mount", "hostname", "head",
    "dd", "seq", "wc", "kill", "ps", "touch", "test", "pwd", "ip", "nproc",
];

/// Writes an OCI layout with one image into `dir`. `change` alters the image's `config` object.
pub fn write_layout(dir: &Path, change: impl FnOnce(&mut Value)) {
    write_layout_of(dir, &layer(), change);
}

/// The same with data for a volume in it: a directory, a program, and links that lead out of the image.
pub fn write_data_layout(dir: &Path) {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["models/", "models/small/"] {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        tar.append_data(&mut header, name, &[][..])
            .expect("directory");
    }
    for (name, mode, content) in [
        ("models/small/weights", 0o644, "1 2 3\n"),
        ("models/run", 0o755, "#!/bin/sh\necho ran\n"),
    ] {
        let mut header = header(tar::EntryType::Regular, mode, content.len());
        tar.append_data(&mut header, name, content.as_bytes())
            .expect("file");
    }
    for (name, target) in [("models/out", "/etc"), ("models/up", "../../../../etc")] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, name, target).expect("link");
    }
    write_layout_of(dir, &tar.into_inner().expect("tar"), |_| {});
}

fn write_layout_of(dir: &Path, layer: &[u8], change: impl FnOnce(&mut Value)) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("blobs");
    let put = |bytes: &[u8]| -> (String, usize) {
        let hex: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(blobs.join(&hex), bytes).expect("blob");
        (format!("sha256:{hex}"), bytes.len())
    };
    let (layer_digest, layer_size) = put(layer);
    let mut run = json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "Cmd": ["/bin/sh"],
        "WorkingDir": "/",
    });
    change(&mut run);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let (config_digest, config_size) = put(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size}],
    });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size}],
    });
    fs::write(dir.join("index.json"), index.to_string()).expect("index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
}

/// One layer: busybox with its links, users and groups.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in ["bin", "etc", "proc", "sys", "dev", "root", "tmp", "srv"] {
        let mut header = header(
            tar::EntryType::Directory,
            if dir == "tmp" { 0o1777 } else { 0o755 },
            0,
        );
        tar.append_data(&mut header, format!("{dir}/"), &[][..])
            .expect("directory");
    }
    let files: [(&str, u32, Vec<u8>); 3] = [
        (
            "bin/busybox",
            0o755,
            fs::read("/bin/busybox").expect("busybox-static is installed"),
        ),
        (
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n".to_vec(),
        ),
        (
            "etc/group",
            0o644,
            b"root:x:0:\nweb:x:1001:\nlogs:x:50:web\n".to_vec(),
        ),
    ];
    for (path, mode, content) in files {
        let mut header = header(tar::EntryType::Regular, mode, content.len());
        tar.append_data(&mut header, path, content.as_slice())
            .expect("file");
    }
    for applet in APPLETS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .expect("link");
    }
    tar.into_inner().expect("tar")
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(1_700_000_000);
    header
}
