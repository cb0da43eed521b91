//! firewall: lets through what goes to and from containers on a host that forwards nothing unless told so.
//!
//! A packet has to pass every chain, and so a chain of ours cannot accept what another's policy drops: the words must
//! stand in that chain. They are such that `iptables` can read them; anything finer would make it refuse to show its own
//! table. What the policy should still keep out is kept out by a table of ours:
//! ```text
//! table ip filter { chain FORWARD { ... policy drop; ip daddr 10.89.0.0/16 accept; ip saddr 10.89.0.0/16 accept; ... } }
//! table inet davit-firewall {
//!   chain forward { type filter hook forward priority filter - 10; jump net-davit }
//!   chain net-davit { ip saddr 10.89.0.0/16 ip daddr 10.89.0.0/16 return
//!                     ip daddr 10.89.0.0/16 ct state new ct status ! dnat drop }
//! }
//! ```
//! So containers reach everything, and everything answers; mapped ports are reached; and nothing else from outside is. On
//! a host that forwards anyway nothing is made. Chains that the older `iptables-legacy` makes are not nftables' and
//! not seen.
//!
//! Configuration as for the reference plugin (<https://www.cni.dev/plugins/current/meta/firewall/>).
use ipnet::IpNet;
use netlink::nft::{
    BaseChain, Batch, Chain, ChainKind, CtKey, Expr, Family, Hook, Nft, Table, Verdict,
};
use serde::Deserialize;
use serde_json::Value;

use super::hash::fnv;
use super::{Failure, Request};

const TABLE: Table<'static> = Table {
    family: Family::Inet,
    name: "davit-firewall",
};
const BASE_CHAIN: &str = "forward";
/// Before the chains of others: what is dropped here never comes to an accepting rule.
const PRIORITY: i32 = -10;
/// Before a network's name, in which no space is.
const PREFIX: &str = "davit network";
/// A longer name does not fit beside a rule.
const MAX_NAME: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    backend: Option<String>,
    #[serde(default)]
    ingress_policy: Option<String>,
    #[serde(default)]
    iptables_admin_chain_name: Option<String>,
}

/// Lets the container's subnets through, and passes the result on.
pub(crate) fn add(request: &Request) -> Result<Value, Failure> {
    check_config(request)?;
    let previous = request.previous_result()?;
    let subnets: Vec<IpNet> = previous.ips.iter().map(|ip| ip.address.trunc()).collect();
    ensure(&request.network, &subnets)?;
    Ok(previous.to_value(request.version))
}

/// The rules are the network's, not the container's.
pub(crate) fn del(_: &Request) -> Result<(), Failure> {
    Ok(())
}

/// Whether the container's subnets would be let through.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    check_config(request)?;
    request.previous_result()?;
    let mut nft = Nft::open()?;
    for chain in dropping(&mut nft)? {
        if ours(&mut nft, &chain, &request.network)?.is_empty() {
            return Err(Failure::refused(format!(
                "chain {:?} of table {:?} drops what it forwards, network {:?} included",
                chain.name, chain.table, request.network
            )));
        }
    }
    Ok(())
}

/// Whether the configuration can be used.
pub(crate) fn status(request: &Request) -> Result<(), Failure> {
    check_config(request)
}

fn check_config(request: &Request) -> Result<(), Failure> {
    let raw: Raw = request.parse_config()?;
    let chain = raw.iptables_admin_chain_name;
    for (key, value, known) in [
        ("backend", raw.backend, "nftables"),
        ("ingressPolicy", raw.ingress_policy, "open"),
        ("iptablesAdminChainName", chain, ""),
    ] {
        match value.as_deref() {
            None | Some("") => {}
            Some(value) if value == known => {}
            Some(value) => {
                let why = "this firewall lets a network through chains of nftables";
                return Err(Failure::unsupported(key, &value, why));
            }
        }
    }
    Ok(())
}

