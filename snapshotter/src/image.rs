//! An image as the store keeps it, and the parts of its configuration that running it needs.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::digest::{DiffId, Digest};
use crate::error::Error;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of the image's configuration: its id.
    pub id: Digest,
    /// Every tag that points here, in full: `docker.io/library/busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Every repository and manifest digest that it was pulled by: `docker.io/library/busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    /// How much disk its unpacked layers and documents take, in bytes. Never 0.
    pub size: u64,
    /// The directories that an overlay of this image stacks, bottom first.
    pub layers: Vec<DiffId>,
    /// The parts of the configuration that running it needs.
    pub config: ImageConfig,
    /// When it was built, as its configuration says (RFC 3339), if it does.
    pub created: Option<String>,
    /// Whether garbage collection by age or disk pressure must leave it alone.
    pub pinned: bool,
    /// The configuration as published: the bytes whose digest is `id`.
    pub raw_config_json: Vec<u8>,
}

/// How to run an image: the `config` object of its configuration, and its platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group`, `uid:gid`, … or empty.
    pub user: String,
    /// `NAME=value` entries.
    pub env: Vec<String>,
    /// The command's first part.
    pub entrypoint: Vec<String>,
    /// The command's second part, or its default arguments.
    pub cmd: Vec<String>,
    /// Where the command starts; empty means `/`.
    pub working_dir: String,
    /// The signal that asks the command to stop; empty means SIGTERM.
    pub stop_signal: String,
    /// Directories that want a volume.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The operating system.
    pub os: String,
    /// The processor.
    pub arch: String,
    /// The processor's variant, or empty.
    pub variant: String,
}

/// A parsed configuration document.
pub(crate) struct ConfigDocument {
    /// What running the image needs.
    pub(crate) config: ImageConfig,
    /// The digests of the uncompressed layers, bottom first.
    pub(crate) diff_ids: Vec<DiffId>,
    /// When the image was built.
    pub(crate) created: Option<String>,
}

/// The document as published. Go writes `null` for every empty slice and map, so each field accepts it.
#[derive(Deserialize)]
struct Document {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: RunConfig,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<DiffId>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "or_default")]
    stop_signal: String,
    #[serde(default, deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
}

/// `null` reads as the empty value.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ConfigDocument {
    /// Parses the configuration with digest `digest`.
    ///
    /// # Errors
    /// [`Error::Document`] where it is not one.
    pub(crate) fn parse(digest: Digest, json: &[u8]) -> Result<ConfigDocument, Error> {
        let refused = |reason: String| Error::Document {
            what: "image config",
            digest,
            reason,
            unsupported: false,
        };
        let document: Document =
            serde_json::from_slice(json).map_err(|error| refused(error.to_string()))?;
        let Document {
            architecture,
            os,
            variant,
            created,
            config,
            rootfs,
        } = document;
        if os.is_empty() || architecture.is_empty() {
            return Err(refused(
                "os and architecture are missing, so this is no image".into(),
            ));
        }
        let config = ImageConfig {
            user: config.user,
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            working_dir: config.working_dir,
            stop_signal: config.stop_signal,
            volumes: config.volumes.into_keys().collect(),
            labels: config.labels,
            exposed_ports: config.exposed_ports.into_keys().collect(),
            os,
            arch: architecture,
            variant,
        };
        Ok(ConfigDocument {
            config,
            diff_ids: rootfs.diff_ids,
            created,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_with_nulls_everywhere_is_read() {
        let diff = Digest::of(b"layer");
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-05-06T07:08:09.123456789Z",
            "config":{{"User":"1002:50","Env":["PATH=/bin"],"Entrypoint":null,"Cmd":["sh","-c"],"Volumes":{{"/data":{{}}}},
              "ExposedPorts":{{"80/tcp":{{}}}},"WorkingDir":"/w","StopSignal":"SIGQUIT","Labels":null,"OnBuild":null}},
            "container_config":{{"x":1}},"history":[],"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
        );
        let parsed = ConfigDocument::parse(Digest::of(json.as_bytes()), json.as_bytes()).unwrap();
        assert_eq!(parsed.diff_ids, [DiffId(diff)]);
        assert_eq!(
            parsed.created.as_deref(),
            Some("2024-05-06T07:08:09.123456789Z")
        );
        let config = parsed.config;
        assert_eq!(
            (
                config.user.as_str(),
                config.working_dir.as_str(),
                config.stop_signal.as_str()
            ),
            ("1002:50", "/w", "SIGQUIT")
        );
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec![], vec!["sh".to_owned(), "-c".to_owned()])
        );
        assert_eq!(
            (config.volumes, config.exposed_ports),
            (vec!["/data".to_owned()], vec!["80/tcp".to_owned()])
        );
    }

    #[test]
    fn documents_that_are_no_image_config_are_refused_by_name() {
        for (json, reason) in [
            ("", "EOF"),
            ("[]", "invalid length"),
            (r#"{"architecture":"amd64","os":"linux"}"#, "rootfs"),
            (r#"{"rootfs":{"diff_ids":[]}}"#, "os and architecture"),
            (
                r#"{"architecture":"a","os":"linux","rootfs":{"diff_ids":["sha256:12"]}}"#,
                "64 digits",
            ),
            (
                r#"{"architecture":"a","os":"linux","rootfs":{"diff_ids":["../../x"]}}"#,
                "digest",
            ),
        ] {
            let error = ConfigDocument::parse(Digest::of(b""), json.as_bytes())
                .err()
                .map(|e| e.to_string())
                .unwrap();
            assert!(
                error.starts_with("image config sha256:") && error.contains(reason),
                "{json}: {error}"
            );
        }
    }
}
