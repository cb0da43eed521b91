//! Images made in memory.
use std::collections::BTreeMap;
use std::io::Write;

use snapshotter::Digest;
use tar::{Builder, EntryType, Header};

/// A tar archive being made. Every entry belongs to 0:0 and has the time 1000 unless said otherwise.
pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Tar {
        Tar(Builder::new(vec![]))
    }

    pub fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(size as u64);
        header
    }

    /// An entry with a path that the builder would refuse, as a hostile archive has it.
    pub fn raw(mut self, path: &[u8], mut header: Header, data: &[u8]) -> Tar {
        assert!(path.len() <= 100);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn entry(mut self, path: &str, mut header: Header, data: &[u8]) -> Tar {
        self.0.append_data(&mut header, path, data).unwrap();
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Tar {
        self.entry(
            path,
            Tar::header(EntryType::Regular, 0o644, data.len()),
            data,
        )
    }

    pub fn mode_file(self, path: &str, mode: u32, data: &[u8]) -> Tar {
        self.entry(
            path,
            Tar::header(EntryType::Regular, mode, data.len()),
            data,
        )
    }

    pub fn dir(self, path: &str) -> Tar {
        self.mode_dir(path, 0o755)
    }

    pub fn mode_dir(self, path: &str, mode: u32) -> Tar {
        self.entry(path, Tar::header(EntryType::Directory, mode, 0), b"")
    }

    pub fn link(mut self, kind: EntryType, path: &str, target: &str) -> Tar {
        let mut header = Tar::header(kind, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, path, target)
    }

    pub fn hardlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Link, path, target)
    }

    /// PAX records for the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        self.0
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// How a layer is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pack {
    Gzip,
    Zstd,
    Plain,
}

/// A layer: the archive and its packed form.
#[derive(Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub pack: Pack,
}

impl Layer {
    pub fn new(tar: Vec<u8>, pack: Pack) -> Layer {
        let blob = match pack {
            Pack::Gzip => gzip(&tar),
            Pack::Zstd => zstd::encode_all(&tar[..], 3).unwrap(),
            Pack::Plain => tar.clone(),
        };
        Layer { tar, blob, pack }
    }

    pub fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }

    fn media_type(&self) -> &'static str {
        match self.pack {
            Pack::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Pack::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Pack::Plain => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An image: its documents and blobs.
#[derive(Clone)]
pub struct TestImage {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    pub layers: Vec<Layer>,
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image of these layers, as buildkit writes it.
pub fn image(layers: Vec<Layer>) -> TestImage {
    image_for(layers, "amd64", "")
}

pub fn image_for(layers: Vec<Layer>, architecture: &str, command: &str) -> TestImage {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.diff_id().to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "created": "2024-05-06T07:08:09Z",
        "config": { "Cmd": ["/bin/sh", "-c", command], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    with_config(layers, serde_json::to_vec(&config).unwrap())
}

pub fn with_config(layers: Vec<Layer>, config: Vec<u8>) -> TestImage {
    let descriptors: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| serde_json::json!({ "mediaType": layer.media_type(), "digest": layer.digest().to_string(), "size": layer.blob.len() }))
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config).to_string(), "size": config.len() },
        "layers": descriptors,
    });
    TestImage {
        config,
        manifest: serde_json::to_vec(&manifest).unwrap(),
        media_type: OCI_MANIFEST,
        layers,
    }
}

impl TestImage {
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The same as Docker's schema 2.
    pub fn docker(mut self) -> TestImage {
        let text = String::from_utf8(self.manifest).unwrap();
        let text = text.replace(OCI_MANIFEST, DOCKER_MANIFEST);
        self.manifest = text
            .replace(
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.docker.container.image.v1+json",
            )
            .into_bytes();
        self.media_type = DOCKER_MANIFEST;
        self
    }

    /// Its blobs by digest: config and layers.
    pub fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        let layers = self
            .layers
            .iter()
            .map(|layer| (layer.digest(), layer.blob.clone()));
        layers.chain([(self.id(), self.config.clone())]).collect()
    }

    fn descriptor(&self, platform: Option<&str>) -> serde_json::Value {
        let mut descriptor = serde_json::json!({ "mediaType": self.media_type, "digest": self.digest().to_string(), "size": self.manifest.len() });
        if let Some(platform) = platform {
            let mut parts = platform.split('/');
            descriptor["platform"] =
                serde_json::json!({ "os": parts.next(), "architecture": parts.next() });
            if let Some(variant) = parts.next() {
                descriptor["platform"]["variant"] = variant.into();
            }
        }
        descriptor
    }
}

/// An index of images by platform.
pub fn index(images: &[(&str, &TestImage)]) -> Vec<u8> {
    let manifests: Vec<serde_json::Value> = images
        .iter()
        .map(|(platform, image)| image.descriptor(Some(platform)))
        .collect();
    serde_json::to_vec(
        &serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }),
    )
    .unwrap()
}

/// Two layers with a little of everything.
pub fn small(pack: Pack) -> TestImage {
    let base = Tar::new()
        .dir("etc")
        .file("etc/os-release", b"ID=test\n")
        .dir("bin")
        .mode_file("bin/sh", 0o755, b"#!")
        .file("gone", b"x")
        .finish();
    let top = Tar::new()
        .dir("etc")
        .file("etc/added", b"added\n")
        .file(".wh.gone", b"")
        .finish();
    image(vec![Layer::new(base, pack), Layer::new(top, pack)])
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// An OCI layout directory with images under names.
pub fn write_layout(dir: &std::path::Path, images: &[(Option<&str>, &TestImage)]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut manifests = vec![];
    for (name, image) in images {
        for (digest, bytes) in image.blobs() {
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        }
        std::fs::write(blobs.join(image.digest().hex()), &image.manifest).unwrap();
        let mut descriptor = image.descriptor(None);
        if let Some(name) = name {
            descriptor["annotations"] =
                serde_json::json!({ "org.opencontainers.image.ref.name": name });
        }
        manifests.push(descriptor);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
    std::fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// What `docker save` wrote before it knew OCI: a plain tar.
pub fn docker_archive(images: &[(&[&str], &TestImage)]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut items = vec![];
    for (tags, image) in images {
        let config = format!("{}.json", image.id().hex());
        tar = tar.file(&config, &image.config);
        let mut layers = vec![];
        for layer in &image.layers {
            let name = format!("{}/layer.tar", layer.diff_id().hex());
            tar = tar.file(&name, &layer.tar);
            layers.push(name);
        }
        items.push(serde_json::json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
    }
    tar.file("manifest.json", &serde_json::to_vec(&items).unwrap())
        .finish()
}
