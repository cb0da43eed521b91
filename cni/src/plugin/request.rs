//! A plugin's parameters, read and checked before it touches anything.
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sys::netns::NetNs;

use super::Failure;
use crate::AddResult;
use crate::names::{bad_container_id, bad_ifname, bad_network_name};
use crate::version::{SUPPORTED_VERSIONS, Version};

/// More configuration than this is no configuration.
const MAX_STDIN: u64 = 4 << 20;

/// One call of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) command: String,
    pub(crate) container_id: String,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ifname: String,
    pub(crate) args: Vec<(String, String)>,
    pub(crate) path: Vec<PathBuf>,
    /// The network's name.
    pub(crate) network: String,
    /// The version that the answer must be in.
    pub(crate) version: Version,
    pub(crate) config: Value,
}

impl Request {
    /// Reads the variables and the configuration.
    pub(crate) fn read(
        env: &dyn Fn(&str) -> Option<OsString>,
        stdin: &mut dyn Read,
    ) -> Result<Request, Failure> {
        let text = |name: &str| match env(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(bytes)) => Err(Failure::environment(format!(
                "{name} is not UTF-8: {bytes:?}"
            ))),
        };
        let command = text("CNI_COMMAND")?;
        let (container_id, netns, ifname) = (
            text("CNI_CONTAINERID")?,
            text("CNI_NETNS")?,
            text("CNI_IFNAME")?,
        );
        if matches!(command.as_str(), "ADD" | "DEL" | "CHECK") {
            check_attachment(&command, &container_id, &netns, &ifname)?;
        }
        let path = std::env::split_paths(&text("CNI_PATH")?)
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        let config = read_config(stdin)?;
        Ok(Request {
            network: network_name(&config)?,
            version: version(&config)?,
            netns: (!netns.is_empty()).then(|| netns.into()),
            args: parse_args(&text("CNI_ARGS")?)?,
            command,
            container_id,
            ifname,
            path,
            config,
        })
    }

    /// The configuration as a plugin's own type.
    pub(crate) fn parse_config<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        T::deserialize(&self.config).map_err(|e| {
            Failure::decoding(format!("configuration of network {:?}: {e}", self.network))
        })
    }

    /// What the plugins before gave, or for CHECK all of them.
    pub(crate) fn previous_result(&self) -> Result<AddResult, Failure> {
        let value = self.config.get("prevResult").filter(|v| !v.is_null());
        let Some(value) = value else {
            return Err(Failure::config("key \"prevResult\" is missing"));
        };
        AddResult::parse(value.clone(), self.version)
            .map_err(|reason| Failure::decoding(format!("prevResult: {reason}")))
    }

    /// The container's namespace, which must not be the plugin's own: DEL would take the host's interfaces.
    pub(crate) fn netns(&self) -> Result<NetNs, Failure> {
        let path = self.netns.as_deref().unwrap_or(Path::new(""));
        let netns = NetNs::open(path)?;
        if netns.is_same(&NetNs::current()?)? {
            return Err(Failure::namespace(format!(
                "CNI_NETNS {path:?} is the namespace of the plugin itself"
            )));
        }
        Ok(netns)
    }

    /// The same for DEL: None if it is not given, or gone.
    pub(crate) fn netns_if_there(&self) -> Result<Option<NetNs>, Failure> {
        let Some(path) = &self.netns else {
            return Ok(None);
        };
        match NetNs::open(path) {
            Ok(_) => self.netns().map(Some),
            // Nothing there, or the ordinary file that an unmounted pin leaves.
            Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The value of a `CNI_ARGS` key that this plugin knows. Another key is an error unless `IgnoreUnknown` allows it.
    pub(crate) fn arg(&self, wanted: &str, known: &[&str]) -> Result<Option<&str>, Failure> {
        let ignore = self
            .args
            .iter()
            .any(|(k, v)| k == "IgnoreUnknown" && (v == "1" || v.eq_ignore_ascii_case("true")));
        let unknown = self
            .args
            .iter()
            .find(|(k, _)| k != "IgnoreUnknown" && !known.contains(&k.as_str()));
        if let (Some((key, _)), false) = (unknown, ignore) {
            return Err(Failure::environment(format!(
                "CNI_ARGS: unknown key {key:?} (IgnoreUnknown=1 would pass over it)"
            )));
        }
        Ok(self
            .args
            .iter()
            .rev()
            .find(|(k, _)| k == wanted)
            .map(|(_, v)| v.as_str()))
    }
}

fn check_attachment(
    command: &str,
    container_id: &str,
    netns: &str,
    ifname: &str,
) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for (name, value, needed) in [
        ("CNI_CONTAINERID", container_id, true),
        ("CNI_NETNS", netns, command != "DEL"),
        ("CNI_IFNAME", ifname, true),
    ] {
        if needed && value.is_empty() {
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        return Err(Failure::environment(format!(
            "{command} needs {}",
            missing.join(", ")
        )));
    }
    if let Some(reason) = bad_container_id(container_id) {
        return Err(Failure::environment(format!(
            "CNI_CONTAINERID {container_id:?}: {reason}"
        )));
    }
    if let Some(reason) = bad_ifname(ifname) {
        return Err(Failure::environment(format!(
            "CNI_IFNAME {ifname:?}: {reason}"
        )));
    }
    Ok(())
}

fn read_config(stdin: &mut dyn Read) -> Result<Value, Failure> {
    let mut text = Vec::new();
    stdin
        .take(MAX_STDIN)
        .read_to_end(&mut text)
        .map_err(|e| Failure::io("read", "stdin".as_ref(), &e))?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|e| Failure::decoding(format!("configuration on stdin: {e}")))?;
    if !value.is_object() {
        return Err(Failure::decoding(
            "configuration on stdin: not a JSON object",
        ));
    }
    Ok(value)
}

fn network_name(config: &Value) -> Result<String, Failure> {
    let name = config
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match bad_network_name(name) {
        Some(reason) => Err(Failure::config(format!("network name {name:?}: {reason}"))),
        None => Ok(name.to_owned()),
    }
}

fn version(config: &Value) -> Result<Version, Failure> {
    let text = match config.get("cniVersion") {
        None | Some(Value::Null) => "0.1.0",
        Some(Value::String(text)) => text,
        Some(other) => {
            return Err(Failure::decoding(format!(
                "cniVersion is not a string: {other}"
            )));
        }
    };
    let version = Version::parse(text)
        .ok_or_else(|| Failure::decoding(format!("cniVersion {text:?} is not a version")))?;
    if !version.is_supported() {
        return Err(Failure::version(format!(
            "incompatible CNI versions: config is {text:?}, plugin supports {}",
            SUPPORTED_VERSIONS.join(", ")
        )));
    }
    Ok(version)
}

fn parse_args(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::environment(format!(
                "CNI_ARGS: {pair:?} is not KEY=VALUE"
            ))),
        })
        .collect()
}
