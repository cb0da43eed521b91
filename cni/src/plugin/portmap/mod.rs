//! portmap: ports of the host that lead to ports of the container.
//!
//! Configuration and runtime arguments as for the reference plugin
//! (<https://www.cni.dev/plugins/current/meta/portmap/>). A port is an element of a map, and the rules around the maps are
//! always the same ([`table`]).

mod config;
mod probe;
mod table;
mod udp;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use netlink::Rtnl;
use serde_json::Value;

use self::config::{Config, Masquerade};
use self::table::{Owner, Ports};
use super::{Failure, Request, gc, sysctl};

pub(crate) use table::remove_if_empty;

/// Maps the ports that the runtime asks for, and passes the result on.
pub(crate) fn add(request: &Request) -> Result<Value, Failure> {
    let config = Config::load(request)?;
    let Some(previous) = &config.previous else {
        return Err(not_chained());
    };
    if config.targets().next().is_some() {
        let held = probe::hold(&config.mappings)?;
        table::map(&config, &owner(request))?;
        drop(held);
        let done = let_loopback_pass(&config).and_then(|()| udp::forget(&config));
        if let Err(failure) = done {
            return Err(match table::unmap(&owner(request)) {
                Ok(_) => failure,
                Err(undo) => failure.and(format!("the ports stay mapped: {undo}")),
            });
        }
    }
    Ok(previous.to_value(request.version))
}

/// Unmaps what the container has, whatever the configuration says now.
pub(crate) fn del(request: &Request) -> Result<(), Failure> {
    udp::forget_of(&table::unmap(&owner(request))?)
}

/// Whether the ports are still mapped as asked.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    if config.previous.is_none() {
        return Err(not_chained());
    }
    table::check(&config, &owner(request))
}

/// Whether ports could be mapped now.
pub(crate) fn status(request: &Request) -> Result<(), Failure> {
    Config::load(request)?;
    Ports::read().map(drop)
}

/// Unmaps what attachments of this network have that the runtime does not know any more.
pub(crate) fn collect(request: &Request) -> Result<(), Failure> {
    let valid: Vec<Owner> = gc::valid_attachments(request)?
        .iter()
        .map(|one| Owner::new(&request.network, &one.container_id, &one.ifname))
        .collect();
    udp::forget_of(&table::unmap_all_but(&request.network, &valid)?)
}

fn owner(request: &Request) -> Owner {
    Owner::new(&request.network, &request.container_id, &request.ifname)
}

fn not_chained() -> Failure {
    Failure::config(
        "portmap comes after a plugin that gives addresses: there is no \"prevResult\"; hint: in a \"plugins\" list, after bridge",
    )
}

/// Lets what the host sends from 127.0.0.1 leave by the link to the container, for IPv4; no such thing exists for IPv6.
/// [`table`] keeps the way back shut.
fn let_loopback_pass(config: &Config) -> Result<(), Failure> {
    if config.masquerade == Masquerade::Nothing {
        return Ok(());
    }
    for (_, net) in config.targets() {
        let address @ IpAddr::V4(_) = net.addr() else {
            continue;
        };
        let mut rtnl = Rtnl::open()?;
        let link = rtnl.route_to(address)?.and_then(|route| route.link);
        let Some(link) = link
            .map(|index| rtnl.link_by_index(index))
            .transpose()?
            .flatten()
        else {
            return Err(Failure::refused(format!(
                "no link of the host leads to {address}"
            )));
        };
        // All of a container's ports have one IPv4 address.
        return sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", link.name), "1");
    }
    Ok(())
}
