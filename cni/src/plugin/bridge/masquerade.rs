//! Masquerade: what leaves a network's subnet for elsewhere gets the host's address.
//!
//! One table for all networks, and in it one verdict map from source subnets to their chains:
//! ```text
//! table inet davit {
//!   map subnets { type ipv4_addr : verdict; flags interval; elements = { 10.89.0.0/16 : goto masq-davit-10.89.0.0/16 } }
//!   map subnets6 { type ipv6_addr : verdict; flags interval; }
//!   chain masq-davit-10.89.0.0/16 { ip daddr 10.89.0.0/16 return; ip daddr 224.0.0.0/4 return; counter masquerade }
//!   chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @subnets; ip6 saddr vmap @subnets6 }
//! }
//! ```
//! A chain of an IPv6 subnet has `.` for each `:` in its name, which `nft` cannot read in one.
//! A packet is looked up once however many networks there are, and containers come and go without any change: a
//! network's element and chain are made in one transaction by its first container.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink::nft::{
    Batch, Chain, ChainKind, Element, Expr, Family, Hook, Nft, Set, SetData, SetKey, Table, Verdict,
};

use super::super::Failure;

const TABLE: Table<'static> = Table {
    family: Family::Inet,
    name: "davit",
};
// Not "masquerade": that is a word of nft's language, and a person could not name the map on its command line.
const MAP: &str = "subnets";
const MAP6: &str = "subnets6";
const BASE_CHAIN: &str = "postrouting";
/// `NF_IP_PRI_NAT_SRC`, where `nft` says `srcnat`.
const SOURCE_NAT: i32 = 100;
const PREFIX: &str = "masq-";

/// Makes the masquerade of a network's subnets, if it is not there.
pub(super) fn ensure(network: &str, subnets: &[IpNet]) -> Result<(), Failure> {
    let mut nft = Nft::open()?;
    let present = present(&mut nft)?;
    let is_there = |subnet: &IpNet| {
        present
            .iter()
            .any(|s| s.subnet == *subnet && s.network == network)
    };
    let missing: Vec<IpNet> = subnets.iter().copied().filter(|s| !is_there(s)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    prepare(&mut batch);
    for subnet in missing {
        for other in present.iter().filter(|s| overlap(s.subnet, subnet)) {
            // The network had another subnet before; or it is somebody else's, and one of the two must go.
            if other.network != network {
                let msg = format!(
                    "network {network:?}: its subnet {subnet} overlaps with {} of network {:?}, which is masqueraded already",
                    other.subnet, other.network
                );
                return Err(Failure::config(msg));
            }
            forget(&mut batch, other);
        }
        add(&mut batch, network, subnet);
    }
    Ok(nft.commit(&batch)?)
}

fn add(batch: &mut Batch, network: &str, subnet: IpNet) {
    let chain = chain_name(network, subnet);
    let empty = Chain {
        name: &chain,
        base: None,
    };
    batch.add_chain(TABLE, &empty).flush_chain(TABLE, &chain);
    for stays in [subnet, multicast(subnet)] {
        let rule = [
            Expr::is_family_of(stays.addr()),
            Expr::goes_to(stays),
            vec![Expr::Verdict(Verdict::Return)],
        ]
        .concat();
        batch.add_rule(TABLE, &chain, &rule);
    }
    batch.add_rule(TABLE, &chain, &[Expr::Counter, Expr::Masquerade]);
    batch.add_element(
        TABLE,
        map_of(subnet),
        &Element::subnet(subnet).to(Verdict::Goto(chain)),
    );
}

/// Removes the masquerade of a network, and the table with the last one. Nothing there is as good.
pub(super) fn remove(network: &str) -> Result<(), Failure> {
    let mut nft = Nft::open()?;
    let present = present(&mut nft)?;
    let ours: Vec<&Masqueraded> = present.iter().filter(|s| s.network == network).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    if present.len() == ours.len() {
        batch.delete_table(TABLE);
    } else {
        ours.into_iter().for_each(|one| forget(&mut batch, one));
    }
    Ok(nft.commit(&batch)?)
}

/// A subnet that is masqueraded, and whose it is.
struct Masqueraded {
    network: String,
    subnet: IpNet,
}

fn present(nft: &mut Nft) -> Result<Vec<Masqueraded>, Failure> {
    let mut elements = nft.elements(TABLE, MAP)?;
    elements.extend(nft.elements(TABLE, MAP6)?);
    let chains = elements.into_iter().filter_map(|e| match e.verdict {
        Some(Verdict::Goto(chain)) => Some(chain),
        _ => None,
    });
    Ok(chains
        .filter_map(|chain| parse_chain_name(&chain))
        .collect())
}

/// The chain's name says whose it is; the subnet has no `-`.
fn chain_name(network: &str, subnet: IpNet) -> String {
    format!("{PREFIX}{network}-{subnet}").replace(':', ".")
}

fn parse_chain_name(chain: &str) -> Option<Masqueraded> {
    let (network, subnet) = chain.strip_prefix(PREFIX)?.rsplit_once('-')?;
    Some(Masqueraded {
        network: network.to_owned(),
        subnet: subnet
            .parse()
            .or_else(|_| subnet.replace('.', ":").parse())
            .ok()?,
    })
}

/// The table, the map and the base chain. The base chain's one rule is written anew each time, because rules,
/// unlike everything else, would be there twice.
fn prepare(batch: &mut Batch) {
    batch.add_table(TABLE);
    for (name, key) in [(MAP, SetKey::Ipv4), (MAP6, SetKey::Ipv6)] {
        let map = Set {
            name,
            key,
            interval: true,
            data: Some(SetData::Verdict),
        };
        batch.add_set(TABLE, &map);
    }
    let base = Chain {
        name: BASE_CHAIN,
        base: Some((ChainKind::Nat, Hook::Postrouting, SOURCE_NAT)),
    };
    batch.add_chain(TABLE, &base).flush_chain(TABLE, BASE_CHAIN);
    let families = [
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), MAP),
        (IpAddr::from(Ipv6Addr::UNSPECIFIED), MAP6),
    ];
    for (family, map) in families {
        let mut rule = Expr::is_family_of(family);
        rule.extend([Expr::source(family), Expr::VerdictMap(map.to_owned())]);
        batch.add_rule(TABLE, BASE_CHAIN, &rule);
    }
}

