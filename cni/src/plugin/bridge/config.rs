//! bridge's part of a network configuration.
use netlink::Mac;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Failure, Request};
use crate::Dns;
use crate::names::bad_ifname;
use crate::result::null_as_default;

/// The smallest MTU that IPv4 allows, and the largest that a link has.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

/// What is asked for, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) bridge: String,
    pub(super) is_gateway: bool,
    pub(super) is_default_gateway: bool,
    pub(super) force_address: bool,
    pub(super) masquerade: bool,
    /// As the firewall plugin after this one would; a key of our own, which spares the built-in network a process.
    pub(super) accept_forward: bool,
    pub(super) hairpin: bool,
    pub(super) promiscuous: bool,
    pub(super) isolated: bool,
    pub(super) mtu: Option<u32>,
    pub(super) mac: Option<Mac>,
    pub(super) ipam: Option<String>,
    pub(super) dns: Option<Dns>,
    /// The runtime destroys the namespace after DEL.
    pub(super) netns_dies: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    bridge: Option<String>,
    #[serde(default)]
    is_gateway: bool,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    force_address: bool,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    ip_masq_backend: Option<String>,
    #[serde(default)]
    accept_forward: bool,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    vlan: i64,
    #[serde(default)]
    vlan_trunk: Option<Value>,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default)]
    disable_container_interface: bool,
    #[serde(default)]
    port_isolation: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    ipam: RawIpam,
    #[serde(default, deserialize_with = "null_as_default")]
    dns: Dns,
    #[serde(default, deserialize_with = "null_as_default")]
    args: RawArgs,
    #[serde(default, deserialize_with = "null_as_default")]
    runtime_config: RawRuntime,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawIpam {
    #[serde(rename = "type")]
    plugin: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawArgs {
    cni: RawMac,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawMac {
    mac: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawRuntime {
    mac: String,
    netns_dies: bool,
}

impl Config {
    /// Reads and checks everything; nothing is touched yet.
    pub(super) fn load(request: &Request) -> Result<Config, Failure> {
        let raw: Raw = request.parse_config()?;
        // DEL must work with what ADD would refuse: the configuration may have changed since.
        if request.command != "DEL" {
            refuse_unsupported(&raw)?;
        }
        let bridge = raw
            .bridge
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "cni0".to_owned());
        if let Some(reason) = bad_ifname(&bridge) {
            return Err(Failure::config(format!("bridge {bridge:?}: {reason}")));
        }
        if raw.mtu != 0 && !MTUS.contains(&raw.mtu) {
            return Err(Failure::config(format!(
                "mtu {}: is not between {} and {}",
                raw.mtu,
                MTUS.start(),
                MTUS.end()
            )));
        }
        let arg = request.arg("MAC", &["IP", "MAC"])?.unwrap_or_default();
        // The runtime's word is last, as in the reference.
        let asked = [
            raw.runtime_config.mac.as_str(),
            raw.args.cni.mac.as_str(),
            arg,
        ]
        .into_iter()
        .find(|mac| !mac.is_empty());
        let mac = asked.map(|text| {
            Mac::parse(text).ok_or_else(|| {
                Failure::config(format!("mac {text:?}: is not a link's hardware address"))
            })
        });
        Ok(Config {
            bridge,
            is_gateway: raw.is_gateway || raw.is_default_gateway,
            is_default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            masquerade: raw.ip_masq,
            accept_forward: raw.accept_forward,
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            isolated: raw.port_isolation,
            mtu: (raw.mtu != 0).then_some(raw.mtu),
            mac: mac.transpose()?,
            ipam: Some(raw.ipam.plugin).filter(|plugin| !plugin.is_empty()),
            dns: Some(raw.dns).filter(|dns| *dns != Dns::default()),
            netns_dies: raw.runtime_config.netns_dies,
        })
    }
}

fn refuse_unsupported(raw: &Raw) -> Result<(), Failure> {
    if raw.vlan != 0 {
        return Err(Failure::unsupported(
            "vlan",
            &raw.vlan,
            "this bridge has no VLANs",
        ));
    }
    if let Some(trunk) = raw.vlan_trunk.as_ref().filter(|t| !t.is_null()) {
        return Err(Failure::unsupported(
            "vlanTrunk",
            trunk,
            "this bridge has no VLANs",
        ));
    }
    if raw.macspoofchk {
        return Err(Failure::unsupported(
            "macspoofchk",
            &true,
            "this bridge does not check source addresses",
        ));
    }
    if raw.disable_container_interface {
        return Err(Failure::unsupported(
            "disableContainerInterface",
            &true,
            "this bridge always sets the interface up",
        ));
    }
    match raw.ip_masq_backend.as_deref() {
        None | Some("" | "nftables") => {}
        Some(other) => {
            return Err(Failure::unsupported(
                "ipMasqBackend",
                &other,
                "this bridge masquerades by nftables only",
            ));
        }
    }
    if raw.hairpin_mode && raw.promisc_mode {
        return Err(Failure::config(
            "hairpinMode and promiscMode exclude each other",
        ));
    }
    Ok(())
}
