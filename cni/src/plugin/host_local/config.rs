//! host-local's part of a network configuration, made canonical.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;
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
    pub(super) wanted: Vec<Ipv4Addr>,
}

/// Ranges of which one address is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet(pub(super) Vec<Range>);

/// A part of a subnet, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) subnet: Ipv4Net,
    pub(super) start: Ipv4Addr,
    pub(super) end: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
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
fn requested(text: &str) -> Result<Ipv4Addr, Failure> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    ipv4("requested address", address)
}

fn ipv4(field: &str, text: &str) -> Result<Ipv4Addr, Failure> {
    match text.parse() {
        Ok(IpAddr::V4(v4)) => Ok(v4),
        Ok(IpAddr::V6(v6)) => v6.to_ipv4_mapped().ok_or_else(|| no_ipv6(field, text)),
        Err(_) => Err(Failure::config(format!(
            "ipam: {field} {text:?} is not an address"
        ))),
    }
}

fn no_ipv6(field: &str, text: &str) -> Failure {
    Failure::unsupported(field, &text, "this host-local gives IPv4 addresses only")
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
    pub(super) fn range_of(&self, address: Ipv4Addr) -> Option<&Range> {
        self.0.iter().find(|r| r.contains(address))
    }

    /// Every address of the set once, from the one after `last` on; from the start if there is no such place.
    pub(super) fn after(&self, last: Option<Ipv4Addr>) -> impl Iterator<Item = (Ipv4Addr, &Range)> {
        let at = last.and_then(|last| Some((self.0.iter().position(|r| r.contains(last))?, last)));
        let (first, skip) = match at {
            Some((range, last)) => (range, u32::from(last) - u32::from(self.0[range].start) + 1),
            None => (0, 0),
        };
        let count = self.0.len();
        // Round all ranges, beginning inside one: its tail first, and its head last.
        let tail = self.0[first]
            .addresses()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .map(move |a| (a, first));
        let others = (1..count).flat_map(move |step| {
            let index = (first + step) % count;
            self.0[index].addresses().map(move |a| (a, index))
        });
        let head = self.0[first]
            .addresses()
            .take(usize::try_from(skip).unwrap_or(usize::MAX))
            .map(move |a| (a, first));
        tail.chain(others)
            .chain(head)
            .map(|(address, index)| (address, &self.0[index]))
    }

    /// How many addresses containers can have.
    pub(super) fn size(&self) -> u64 {
        self.0
            .iter()
            .map(|r| {
                u64::from(u32::from(r.end) - u32::from(r.start)) + 1
                    - u64::from(r.contains(r.gateway))
            })
            .sum()
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
        if text.contains(':') {
            return Err(no_ipv6("subnet", text));
        }
        let subnet: Ipv4Net = text
            .parse()
            .map_err(|_| Failure::config(format!("ipam: subnet {text:?} is not ADDRESS/LENGTH")))?;
        if subnet.prefix_len() > 30 {
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
        let first = Ipv4Addr::from(u32::from(subnet.network()) + 1);
        let last = Ipv4Addr::from(u32::from(subnet.broadcast()) - 1);
        let within = |field: &str, text: &Option<String>, default: Ipv4Addr| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(text) => match ipv4(field, text)? {
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
                Some(text) => ipv4("gateway", text)?,
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

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        (u32::from(self.start)..=u32::from(self.end)).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}
