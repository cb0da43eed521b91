//! Images put together from archives and mounted.
use std::path::{Path, PathBuf};

use snapshotter::{Error, Image, ProgressSink, Store, mount_overlay, unmount_overlay};

use super::Scratch;
use super::image::{Layer, Pack, Tar, image, write_layout};

/// Imports an image of these archives, bottom first.
pub async fn stack(scratch: &Scratch, store: &Store, archives: Vec<Tar>) -> Result<Image, Error> {
    let archives = archives.into_iter().map(Tar::finish).collect();
    stack_bytes(scratch, store, archives).await
}

pub async fn stack_bytes(
    scratch: &Scratch,
    store: &Store,
    archives: Vec<Vec<u8>>,
) -> Result<Image, Error> {
    let layers = archives
        .into_iter()
        .map(|tar| Layer::new(tar, Pack::Plain))
        .collect();
    let image = image(layers);
    let dir = scratch.join(&format!("layout-{}", image.id().hex()));
    write_layout(&dir, &[(None, &image)]);
    let images = store
        .import(&dir, Some("stack"), ProgressSink::none())
        .await?;
    Ok(images.into_iter().next().unwrap())
}

/// A mounted image, unmounted with its value.
pub struct Mounted {
    pub target: PathBuf,
    writable: PathBuf,
}

impl Mounted {
    pub fn new(scratch: &Scratch, store: &Store, image: &Image) -> Mounted {
        let target = scratch.join("merged");
        let writable = scratch.join("writable");
        std::fs::create_dir_all(&target).unwrap();
        mount_overlay(store, &image.layers, &writable, &target).unwrap();
        Mounted { target, writable }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// Every file below, as `path kind mode uid:gid content-or-target`.
    pub fn listing(&self) -> Vec<String> {
        let mut lines = vec![];
        list(&self.target, &self.target, &mut lines);
        lines.sort();
        lines
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount_overlay(&self.target, &self.writable).unwrap();
    }
}

fn list(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (letter, text) = if kind.is_dir() {
            list(root, &path, lines);
            ('d', String::new())
        } else if kind.is_symlink() {
            (
                'l',
                std::fs::read_link(&path).unwrap().display().to_string(),
            )
        } else if kind.is_file() {
            (
                'f',
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
            )
        } else if kind.is_char_device() {
            ('c', meta.rdev().to_string())
        } else if kind.is_block_device() {
            ('b', meta.rdev().to_string())
        } else {
            ('p', String::new())
        };
        let name = path.strip_prefix(root).unwrap().display();
        lines.push(
            format!(
                "{name} {letter} {:o} {}:{} {text}",
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid()
            )
            .trim_end()
            .to_owned(),
        );
    }
}
