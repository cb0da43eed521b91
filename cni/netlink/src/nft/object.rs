//! Tables, chains, sets and elements as they are described to the kernel.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Family;
use super::expr::Verdict;

/// A table: the name space of chains and sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// What it sees.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// A chain of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where packets enter it; None for a chain that others jump to.
    pub base: Option<(ChainKind, Hook, i32)>,
}

/// A base chain that is there, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table's family.
    pub family: Family,
    /// Its table's name.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets enter it, as the kernel numbers it.
    pub hook: u32,
    /// Whether it drops what no rule decides on.
    pub drops: bool,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What names it in its chain.
    pub handle: u64,
    /// The words beside it.
    pub comment: Option<String>,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses.
    Nat,
    /// Route again after a change.
    Route,
}

/// Where in the packet's way a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To the host itself.
    Input,
    /// Through the host.
    Forward,
    /// From the host itself.
    Output,
    /// After the routing decision.
    Postrouting,
}

/// A set of keys, or a map from keys to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is looked up.
    pub key: SetKey,
    /// Whether its elements are ranges.
    pub interval: bool,
    /// What a lookup gives, for a map.
    pub data: Option<SetData>,
}

/// The type of a set's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKey {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A port.
    Port,
    /// A transport protocol and a port.
    TransportPort,
    /// An IPv4 address, a transport protocol and a port.
    Ipv4TransportPort,
    /// An IPv6 address, a transport protocol and a port.
    Ipv6TransportPort,
}

/// The type of a map's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// What to do with the packet.
    Verdict,
    /// An IPv4 address.
    Ipv4,
    /// An IPv4 address and a port.
    Ipv4Port,
    /// An IPv6 address and a port.
    Ipv6Port,
}

/// An element of a set or map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Its key, or the first key of its range, as bytes on the wire.
    pub key: Vec<u8>,
    /// The first key after its range; None for a single key, or if the range ends with the last key of all.
    pub end: Option<Vec<u8>>,
    /// What a verdict map gives.
    pub verdict: Option<Verdict>,
    /// What another map gives, as bytes on the wire.
    pub data: Option<Vec<u8>>,
    /// Words that stand with it, for people and for whoever cleans up: up to 127 bytes.
    pub comment: Option<String>,
}

impl Element {
    /// The addresses of a subnet, for a set of intervals.
    #[must_use]
    pub fn subnet(net: IpNet) -> Element {
        let (key, end) = match net {
            IpNet::V4(v4) => (
                v4.network().octets().to_vec(),
                u32::from(v4.broadcast())
                    .checked_add(1)
                    .map(|next| Ipv4Addr::from(next).octets().to_vec()),
            ),
            IpNet::V6(v6) => (
                v6.network().octets().to_vec(),
                u128::from(v6.broadcast())
                    .checked_add(1)
                    .map(|next| Ipv6Addr::from(next).octets().to_vec()),
            ),
        };
        Element {
            key,
            end,
            ..Element::default()
        }
    }

    /// A single key, for a set without intervals.
    #[must_use]
    pub fn key(key: Vec<u8>) -> Element {
        Element {
            key,
            ..Element::default()
        }
    }

    /// The same element with a verdict, for a map.
    #[must_use]
    pub fn to(mut self, verdict: Verdict) -> Element {
        self.verdict = Some(verdict);
        self
    }

    /// The same element with data, for a map of another kind.
    #[must_use]
    pub fn with_data(mut self, data: Vec<u8>) -> Element {
        self.data = Some(data);
        self
    }

    /// The same element with words beside it.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Element {
        self.comment = Some(comment.into());
        self
    }
}

impl ChainKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }
}

impl BaseChain {
    /// Its table.
    #[must_use]
    pub fn table(&self) -> Table<'_> {
        Table {
            family: self.family,
            name: &self.table,
        }
    }

    /// Whether it sees what goes through the host.
    #[must_use]
    pub fn is_forward(&self) -> bool {
        self.hook == Hook::Forward.number()
    }
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }
}

/// The numbers by which `nft` knows types, so that it can print what it finds.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const TRANSPORT: u32 = 12;
const PORT: u32 = 13;

/// As `nft` numbers types of several parts: six bits each.
const fn several(parts: &[u32]) -> u32 {
    let mut kind = 0;
    let mut at = 0;
    while at < parts.len() {
        kind = kind << 6 | parts[at];
        at += 1;
    }
    kind
}

impl SetKey {
    /// The number by which `nft` knows how to print the key, and its length in bytes.
    pub(crate) fn kind_and_len(self) -> (u32, u32) {
        match self {
            SetKey::Ipv4 => (IPV4, 4),
            SetKey::Ipv6 => (IPV6, 16),
            SetKey::Port => (PORT, 2),
            SetKey::TransportPort => (several(&[TRANSPORT, PORT]), 8),
            SetKey::Ipv4TransportPort => (several(&[IPV4, TRANSPORT, PORT]), 12),
            SetKey::Ipv6TransportPort => (several(&[IPV6, TRANSPORT, PORT]), 24),
        }
    }
}

impl SetData {
    /// As [`SetKey::kind_and_len`]; a verdict's length is the kernel's affair.
    pub(crate) fn kind_and_len(self) -> (u32, Option<u32>) {
        match self {
            SetData::Verdict => (0xffff_ff00, None),
            SetData::Ipv4 => (IPV4, Some(4)),
            SetData::Ipv4Port => (several(&[IPV4, PORT]), Some(8)),
            SetData::Ipv6Port => (several(&[IPV6, PORT]), Some(20)),
        }
    }
}

/// The parts of keys and data of several parts, as bytes on the wire: each takes whole words.
pub mod part {
    use super::IpAddr;

    /// An address.
    #[must_use]
    pub fn address(address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }

    /// A transport protocol.
    #[must_use]
    pub fn transport(protocol: u8) -> Vec<u8> {
        vec![protocol, 0, 0, 0]
    }

    /// A port.
    #[must_use]
    pub fn port(port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        vec![high, low, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_ends_before_the_next_one_begins() {
        let element = Element::subnet("10.89.0.0/16".parse().unwrap());
        assert_eq!(
            (element.key, element.end),
            (vec![10, 89, 0, 0], Some(vec![10, 90, 0, 0]))
        );
    }

    #[test]
    fn the_last_subnet_of_all_has_no_end() {
        assert_eq!(
            Element::subnet("255.255.255.0/24".parse().unwrap()).end,
            None
        );
    }
}
