//! Tables, chains, sets and elements as they are described to the kernel.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

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
    /// A port.
    Port,
}

/// The type of a map's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// What to do with the packet.
    Verdict,
    /// An IPv4 address.
    Ipv4,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its key, or the first key of its range, as bytes on the wire.
    pub key: Vec<u8>,
    /// The first key after its range; None for a single key, or if the range ends with the last key of all.
    pub end: Option<Vec<u8>>,
    /// What a verdict map gives.
    pub verdict: Option<Verdict>,
}

impl Element {
    /// The addresses of a subnet, for a set of intervals.
    #[must_use]
    pub fn subnet(net: Ipv4Net) -> Element {
        let after = u32::from(net.broadcast())
            .checked_add(1)
            .map(|next| Ipv4Addr::from(next).octets().to_vec());
        Element {
            key: net.network().octets().to_vec(),
            end: after,
            verdict: None,
        }
    }

    /// The same element with a verdict, for a map.
    #[must_use]
    pub fn to(mut self, verdict: Verdict) -> Element {
        self.verdict = Some(verdict);
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

impl SetKey {
    /// The number by which `nft` knows how to print the key, and its length in bytes.
    pub(crate) fn kind_and_len(self) -> (u32, u32) {
        match self {
            SetKey::Ipv4 => (7, 4),
            SetKey::Port => (13, 2),
        }
    }
}

impl SetData {
    /// As [`SetKey::kind_and_len`]; a verdict's length is the kernel's affair.
    pub(crate) fn kind_and_len(self) -> (u32, Option<u32>) {
        match self {
            SetData::Verdict => (0xffff_ff00, None),
            SetData::Ipv4 => (7, Some(4)),
        }
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
