//! host-local's part of a network configuration, made canonical.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use super::super::{Failure, Request};
use crate::Route;
use crate::result::null_as_default;

const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What to allocate from, and what else to answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub(super) network: String,
    pub(super) ranges: Vec<RangeSet>,
    pub(super) routes: Vec<Route>,
    pub(super) data_dir: PathBuf,
    pub(super) resolv_conf: Option<PathBuf>,
    /// Addresses that the runtime asks for.
    pub(super) wanted: Vec<IpAddr>,
}

/// Ranges of which one address is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet(pub(super) Vec<Range>);

/// A part of a subnet, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) subnet: IpNet,
    pub(super) start: IpAddr,
    pub(super) end: IpAddr,
    pub(super) gateway: IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawNet {
    ipam: Option<RawIpam>,
    #[serde(default, deserialize_with = "null_as_default")]
    runtime_config: RawRuntime,
    #[serde(default, deserialize_with = "null_as_default")]
    args: RawArgs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIpam {
    #[serde(flatten)]
    range: RawRange,
    #[serde(default, deserialize_with = "null_as_default")]
    ranges: Vec<Vec<RawRange>>,
    #[serde(default, deserialize_with = "null_as_default")]
    routes: Vec<Route>,
    #[serde(default)]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRange {
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    ip_ranges: Option<Vec<Vec<RawRange>>>,
    ips: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawArgs {
    cni: Option<RawCniArgs>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCniArgs {
    ips: Option<Vec<String>>,
}

// === impl Config ===

impl Config {
    /// Reads and checks everything; nothing is touched yet.
    pub(super) fn load(request: &Request) -> Result<Config, Failure> {
        let raw: RawNet = request.parse_config()?;
        let Some(ipam) = raw.ipam else {
            return Err(Failure::config("key \"ipam\" is missing"));
        };
        let mut sets = raw.runtime_config.ip_ranges.unwrap_or_default();
        if ipam.range.subnet.as_deref().is_some_and(|s| !s.is_empty()) {
            sets.push(vec![ipam.range]);
        }
        sets.extend(ipam.ranges);
        let ranges = sets
            .iter()
            .enumerate()
            .map(|(i, set)| RangeSet::canonical(i, set))
            .collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            return Err(Failure::config(
                "ipam: no ranges; \"ranges\" or \"subnet\" is needed",
            ));
        }
        no_overlaps(&ranges)?;
        let mut wanted: Vec<String> = request
            .arg("IP", &["IP", "MAC"])?
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect();
        wanted.extend(raw.args.cni.unwrap_or_default().ips.unwrap_or_default());
        wanted.extend(raw.runtime_config.ips.unwrap_or_default());
        Ok(Config {
            network: request.network.clone(),
            ranges,
            routes: ipam.routes,
            data_dir: ipam
                .data_dir
                .filter(|d| !d.as_os_str().is_empty())
                .unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            resolv_conf: ipam.resolv_conf.filter(|p| !p.as_os_str().is_empty()),
            wanted: wanted
                .iter()
                .map(|text| requested(text))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// An address as the runtime asks for it, with or without a prefix length.
fn requested(text: &str) -> Result<IpAddr, Failure> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    parse_address("requested address", address)
}

fn parse_address(field: &str, text: &str) -> Result<IpAddr, Failure> {
    text.parse::<IpAddr>()
        .map(|address| address.to_canonical())
        .map_err(|_| Failure::config(format!("ipam: {field} {text:?} is not an address")))
}

fn no_overlaps(sets: &[RangeSet]) -> Result<(), Failure> {
    for (i, a) in sets.iter().enumerate() {
        for (j, b) in sets.iter().enumerate().skip(i + 1) {
            if a.0.iter().any(|r| b.0.iter().any(|s| r.overlaps(s))) {
                return Err(Failure::config(format!(
                    "ipam: range set {i} overlaps with {j}"
                )));
            }
        }
    }
    Ok(())
}

// === impl RangeSet ===

impl RangeSet {
    fn canonical(index: usize, raw: &[RawRange]) -> Result<RangeSet, Failure> {
        let in_set = |failure: Failure| {
            Failure(crate::PluginError {
                msg: format!("range set {index}: {}", failure.0.msg),
                ..failure.0
            })
        };
        let ranges = raw
            .iter()
            .map(Range::canonical)
            .collect::<Result<Vec<_>, _>>()
            .map_err(in_set)?;
        if ranges.is_empty() {
            return Err(in_set(Failure::config("ipam: is empty")));
        }
        let family = |range: &Range| range.start.is_ipv4();
        if ranges
            .iter()
            .any(|range| family(range) != family(&ranges[0]))
        {
            return Err(in_set(Failure::config(
                "ipam: IPv4 and IPv6 ranges cannot be alternatives; hint: a range set for each",
            )));
        }
        for (i, a) in ranges.iter().enumerate() {
            if let Some(b) = ranges[i + 1..].iter().find(|b| a.overlaps(b)) {
                return Err(in_set(Failure::config(format!(
                    "ipam: {a} overlaps with {b}"
                ))));
            }
        }
        Ok(RangeSet(ranges))
    }

    /// The range that an address is of.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|r| r.contains(address))
    }

    /// Every address of the set once, from the one after `last` on; from the start if there is no such place.
    pub(super) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let at = last.and_then(|last| Some((self.0.iter().position(|r| r.contains(last))?, last)));
        // Round all ranges, beginning inside one: its tail first, and its head last.
        let first = at.map_or(0, |(range, _)| range);
        let (start, end) = (number(self.0[first].start), number(self.0[first].end));
        let (tail, head) = match at {
            Some((_, last)) => (
                number(last).checked_add(1).map(|next| next..=end),
                Some(start..=number(last)),
            ),
            None => (Some(start..=end), None),
        };
        let count = self.0.len();
        let others = (1..count).flat_map(move |step| {
            let index = (first + step) % count;
            let range = &self.0[index];
            (number(range.start)..=number(range.end)).map(move |n| (n, index))
        });
        let own = move |n: u128| (n, first);
        tail.into_iter()
            .flatten()
            .map(own)
            .chain(others)
            .chain(head.into_iter().flatten().map(own))
            .map(|(n, index)| (self.0[index].address(n), &self.0[index]))
    }

    /// How many addresses containers can have; one more than can be counted is as good.
    pub(super) fn size(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, r| {
            let all = (number(r.end) - number(r.start)).saturating_add(1);
            sum.saturating_add(all - u128::from(r.contains(r.gateway)))
        })
    }
}

/// An address as a number, to count with.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

// === impl Range ===

impl Range {
    fn canonical(raw: &RawRange) -> Result<Range, Failure> {
        let text = raw.subnet.as_deref().unwrap_or_default();
        let subnet: IpNet = text
            .parse()
            .map_err(|_| Failure::config(format!("ipam: subnet {text:?} is not ADDRESS/LENGTH")))?;
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(Failure::config(format!(
                "ipam: subnet {subnet} is too small to allocate from"
            )));
        }
        if subnet.addr() != subnet.network() {
            return Err(Failure::config(format!(
                "ipam: subnet {subnet} has host bits set; the network is {}",
                subnet.trunc()
            )));
        }
        let first = address(&subnet, number(subnet.network()) + 1);
        // IPv6 has no broadcast.
        let last = match subnet {
            IpNet::V4(_) => address(&subnet, number(subnet.broadcast()) - 1),
            IpNet::V6(_) => subnet.broadcast(),
        };
        let within = |field: &str, text: &Option<String>, default: IpAddr| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(text) => match parse_address(field, text)? {
                address if subnet.contains(&address) => Ok(address),
                address => Err(Failure::config(format!(
                    "ipam: {field} {address} is not in subnet {subnet}"
                ))),
            },
        };
        let range = Range {
            subnet,
            start: within("rangeStart", &raw.range_start, first)?,
            end: within("rangeEnd", &raw.range_end, last)?,
            // Not checked against the subnet, as in the reference: it may be a router elsewhere.
            gateway: match raw.gateway.as_deref() {
                None | Some("") => first,
                Some(text) => parse_address("gateway", text)?,
            },
        };
        if range.start > range.end {
            return Err(Failure::config(format!(
                "ipam: rangeStart {} is after rangeEnd {}",
                range.start, range.end
            )));
        }
        Ok(range)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        // Of two families, one is before the other.
        self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn address(&self, number: u128) -> IpAddr {
        address(&self.subnet, number)
    }
}

/// The address of the subnet's family with that number.
fn address(subnet: &IpNet, number: u128) -> IpAddr {
    match subnet {
        // Numbers of IPv4 come from IPv4 addresses.
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}
