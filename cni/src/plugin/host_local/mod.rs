//! host-local: addresses from ranges in the configuration, reserved in files on this host.
//!
//! Same configuration and same files as the reference plugin
//! (<https://www.cni.dev/plugins/current/ipam/host-local/>), so either can release what the other reserved.

mod config;
mod index;
mod resolv;
mod store;

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use self::config::{Config, Range, RangeSet};
use self::store::Store;
use super::{Failure, Request, gc};
use crate::AddResult;
use crate::result::IpConfig;

/// Reserves one address of each range set.
pub(crate) fn add(request: &Request) -> Result<AddResult, Failure> {
    let config = Config::load(request)?;
    let dns = config
        .resolv_conf
        .as_deref()
        .map(resolv::read)
        .transpose()?
        .unwrap_or_default();
    let store = Store::open(&config.data_dir, &request.network)?.lock()?;
    let owner = (request.container_id.as_str(), request.ifname.as_str());

    let reserved = store.reservations()?;
    for held in reserved
        .iter()
        .filter(|r| r.is_of(owner))
        .map(|r| r.address)
    {
        if config.ranges.iter().any(|set| set.range_of(held).is_some()) {
            let msg = format!(
                "{held} has been allocated to {}, duplicate allocation is not allowed: DEL comes first",
                request.container_id
            );
            return Err(Failure::no_address(msg));
        }
    }
    let mut ips = Vec::new();
    match reserve_all(
        &config,
        &Pool {
            store: &store,
            taken: reserved.iter().map(|r| r.address).collect(),
            owner,
        },
        &mut ips,
    ) {
        Ok(()) => Ok(AddResult {
            ips,
            routes: config.routes,
            dns,
            ..AddResult::default()
        }),
        Err(mut failure) => {
            // Half an answer is none: what was reserved a moment ago goes back.
            for ip in &ips {
                let address = ip.address.addr();
                if let Err(undo) = store.release_address(address, owner) {
                    failure = failure.and(format!("{address} stays reserved: {undo}"));
                }
            }
            Err(failure)
        }
    }
}

/// Releases what the attachment holds; nothing held is as good.
pub(crate) fn del(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    match Store::find(&config.data_dir, &request.network)? {
        Some(store) => store
            .lock()?
            .release((&request.container_id, &request.ifname)),
        None => Ok(()),
    }
}

/// Whether the attachment still holds an address of each range set.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    let owner = (request.container_id.as_str(), request.ifname.as_str());
    let held: Vec<IpAddr> = match Store::find(&config.data_dir, &request.network)? {
        Some(store) => store.lock()?.reservations()?,
        None => Vec::new(),
    }
    .iter()
    .filter(|r| r.is_of(owner))
    .map(|r| r.address)
    .collect();
    for set in &config.ranges {
        if !held.iter().any(|address| set.range_of(*address).is_some()) {
            return Err(Failure::refused(format!(
                "no address of {set} is reserved for container {}, interface {}",
                request.container_id, request.ifname
            )));
        }
    }
    Ok(())
}

/// Releases what attachments hold that the runtime does not know any more.
pub(crate) fn collect(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    let valid = gc::valid_attachments(request)?;
    match Store::find(&config.data_dir, &request.network)? {
        Some(store) => store.lock()?.release_all_but(&valid),
        None => Ok(()),
    }
}

/// The store during one ADD.
struct Pool<'a> {
    store: &'a store::Locked,
    taken: HashSet<IpAddr>,
    owner: (&'a str, &'a str),
}

/// Whether the configuration can be used. A pool without a free address is no fault of the node's.
pub(crate) fn status(request: &Request) -> Result<(), Failure> {
    Config::load(request).map(drop)
}

fn reserve_all(config: &Config, pool: &Pool<'_>, ips: &mut Vec<IpConfig>) -> Result<(), Failure> {
    let mut wanted = config.wanted.clone();
    for (index, set) in config.ranges.iter().enumerate() {
        let asked = wanted
            .iter()
            .position(|ip| set.range_of(*ip).is_some())
            .map(|at| wanted.remove(at));
        let (address, range) = match asked {
            Some(address) => (address, reserve_wanted(set, pool, address, index)?),
            None => reserve_next(set, pool, index)?,
        };
        let net = IpNet::new(address, range.subnet.prefix_len())
            .map_err(|e| Failure::config(e.to_string()))?;
        ips.push(IpConfig {
            address: net,
            gateway: Some(range.gateway),
            interface: None,
        });
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = wanted.iter().map(IpAddr::to_string).collect();
    Err(Failure::no_address(format!(
        "requested address {} is in no range of network {:?}",
        left.join(", "),
        config.network
    )))
}

fn reserve_wanted<'a>(
    set: &'a RangeSet,
    pool: &Pool<'_>,
    address: IpAddr,
    index: usize,
) -> Result<&'a Range, Failure> {
    let Some(range) = set.range_of(address) else {
        return Err(Failure::no_address(format!(
            "requested address {address} is not in {set}"
        )));
    };
    if address == range.gateway {
        return Err(Failure::no_address(format!(
            "requested address {address} is the gateway of {}",
            range.subnet
        )));
    }
    if !pool.store.reserve(address, pool.owner, index)? {
        return Err(Failure::no_address(format!(
            "requested address {address} is taken"
        )));
    }
    Ok(range)
}

/// The first free address after the one given last, round the whole set: an address rests as long as possible
/// before it is used again.
fn reserve_next<'a>(
    set: &'a RangeSet,
    pool: &Pool<'_>,
    index: usize,
) -> Result<(IpAddr, &'a Range), Failure> {
    for (address, range) in set.after(pool.store.last_reserved(index)) {
        if address != range.gateway
            && !pool.taken.contains(&address)
            && pool.store.reserve(address, pool.owner, index)?
        {
            return Ok((address, range));
        }
    }
    Err(Failure::no_address(format!(
        "no address left in {set}: all {} are reserved under {}; hint: a larger subnet, or release what stopped containers still hold",
        set.size(),
        pool.store.dir().display()
    )))
}

#[cfg(test)]
mod tests;