/// Lets the network's subnets through every chain that drops what it forwards.
pub(super) fn ensure(network: &str, subnets: &[IpNet]) -> Result<(), Failure> {
    let mut nft = Nft::open()?;
    let chains = dropping(&mut nft)?;
    if chains.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for chain in &chains {
        let present = ours(&mut nft, chain, network)?;
        for subnet in subnets.iter().filter(|s| is_seen_by(s, chain)) {
            let comment = comment(network, *subnet);
            if present.iter().any(|(_, there)| *there == comment) {
                continue;
            }
            for ends in [Expr::comes_from(*subnet), Expr::goes_to(*subnet)] {
                let family = match chain.family {
                    Family::Inet => Expr::is_family_of(subnet.addr()),
                    _ => Vec::new(),
                };
                let accept = vec![Expr::Counter, Expr::Verdict(Verdict::Accept)];
                let rule = [family, ends, accept].concat();
                batch.insert_rule(chain.table(), &chain.name, &rule, &comment);
            }
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    keep_out(&mut batch, network, subnets);
    if jumps(&mut nft, network)?.is_empty() {
        let jump = [Expr::Verdict(Verdict::Jump(chain_of(network)))];
        batch.insert_rule(TABLE, BASE_CHAIN, &jump, &tag(network));
    }
    Ok(nft.commit(&batch)?)
}

/// Removes what stands for a network, and the table with the last one. Nothing there is as good.
pub(super) fn remove(network: &str) -> Result<(), Failure> {
    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    for chain in nft.base_chains()?.iter().filter(|c| is_others_forward(c)) {
        for (handle, _) in ours(&mut nft, chain, network)? {
            batch.delete_rule(chain.table(), &chain.name, handle);
        }
    }
    let own = jumps(&mut nft, network)?;
    if !own.is_empty() && own.len() == nft.rules(TABLE, BASE_CHAIN)?.len() {
        batch.delete_table(TABLE);
    } else if !own.is_empty() {
        for handle in own {
            batch.delete_rule(TABLE, BASE_CHAIN, handle);
        }
        batch.delete_chain(TABLE, &chain_of(network));
    }
    if batch.is_empty() {
        return Ok(());
    }
    Ok(nft.commit(&batch)?)
}

/// The network's chain in our own table: what comes from outside, asks first and is no mapped port's.
fn keep_out(batch: &mut Batch, network: &str, subnets: &[IpNet]) {
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`.
    const NEW: u32 = 8;
    /// `IPS_DST_NAT`.
    const TRANSLATED: u32 = 1 << 5;
    let base = Chain {
        name: BASE_CHAIN,
        base: Some((ChainKind::Filter, Hook::Forward, PRIORITY)),
    };
    let name = chain_of(network);
    let own = Chain {
        name: &name,
        base: None,
    };
    batch.add_table(TABLE).add_chain(TABLE, &base);
    batch.add_chain(TABLE, &own).flush_chain(TABLE, &name);
    for subnet in subnets {
        let family = Expr::is_family_of(subnet.addr());
        let within = [
            family.clone(),
            Expr::comes_from(*subnet),
            Expr::goes_to(*subnet),
            vec![Expr::Verdict(Verdict::Return)],
        ];
        batch.add_rule(TABLE, &name, &within.concat());
        let outside = [
            family,
            Expr::goes_to(*subnet),
            vec![
                Expr::Ct(CtKey::State),
                Expr::Mask(NEW.to_ne_bytes().to_vec()),
                Expr::NotEqual(vec![0; 4]),
                Expr::Ct(CtKey::Status),
                Expr::Mask(TRANSLATED.to_ne_bytes().to_vec()),
                Expr::Equal(vec![0; 4]),
                Expr::Counter,
                Expr::Verdict(Verdict::Drop),
            ],
        ];
        batch.add_rule(TABLE, &name, &outside.concat());
    }
}

/// The rules of our table that lead to the network's chain.
fn jumps(nft: &mut Nft, network: &str) -> Result<Vec<u64>, Failure> {
    let rules = nft.rules(TABLE, BASE_CHAIN)?;
    let own = rules
        .iter()
        .filter(|rule| rule.comment.as_deref() == Some(&tag(network)));
    Ok(own.map(|rule| rule.handle).collect())
}

/// Others' chains that drop what they forward unless a rule says otherwise.
fn dropping(nft: &mut Nft) -> Result<Vec<BaseChain>, Failure> {
    let mut chains = nft.base_chains()?;
    chains.retain(|chain| chain.drops && is_others_forward(chain));
    Ok(chains)
}

fn is_others_forward(chain: &BaseChain) -> bool {
    chain.is_forward() && chain.family != Family::Bridge && chain.table != TABLE.name
}

fn is_seen_by(subnet: &IpNet, chain: &BaseChain) -> bool {
    match chain.family {
        Family::Ip => subnet.addr().is_ipv4(),
        Family::Ip6 => subnet.addr().is_ipv6(),
        _ => true,
    }
}

/// The network's rules in a chain: handle and comment.
fn ours(nft: &mut Nft, chain: &BaseChain, network: &str) -> Result<Vec<(u64, String)>, Failure> {
    let prefix = format!("{} ", tag(network));
    let rules = nft.rules(chain.table(), &chain.name)?;
    Ok(rules
        .into_iter()
        .filter_map(|rule| {
            Some((
                rule.handle,
                rule.comment.filter(|c| c.starts_with(&prefix))?,
            ))
        })
        .collect())
}

fn comment(network: &str, subnet: IpNet) -> String {
    format!("{} {subnet}", tag(network))
}

fn tag(network: &str) -> String {
    format!("{PREFIX} {}", short(network))
}

fn chain_of(network: &str) -> String {
    format!("net-{}", short(network))
}

fn short(network: &str) -> String {
    if network.len() <= MAX_NAME {
        network.to_owned()
    } else {
        format!("{:016x}", fnv(&[network]))
    }
}
