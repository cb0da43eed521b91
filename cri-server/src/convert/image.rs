//! Images.

use engine::model::{FsUsage, Image, ImageSpec, RegistryAuth};
use proto::davit;
use proto::runtime::v1;

use super::{Converted, filled, required};

pub(crate) fn spec(from: v1::ImageSpec) -> Converted<ImageSpec> {
    Ok(ImageSpec {
        image: filled("image", from.image)?,
        user_specified_image: from.user_specified_image,
        annotations: from.annotations,
    })
}

/// The reference that a request is about.
pub(crate) fn reference(from: Option<v1::ImageSpec>) -> Converted<String> {
    filled("image.image", required("image", from)?.image)
}

pub(crate) fn auth(from: v1::AuthConfig) -> RegistryAuth {
    RegistryAuth {
        username: from.username,
        password: from.password,
        auth: from.auth,
        server_address: from.server_address,
        identity_token: from.identity_token,
        registry_token: from.registry_token,
    }
}

pub(crate) fn credentials(from: davit::v1::Credentials) -> RegistryAuth {
    RegistryAuth {
        username: from.username,
        password: from.password,
        identity_token: from.identity_token,
        registry_token: from.registry_token,
        ..RegistryAuth::default()
    }
}

pub(crate) fn into(from: Image) -> v1::Image {
    v1::Image {
        id: from.id,
        repo_tags: from.repo_tags,
        repo_digests: from.repo_digests,
        size: from.size,
        uid: from.uid.map(|value| v1::Int64Value { value }),
        username: from.username,
        spec: None,
        pinned: from.pinned,
    }
}

/// What `crictl inspecti` shows beside the status: the image's config, whole.
pub(crate) fn verbose(from: &Image) -> serde_json::Value {
    let config: serde_json::Value =
        serde_json::from_str(&from.config_json).unwrap_or(serde_json::Value::Null);
    serde_json::json!({ "imageSpec": config, "labels": from.labels })
}

pub(crate) fn usage(from: FsUsage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: from.timestamp,
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: from.mountpoint,
        }),
        used_bytes: Some(v1::UInt64Value {
            value: from.used_bytes,
        }),
        inodes_used: Some(v1::UInt64Value {
            value: from.inodes_used,
        }),
    }
}
