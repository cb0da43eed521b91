//! portmap's part of a network configuration, and what the runtime asks for.
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Failure, Request};
use crate::AddResult;
use crate::result::null_as_default;

/// What is asked for, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The host's ports, in the order of the request, each once.
    pub(super) mappings: Vec<Mapping>,
    /// What gets the host's address on its way to the container.
    pub(super) masquerade: Masquerade,
    /// The container's addresses: the first of each family.
    pub(super) pod: Vec<IpNet>,
    /// The result of the plugins before.
    pub(super) previous: Option<AddResult>,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) transport: Transport,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
    pub(super) host_ip: HostIp,
}

/// At which of the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostIp {
    /// Any, of both families.
    Any,
    /// Any IPv4 address.
    AnyIpv4,
    /// Any IPv6 address.
    AnyIpv6,
    /// This one.
    One(IpAddr),
}

/// What gets the host's address on its way to the container, so that the answer comes back the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Masquerade {
    /// Nothing.
    Nothing,
    /// What could not be answered otherwise: from the host's loopback, and from the container's own subnet.
    Needed,
    /// Everything.
    All,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    backend: Option<String>,
    #[serde(default)]
    snat: Option<bool>,
    #[serde(default)]
    masq_all: bool,
    #[serde(default)]
    mark_masq_bit: Option<i64>,
    #[serde(default)]
    external_set_mark_chain: Option<String>,
    #[serde(default)]
    conditions_v4: Option<Vec<String>>,
    #[serde(default)]
    conditions_v6: Option<Vec<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    runtime_config: RawRuntime,
    #[serde(default)]
    prev_result: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawRuntime {
    #[serde(deserialize_with = "null_as_default")]
    port_mappings: Vec<RawMapping>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMapping {
    host_port: i64,
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

// === impl Config ===

impl Config {
    /// Reads and checks everything; nothing is touched yet.
    pub(super) fn load(request: &Request) -> Result<Config, Failure> {
        let raw: Raw = request.parse_config()?;
        refuse_unsupported(&raw)?;
        let masquerade = match (raw.snat.unwrap_or(true), raw.masq_all) {
            (false, _) => Masquerade::Nothing,
            (true, false) => Masquerade::Needed,
            (true, true) => Masquerade::All,
        };
        let mut mappings = Vec::new();
        for (index, raw) in raw.runtime_config.port_mappings.iter().enumerate() {
            let mapping = Mapping::read(raw).map_err(|reason| {
                Failure::config(format!("runtimeConfig.portMappings[{index}]: {reason}"))
            })?;
            if !mappings.contains(&mapping) {
                mappings.push(mapping);
            }
        }
        no_two_targets(&mappings)?;
        let previous = raw
            .prev_result
            .filter(|value| !value.is_null())
            .map(|value| AddResult::parse(value, request.version))
            .transpose()
            .map_err(|reason| Failure::decoding(format!("prevResult: {reason}")))?;
        let pod = previous
            .as_ref()
            .map(|result| addresses_of(result, &request.ifname))
            .unwrap_or_default();
        Ok(Config {
            mappings,
            masquerade,
            pod,
            previous,
        })
    }

    /// Each mapping with the container's address that it leads to.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Mapping, IpNet)> {
        self.mappings.iter().flat_map(|mapping| {
            let fitting = self
                .pod
                .iter()
                .filter(|net| mapping.host_ip.allows(net.addr()));
            fitting.map(move |net| (mapping, *net))
        })
    }
}

fn refuse_unsupported(raw: &Raw) -> Result<(), Failure> {
    match raw.backend.as_deref() {
        None | Some("" | "nftables") => {}
        Some(other) => {
            return Err(Failure::unsupported(
                "backend",
                &other,
                "this portmap works by nftables only",
            ));
        }
    }
    for (key, conditions) in [
        ("conditionsV4", &raw.conditions_v4),
        ("conditionsV6", &raw.conditions_v6),
    ] {
        if let Some(conditions) = conditions.as_ref().filter(|list| !list.is_empty()) {
            return Err(Failure::unsupported(
                key,
                &conditions.join(" "),
                "this portmap has a map of ports, which takes no rules",
            ));
        }
    }
    if let Some(chain) = raw
        .external_set_mark_chain
        .as_deref()
        .filter(|c| !c.is_empty())
    {
        return Err(Failure::unsupported(
            "externalSetMarkChain",
            &chain,
            "this portmap uses no marks",
        ));
    }
    match raw.mark_masq_bit {
        // Accepted for the sake of configurations that name it: no mark is needed here.
        None | Some(0..=31) => Ok(()),
        Some(bit) => Err(Failure::config(format!(
            "markMasqBit {bit}: is not between 0 and 31"
        ))),
    }
}

/// A port of the host leads to one port; what comes later in the list would never be reached.
fn no_two_targets(mappings: &[Mapping]) -> Result<(), Failure> {
    for (at, one) in mappings.iter().enumerate() {
        let other = mappings[at + 1..].iter().find(|other| {
            (one.transport, one.host_port, one.host_ip)
                == (other.transport, other.host_port, other.host_ip)
        });
        if let Some(other) = other {
            return Err(Failure::config(format!(
                "host port {one} is to lead to port {} and to port {} of the container",
                one.container_port, other.container_port
            )));
        }
    }
    Ok(())
}

/// The first address of each family of the container's interface. One of which the result does not say the interface
/// is the container's.
fn addresses_of(result: &AddResult, ifname: &str) -> Vec<IpNet> {
    let mut first = BTreeMap::new();
    for ip in &result.ips {
        let interface = ip.interface.and_then(|index| result.interfaces.get(index));
        if interface.is_none_or(|i| i.name == ifname && !i.sandbox.is_empty()) {
            first
                .entry(ip.address.addr().is_ipv6())
                .or_insert(ip.address);
        }
    }
    first.into_values().collect()
}

// === impl Mapping ===

impl Mapping {
    fn read(raw: &RawMapping) -> Result<Mapping, String> {
        let port = |name: &str, value: i64| {
            u16::try_from(value)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("{name} {value} is not between 1 and 65535"))
        };
        Ok(Mapping {
            transport: Transport::parse(&raw.protocol)?,
            host_port: port("hostPort", raw.host_port)?,
            container_port: port("containerPort", raw.container_port)?,
            host_ip: HostIp::parse(&raw.host_ip)?,
        })
    }

    /// Whether both would take the same packets.
    pub(super) fn collides(&self, other: &Mapping) -> bool {
        self.transport == other.transport
            && self.host_port == other.host_port
            && self.host_ip.overlaps(other.host_ip)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host_port, self.transport.name())?;
        match self.host_ip {
            HostIp::Any => Ok(()),
            HostIp::AnyIpv4 => f.write_str(" of 0.0.0.0"),
            HostIp::AnyIpv6 => f.write_str(" of ::"),
            HostIp::One(ip) => write!(f, " of {ip}"),
        }
    }
}

