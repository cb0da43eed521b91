//! The ports as nftables has them: maps, and the same few rules around them however many ports there are.
//! ```text
//! table inet davit-ports {
//!   map ports4 { type inet_proto . inet_service : ipv4_addr . inet_service; }                # any address of the host
//!   map at4    { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }    # one address
//!   map back4  { type ipv4_addr . inet_proto . inet_service : verdict; }                     # by the container's port
//!   chain translate   { dnat ip to ip daddr . meta l4proto . th dport map @at4
//!                       dnat ip to meta l4proto . th dport map @ports4 ... }
//!   chain prerouting  { type nat hook prerouting priority dstnat; fib daddr type local jump translate }
//!   chain output      { type nat hook output priority -100; fib daddr type local jump translate }
//!   chain postrouting { type nat hook postrouting priority srcnat; ct status dnat ip daddr . meta l4proto . th dport vmap @back4 ... }
//!   chain back-10.89.0.0/16 { ip saddr 127.0.0.0/8 masquerade; ip saddr 10.89.0.0/16 masquerade }
//!   chain guard       { type filter hook input priority filter; iifname != "lo" ip daddr 127.0.0.0/8 ct state != established,related drop ... }
//! }
//! ```
//! (and the same for IPv6, without loopback: `::1` leads nowhere but to the host). The way back: a container could answer
//! its neighbours and the host's loopback only past the host, and so those get the host's address. The guard: a link that
//! carries loopback addresses for us would carry them for whoever is on it (CVE-2020-8558).
//!
//! Each element's comment says whose it is, so that it is found again without any other record.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netlink::nft::{
    Batch, Chain, ChainKind, CtKey, Element, Expr, Family, Hook, KeyPart, Nft, Set, SetData,
    SetKey, Table, Verdict, part,
};
use nix::errno::Errno;

use super::super::Failure;
use super::super::hash::fnv;
use super::config::{Config, HostIp, Mapping, Masquerade, Transport};
use super::udp::Led;

const TABLE: Table<'static> = Table {
    family: Family::Inet,
    name: "davit-ports",
};
const TRANSLATE: &str = "translate";
const BACK_PREFIX: &str = "back-";
/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// How often others may come in between.
const TRIES: usize = 8;

/// The maps of one address family.
struct Maps {
    ipv6: bool,
    ports: &'static str,
    at: &'static str,
    back: &'static str,
}

const FAMILIES: [Maps; 2] = [
    Maps {
        ipv6: false,
        ports: "ports4",
        at: "at4",
        back: "back4",
    },
    Maps {
        ipv6: true,
        ports: "ports6",
        at: "at6",
        back: "back6",
    },
];

/// Whose elements they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    comment: String,
}

/// One element of one of the maps.
#[derive(Debug, Clone)]
struct Entry {
    map: &'static str,
    key: Vec<u8>,
    owner: Owner,
    /// For an element that maps a port: which, and where it leads.
    mapping: Option<(Mapping, SocketAddr)>,
    /// The container's address.
    pod: Option<IpAddr>,
}

/// All elements.
#[derive(Debug)]
pub(super) struct Ports {
    nft: Nft,
    generation: u32,
    entries: Vec<Entry>,
}

