//! libcni's result cache: `<cache_dir>/results/<network>-<container>-<ifname>`, one JSON object per attachment.
//!
//! An entry without a result is the intent of an ADD that has not ended, or ended badly: libcni reads it as
//! "no result", and DEL finds the configuration in it.
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::result::null_as_default;
use crate::{Attachment, Error, NetworkList};

/// What libcni calls this layout.
const KIND: &str = "cniCacheV1";

/// What is remembered of one attachment.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedAttachment {
    /// The network's name.
    pub network: String,
    /// The container's id.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The namespace at the time of the ADD.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS` of the ADD.
    pub args: Vec<(String, String)>,
    /// Capability arguments of the ADD.
    pub capability_args: Map<String, Value>,
    /// The network's configuration at the time of the ADD.
    pub config: Vec<u8>,
    /// The result; None when the ADD did not end well.
    pub result: Option<Value>,
}

impl CachedAttachment {
    /// The attachment, for a DEL.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container_id.clone(),
            netns: self.netns.clone(),
            ifname: self.ifname.clone(),
            args: self.args.clone(),
            capability_args: self.capability_args.clone(),
        }
    }
}

/// The file's form, field for field as libcni writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    container_id: String,
    /// Base64, as Go writes bytes.
    #[serde(default)]
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    cni_args: Vec<(String, String)>,
    #[serde(
        default,
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "null_as_default"
    )]
    capability_args: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// The directory of results.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(crate) fn in_dir(cache_dir: &Path) -> Cache {
        Cache {
            dir: cache_dir.join("results"),
        }
    }

    fn path(&self, network: &str, container_id: &str, ifname: &str) -> PathBuf {
        self.dir.join(format!("{network}-{container_id}-{ifname}"))
    }

    /// The name of an entry before it has its own. A leading dot is no attachment's name; two runtimes never attach the
    /// same one at once.
    fn fresh(&self, network: &str, container_id: &str, ifname: &str) -> PathBuf {
        self.dir.join(format!(".{network}-{container_id}-{ifname}"))
    }

    /// Remembers an attachment, by a new file in the old one's place.
    pub(crate) fn put(
        &self,
        network: &NetworkList,
        a: &Attachment,
        result: Option<&Value>,
    ) -> Result<(), Error> {
        let file = File {
            kind: KIND.to_owned(),
            container_id: a.container_id.clone(),
            config: STANDARD.encode(network.raw().to_string()),
            if_name: a.ifname.clone(),
            network_name: network.name().to_owned(),
            netns: a
                .netns
                .as_deref()
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default(),
            cni_args: a.args.clone(),
            capability_args: a.capability_args.clone(),
            result: result.cloned(),
        };
        let text = serde_json::to_vec(&file).map_err(|e| Error::Config {
            origin: network.name().to_owned(),
            reason: e.to_string(),
        })?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Error::io("make directory", &self.dir))?;
        let path = self.path(network.name(), &a.container_id, &a.ifname);
        let fresh = self.fresh(network.name(), &a.container_id, &a.ifname);
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut f| f.write_all(&text))
            .and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|e| {
            // On a full disk the half-written file would only be in the way.
            fs::remove_file(&fresh).ok();
            Error::io("write", &path)(e)
        })
    }

    /// What is remembered of an attachment to a network. An entry that cannot be read counts as none, as in libcni:
    /// DEL must not depend on it.
    pub(crate) fn get(
        &self,
        network: &str,
        container_id: &str,
        ifname: &str,
    ) -> Option<CachedAttachment> {
        read(&self.path(network, container_id, ifname))
    }

    /// Forgets an attachment.
    pub(crate) fn remove(
        &self,
        network: &str,
        container_id: &str,
        ifname: &str,
    ) -> Result<(), Error> {
        // Left by a crash in the middle of writing, if at all.
        fs::remove_file(self.fresh(network, container_id, ifname)).ok();
        let path = self.path(network, container_id, ifname);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Everything remembered, of one container or of all, by file name.
    pub(crate) fn all(&self, container_id: Option<&str>) -> Result<Vec<CachedAttachment>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read directory", &self.dir)(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(Error::io("read directory", &self.dir))?
                .file_name();
            let Some(name) = name.to_str() else { continue };
            let wanted = container_id.is_none_or(|id| name.contains(&format!("-{id}-")));
            if wanted && !name.starts_with('.') {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let found = names.iter().filter_map(|name| read(&self.dir.join(name)));
        // Ids may contain each other's text: only the entry itself tells whose it is.
        Ok(found
            .filter(|c| container_id.is_none_or(|id| c.container_id == id))
            .collect())
    }
}

fn read(path: &Path) -> Option<CachedAttachment> {
    let file: File = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    if file.kind != KIND || file.if_name.is_empty() || file.network_name.is_empty() {
        return None;
    }
    Some(CachedAttachment {
        network: file.network_name,
        container_id: file.container_id,
        ifname: file.if_name,
        netns: (!file.netns.is_empty()).then(|| file.netns.into()),
        args: file.cni_args,
        capability_args: file.capability_args,
        config: STANDARD.decode(file.config).ok()?,
        result: file
            .result
            .filter(|r| r.as_object().is_some_and(|o| !o.is_empty())),
    })
}