// === impl HostIp ===

impl HostIp {
    fn parse(text: &str) -> Result<HostIp, String> {
        if text.is_empty() {
            return Ok(HostIp::Any);
        }
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ok(HostIp::AnyIpv4),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(HostIp::AnyIpv6),
            Ok(ip) => Ok(HostIp::One(ip.to_canonical())),
            Err(_) => Err(format!("hostIP {text:?} is not an address")),
        }
    }

    /// Whether packets to an address of that family may be meant.
    fn allows(self, family: IpAddr) -> bool {
        match self {
            HostIp::Any => true,
            HostIp::AnyIpv4 => family.is_ipv4(),
            HostIp::AnyIpv6 => family.is_ipv6(),
            HostIp::One(ip) => ip.is_ipv4() == family.is_ipv4(),
        }
    }

    fn overlaps(self, other: HostIp) -> bool {
        match (self, other) {
            (HostIp::One(a), HostIp::One(b)) => a == b,
            (HostIp::One(one), any) | (any, HostIp::One(one)) => any.allows(one),
            (HostIp::AnyIpv4, HostIp::AnyIpv6) | (HostIp::AnyIpv6, HostIp::AnyIpv4) => false,
            _ => true,
        }
    }
}

// === impl Transport ===

impl Transport {
    fn parse(text: &str) -> Result<Transport, String> {
        match text.to_ascii_lowercase().as_str() {
            // As the reference has it: TCP where nothing is said.
            "" | "tcp" => Ok(Transport::Tcp),
            "udp" => Ok(Transport::Udp),
            "sctp" => Ok(Transport::Sctp),
            _ => Err(format!("protocol {text:?} is none of tcp, udp and sctp")),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        }
    }

    /// As the kernel numbers it.
    pub(super) fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Transport> {
        [Transport::Tcp, Transport::Udp, Transport::Sctp]
            .into_iter()
            .find(|t| t.number() == number)
    }
}