/// Makes the config's mappings, and takes away what an earlier life of the container or of its address left.
pub(super) fn map(config: &Config, owner: &Owner) -> Result<(), Failure> {
    for _ in 0..TRIES {
        let mut ports = Ports::read()?;
        ports.refuse_conflicts(config, owner)?;
        let mut batch = Batch::new();
        prepare(&mut batch);
        let is_pod = |address| config.pod.iter().any(|net| Some(net.addr()) == address);
        for old in ports
            .entries
            .iter()
            .filter(|e| e.owner == *owner || is_pod(e.pod))
        {
            batch.delete_element(TABLE, old.map, &Element::key(old.key.clone()));
        }
        add_all(&mut batch, config, owner);
        match ports.nft.commit(&batch) {
            Ok(()) => return keep_unless_late(config, owner),
            // Another container took the port, or another's clean-up was faster, since we looked.
            Err(e) if matches!(e.errno, Errno::EEXIST | Errno::EBUSY | Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Failure::refused(format!(
        "the table of ports changed {TRIES} times while it was being changed; hint: try again"
    )))
}

/// Unmaps what the owner has and says what that was; nothing is as good.
pub(super) fn unmap(owner: &Owner) -> Result<Vec<Led>, Failure> {
    unmap_if(|entry| entry.owner == *owner)
}

/// Unmaps what owners of the network have that are not in the list.
pub(super) fn unmap_all_but(network: &str, valid: &[Owner]) -> Result<Vec<Led>, Failure> {
    let gone =
        unmap_if(|entry| entry.owner.is_of_network(network) && !valid.contains(&entry.owner))?;
    remove_if_empty()?;
    Ok(gone)
}

/// Removes the table if no port is mapped any more. Idempotent.
pub(crate) fn remove_if_empty() -> Result<(), Failure> {
    let mut ports = Ports::read()?;
    if !ports.entries.is_empty()
        || !ports
            .nft
            .tables(Family::Inet)?
            .iter()
            .any(|t| t == TABLE.name)
    {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_table(TABLE);
    match ports.nft.commit_unless_changed(&batch, ports.generation) {
        // Somebody was faster: with a new port, or with this.
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether every mapping is there.
pub(super) fn check(config: &Config, owner: &Owner) -> Result<(), Failure> {
    let ports = Ports::read()?;
    for (mapping, to) in wanted(config) {
        let there = ports.entries.iter().any(|e| {
            e.owner == *owner
                && e.mapping
                    .as_ref()
                    .is_some_and(|(m, led)| m.collides(&mapping) && *led == to)
        });
        if !there {
            return Err(Failure::refused(format!(
                "host port {mapping} does not lead to {to} any more"
            )));
        }
    }
    Ok(())
}

// === impl Ports ===

impl Ports {
    /// Everything that is mapped now.
    pub(super) fn read() -> Result<Ports, Failure> {
        let mut nft = Nft::open()?;
        let generation = nft.generation()?;
        let mut entries = Vec::new();
        for maps in &FAMILIES {
            for map in [maps.ports, maps.at, maps.back] {
                let elements = nft.elements(TABLE, map)?;
                entries.extend(elements.into_iter().map(|e| Entry::read(maps, map, e)));
            }
        }
        Ok(Ports {
            nft,
            generation,
            entries,
        })
    }

    /// Ports that lead to other containers. An address belongs to one container, and so what leads to ours is left over.
    fn refuse_conflicts(&self, config: &Config, owner: &Owner) -> Result<(), Failure> {
        for (mapping, to) in wanted(config) {
            let other = self.entries.iter().find(|e| {
                e.owner != *owner
                    && e.mapping
                        .as_ref()
                        .is_some_and(|(m, led)| m.collides(&mapping) && led.ip() != to.ip())
            });
            if let Some(other) = other {
                return Err(Failure::refused(format!(
                    "host port {mapping} is mapped for {} already",
                    other.owner.name()
                )));
            }
        }
        Ok(())
    }
}

/// Two containers with different addresses for one port are no clash to the kernel; who sees the other's goes.
fn keep_unless_late(config: &Config, owner: &Owner) -> Result<(), Failure> {
    let clash = Ports::read()?.refuse_conflicts(config, owner);
    clash.map_err(|failure| match unmap(owner) {
        Ok(_) => failure,
        Err(undo) => failure.and(format!("the ports stay mapped: {undo}")),
    })
}

fn unmap_if(gone: impl Fn(&Entry) -> bool) -> Result<Vec<Led>, Failure> {
    for _ in 0..TRIES {
        let Ports {
            mut nft, entries, ..
        } = Ports::read()?;
        let entries: Vec<Entry> = entries.into_iter().filter(|e| gone(e)).collect();
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::new();
        for entry in &entries {
            batch.delete_element(TABLE, entry.map, &Element::key(entry.key.clone()));
        }
        match nft.commit(&batch) {
            Ok(()) => return Ok(entries.iter().filter_map(Entry::led).collect()),
            // Another DEL of the same.
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Failure::refused(format!(
        "the table of ports changed {TRIES} times while it was being cleaned; hint: try again"
    )))
}

/// Each mapping as it is in a map: of one family, with its target.
fn wanted(config: &Config) -> impl Iterator<Item = (Mapping, SocketAddr)> {
    config.targets().map(|(mapping, net)| {
        let host_ip = match (mapping.host_ip, net) {
            (HostIp::Any, IpNet::V4(_)) => HostIp::AnyIpv4,
            (HostIp::Any, IpNet::V6(_)) => HostIp::AnyIpv6,
            (other, _) => other,
        };
        let to = SocketAddr::new(net.addr(), mapping.container_port);
        (
            Mapping {
                host_ip,
                ..mapping.clone()
            },
            to,
        )
    })
}

fn add_all(batch: &mut Batch, config: &Config, owner: &Owner) {
    for (mapping, to) in wanted(config) {
        let maps = Maps::of(to.ip());
        let mut key = Vec::new();
        let map = match mapping.host_ip {
            HostIp::One(ip) => {
                key.extend(part::address(ip));
                maps.at
            }
            _ => maps.ports,
        };
        key.extend(part::transport(mapping.transport.number()));
        key.extend(part::port(mapping.host_port));
        let data = [part::address(to.ip()), part::port(to.port())].concat();
        batch.add_new_element(
            TABLE,
            map,
            &Element::key(key)
                .with_data(data)
                .with_comment(&owner.comment),
        );
    }
    add_ways_back(batch, config, owner);
}

fn add_ways_back(batch: &mut Batch, config: &Config, owner: &Owner) {
    if config.masquerade == Masquerade::Nothing {
        return;
    }
    let mut done: Vec<Vec<u8>> = Vec::new();
    for (mapping, net) in config.targets() {
        let key = [
            part::address(net.addr()),
            part::transport(mapping.transport.number()),
            part::port(mapping.container_port),
        ]
        .concat();
        if done.contains(&key) {
            continue;
        }
        let chain = add_chain_back(batch, config.masquerade, net.trunc());
        let element = Element::key(key.clone())
            .to(Verdict::Goto(chain))
            .with_comment(&owner.comment);
        batch.add_element(TABLE, Maps::of(net.addr()).back, &element);
        done.push(key);
    }
}

/// The chain of a subnet; its rules are written anew, because rules, unlike everything else, would be there twice.
fn add_chain_back(batch: &mut Batch, masquerade: Masquerade, subnet: IpNet) -> String {
    let name = match masquerade {
        Masquerade::All => format!("{BACK_PREFIX}all"),
        _ => format!("{BACK_PREFIX}{subnet}").replace(':', "."),
    };
    let chain = Chain {
        name: &name,
        base: None,
    };
    batch.add_chain(TABLE, &chain).flush_chain(TABLE, &name);
    let mut rules = Vec::new();
    if masquerade == Masquerade::All {
        rules.push(Vec::new());
    } else {
        if subnet.addr().is_ipv4() {
            rules.push(Expr::comes_from(loopback()));
        }
        rules.push(Expr::comes_from(subnet));
    }
    for source in rules {
        let family = if source.is_empty() {
            Vec::new()
        } else {
            Expr::is_family_of(subnet.addr())
        };
        let rule = [family, source, vec![Expr::Masquerade]].concat();
        batch.add_rule(TABLE, &name, &rule);
    }
    name
}

/// The table, its maps and its base chains.
fn prepare(batch: &mut Batch) {
    batch.add_table(TABLE);
    for maps in &FAMILIES {
        maps.prepare(batch);
    }
    let translate = Chain {
        name: TRANSLATE,
        base: None,
    };
    batch
        .add_chain(TABLE, &translate)
        .flush_chain(TABLE, TRANSLATE);
    for maps in &FAMILIES {
        maps.translate(batch);
    }
    let base = |name, kind, hook, priority| Chain {
        name,
        base: Some((kind, hook, priority)),
    };
    let jump = Expr::Verdict(Verdict::Jump(TRANSLATE.to_owned()));
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch
            .add_chain(TABLE, &base(name, ChainKind::Nat, hook, DESTINATION_NAT))
            .flush_chain(TABLE, name)
            .add_rule(TABLE, name, &[Expr::ToThisHost, jump.clone()]);
    }
    let back = base("postrouting", ChainKind::Nat, Hook::Postrouting, SOURCE_NAT);
    batch
        .add_chain(TABLE, &back)
        .flush_chain(TABLE, "postrouting");
    for maps in &FAMILIES {
        maps.back(batch);
    }
    batch
        .add_chain(TABLE, &base("guard", ChainKind::Filter, Hook::Input, 0))
        .flush_chain(TABLE, "guard");
    for address in [Expr::goes_to(loopback()), Expr::comes_from(loopback())] {
        batch.add_rule(TABLE, "guard", &guard(address));
    }
}

/// Loopback addresses on a wire, other than in answers to our own.
fn guard(address: Vec<Expr>) -> Vec<Expr> {
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    [
        Expr::not_by("lo"),
        Expr::is_family_of(loopback().addr()),
        address,
        vec![
            Expr::Ct(CtKey::State),
            Expr::Mask(ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
            Expr::Equal(vec![0; 4]),
            Expr::Verdict(Verdict::Drop),
        ],
    ]
    .concat()
}

fn loopback() -> IpNet {
    IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8)
}

// === impl Maps ===

impl Maps {
    fn of(family: IpAddr) -> &'static Maps {
        &FAMILIES[usize::from(family.is_ipv6())]
    }

    fn family(&self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        }
    }

    fn prepare(&self, batch: &mut Batch) {
        let (address_key, target) = if self.ipv6 {
            (SetKey::Ipv6TransportPort, SetData::Ipv6Port)
        } else {
            (SetKey::Ipv4TransportPort, SetData::Ipv4Port)
        };
        for (name, key, data) in [
            (self.ports, SetKey::TransportPort, target),
            (self.at, address_key, target),
            (self.back, address_key, SetData::Verdict),
        ] {
            let map = Set {
                name,
                key,
                interval: false,
                data: Some(data),
            };
            batch.add_set(TABLE, &map);
        }
    }

    /// The destination's address, its transport and its port.
    fn address_key(&self) -> Expr {
        let address = if self.ipv6 {
            KeyPart::DestinationIpv6
        } else {
            KeyPart::DestinationIpv4
        };
        Expr::Key(vec![address, KeyPart::Transport, KeyPart::DestinationPort])
    }

    fn translate(&self, batch: &mut Batch) {
        if self.ipv6 {
            // Nothing that comes from ::1 can leave the host: a refusal now is better than silence.
            let to_loopback = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
            let mut rule = Expr::is_family_of(self.family());
            rule.extend(Expr::goes_to(to_loopback));
            rule.push(Expr::Verdict(Verdict::Return));
            batch.add_rule(TABLE, TRANSLATE, &rule);
        }
        let any = Expr::Key(vec![KeyPart::Transport, KeyPart::DestinationPort]);
        for (key, map) in [(self.address_key(), self.at), (any, self.ports)] {
            let mut rule = Expr::is_family_of(self.family());
            rule.push(key);
            rule.push(Expr::DestinationNatByMap {
                map: map.to_owned(),
                ipv6: self.ipv6,
            });
            batch.add_rule(TABLE, TRANSLATE, &rule);
        }
    }

    fn back(&self, batch: &mut Batch) {
        /// `IPS_DST_NAT`.
        const TRANSLATED: u32 = 1 << 5;
        let mut rule = vec![
            Expr::Ct(CtKey::Status),
            Expr::Mask(TRANSLATED.to_ne_bytes().to_vec()),
            Expr::NotEqual(vec![0; 4]),
        ];
        rule.extend(Expr::is_family_of(self.family()));
        rule.extend([self.address_key(), Expr::VerdictMap(self.back.to_owned())]);
        batch.add_rule(TABLE, "postrouting", &rule);
    }
}

// === impl Owner ===

impl Owner {
    /// Hashes of the network and of the attachment, for us; the names as far as they fit, for people.
    pub(super) fn new(network: &str, container_id: &str, ifname: &str) -> Owner {
        const MAX: usize = 127;
        let mut comment = format!(
            "{:016x}{:016x} {network} {container_id} {ifname}",
            fnv(&[network]),
            fnv(&[network, container_id, ifname])
        );
        // Names are ASCII here; a cut inside a character would panic otherwise.
        while comment.len() > MAX {
            comment.pop();
        }
        Owner { comment }
    }

    fn is_of_network(&self, network: &str) -> bool {
        self.comment
            .starts_with(&format!("{:016x}", fnv(&[network])))
    }

    fn name(&self) -> String {
        let mut words = self.comment.split(' ').skip(1);
        match (words.next(), words.next()) {
            (Some(network), Some(id)) => format!("container {id} of network {network:?}"),
            _ => "somebody else".to_owned(),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn read(maps: &Maps, map: &'static str, element: Element) -> Entry {
        let comment = element.comment.unwrap_or_default();
        let mut key = Bytes(&element.key);
        let host_ip = match map {
            _ if map == maps.ports && maps.ipv6 => Some(HostIp::AnyIpv6),
            _ if map == maps.ports => Some(HostIp::AnyIpv4),
            _ => key.address(maps.ipv6).map(HostIp::One),
        };
        let (transport, port) = (key.transport(), key.port());
        let mut data = Bytes(element.data.as_deref().unwrap_or_default());
        let target = data
            .address(maps.ipv6)
            .and_then(|ip| Some(SocketAddr::new(ip, data.port()?)));
        let mapping = match (map == maps.back, host_ip, transport, port, target) {
            (false, Some(host_ip), Some(transport), Some(host_port), Some(to)) => {
                let mapping = Mapping {
                    transport,
                    host_port,
                    container_port: to.port(),
                    host_ip,
                };
                Some((mapping, to))
            }
            _ => None,
        };
        let pod = match host_ip {
            Some(HostIp::One(ip)) if map == maps.back => Some(ip),
            _ => target.map(|to| to.ip()),
        };
        Entry {
            map,
            key: element.key,
            owner: Owner { comment },
            mapping,
            pod,
        }
    }

    fn led(&self) -> Option<Led> {
        self.mapping.as_ref().map(|(mapping, to)| Led {
            transport: mapping.transport,
            host_port: mapping.host_port,
            to: *to,
        })
    }
}

/// Reads the parts of keys and data.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        let taken = *taken;
        self.0 = rest;
        Some(taken)
    }

    fn address(&mut self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 {
            self.take::<16>().map(IpAddr::from)
        } else {
            self.take::<4>().map(IpAddr::from)
        }
    }

    fn transport(&mut self) -> Option<Transport> {
        Transport::from_number(self.take::<4>()?[0])
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }
}