fn map_of(subnet: IpNet) -> &'static str {
    match subnet {
        IpNet::V4(_) => MAP,
        IpNet::V6(_) => MAP6,
    }
}

fn forget(batch: &mut Batch, gone: &Masqueraded) {
    let chain = chain_name(&gone.network, gone.subnet);
    batch
        .delete_element(TABLE, map_of(gone.subnet), &Element::subnet(gone.subnet))
        .delete_chain(TABLE, &chain);
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn multicast(family: IpNet) -> IpNet {
    match family {
        IpNet::V4(_) => IpNet::new_assert(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        IpNet::V6(_) => IpNet::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_whose_subnet_it_is_even_if_the_network_has_a_dash() {
        let name = chain_name("my-net-2", "10.89.0.0/16".parse().unwrap());
        let parsed = parse_chain_name(&name).unwrap();
        assert_eq!(
            (parsed.network.as_str(), parsed.subnet.to_string().as_str()),
            ("my-net-2", "10.89.0.0/16")
        );
        assert!(parse_chain_name("postrouting").is_none());
        let name = chain_name("six", "fd00:89::/64".parse().unwrap());
        assert_eq!(name, "masq-six-fd00.89../64");
        assert_eq!(
            parse_chain_name(&name).unwrap().subnet.to_string(),
            "fd00:89::/64"
        );
    }

    #[test]
    fn overlapping_is_found_in_both_directions() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert!(
            overlap(net("10.0.0.0/8"), net("10.89.0.0/16"))
                && overlap(net("10.89.0.0/16"), net("10.0.0.0/8"))
        );
        assert!(!overlap(net("10.88.0.0/16"), net("10.89.0.0/16")));
    }
}
