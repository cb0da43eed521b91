//! Images as volumes: mounted read-only beside the root file system, and from there into the container.
//!
//! ```text
//! <bundle>/volumes/<index in mounts>      an overlay of the image's layers: ro, nosuid, nodev, noexec
//! ```
//! The mounts go with the bundle: whoever removes that directory detaches what is mounted in it.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use snapshotter::DiffId;
use sys::failpoint;
use sys::path::Root;

use crate::error::{Error, Result};
use crate::model::Mount;
use crate::node::{Node, make_dir};

/// What a kubelet shows as the reason why the container waits (cri-api, `ErrImageVolumeMountFailed`).
const FAILED: &str = "ImageVolumeMountFailed";

/// An image that a container mounts.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Its place in the request's mounts.
    index: usize,
    /// What the mount is made of.
    pub(crate) layers: Vec<DiffId>,
}

/// The images that `mounts` name, which must be on the node.
pub(crate) fn find(node: &Node, mounts: &[Mount]) -> Result<Vec<Volume>> {
    let images = mounts.iter().enumerate();
    images
        .filter(|(_, mount)| !mount.image.is_empty())
        .map(|(index, mount)| {
            let found = node.store.image(&mount.image);
            let found = found.map_err(|error| failed(mount, snapshotter::one_line(&error)))?;
            let image = found
                .ok_or_else(|| failed(mount, "it is not on this node: pull it first".into()))?;
            Ok(Volume {
                index,
                layers: image.layers,
            })
        })
        .collect()
}

/// Mounts them; the answer are the request's mounts with the places where they are as host paths. The layers are
/// leased by the caller, and what is mounted goes with the bundle.
pub(crate) fn mount(
    node: &Node,
    bundle: &Path,
    volumes: &[Volume],
    mut mounts: Vec<Mount>,
) -> Result<Vec<Mount>> {
    for volume in volumes {
        let Some(mount) = mounts.get_mut(volume.index) else {
            continue;
        };
        let place = bundle.join("volumes").join(volume.index.to_string());
        make_dir(&place)?;
        snapshotter::mount_read_only(&node.store, &volume.layers, &place)
            .map_err(|error| failed(mount, snapshotter::one_line(&error)))?;
        failpoint::hit("create_container.volume")?;
        let source = match mount.image_sub_path.as_str() {
            "" => place,
            sub_path => inside(&place, sub_path)
                .map_err(|error| failed(mount, format!("path {sub_path:?}: {error}")))?,
        };
        mount.host_path = source.to_string_lossy().into_owned();
    }
    Ok(mounts)
}

/// The place of `sub_path` in the image: links in it lead nowhere else. Nobody can change it afterwards, as the mount
/// is read-only.
fn inside(root: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let words = |error: sys::Error| match error.errno() {
        sys::Errno::ENOENT | sys::Errno::ENOTDIR => "the image has no such path".to_owned(),
        _ => error.to_string(),
    };
    let found = Root::open(root)
        .and_then(|root| root.resolve(Path::new(sub_path)))
        .map_err(words)?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
        .map_err(|error| error.to_string())
}

fn failed(mount: &Mount, why: String) -> Error {
    Error::Named {
        name: FAILED,
        detail: format!(
            "mount image {:?} at {:?}: {why}",
            mount.image, mount.container_path
        ),
    }
}
