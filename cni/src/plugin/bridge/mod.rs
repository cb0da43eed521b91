//! bridge: a veth pair between the container and a bridge of the host.
//!
//! Configuration as for the reference plugin (<https://www.cni.dev/plugins/current/main/bridge/>). What it does
//! in this order: addresses from the IPAM plugin, the bridge with the gateway's address, masquerade of the subnet,
//! the veth pair, the container's side. An ADD that fails undoes what was the container's own; the bridge and the
//! masquerade belong to the network and stay.

mod config;
mod masquerade;
mod network;
mod port;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink::{LinkChange, Mac, Rtnl};
use serde_json::Value;
use sys::netns::NetNs;

use self::config::Config;
use self::port::Port;
use super::{Failure, Request, firewall, hash, ipam};
use crate::AddResult;
use crate::result::{Interface, Route};

pub use network::remove_network;

/// Attaches the container.
pub(crate) fn add(request: &Request) -> Result<Value, Failure> {
    let config = Config::load(request)?;
    let netns = request.netns()?;
    let Some(plugin) = &config.ipam else {
        return attach(request, &config, &netns, AddResult::default());
    };
    let result = ipam::add(plugin, request)?;
    attach(request, &config, &netns, result).map_err(|failure| match ipam::del(plugin, request) {
        Ok(()) => failure,
        Err(undo) => failure.and(format!("the address stays reserved: {undo}")),
    })
}

/// Detaches the container: nothing that is gone already is an error.
pub(crate) fn del(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    let unplugged = port::unplug(request, config.netns_dies);
    // The address goes back even if the link could not be deleted: an address that nobody releases is lost for
    // good, a link dies with its namespace.
    let released = config
        .ipam
        .as_deref()
        .map_or(Ok(()), |plugin| ipam::del(plugin, request));
    match (unplugged, released) {
        (Err(failure), Err(another)) => Err(failure.and(another)),
        (unplugged, released) => unplugged.and(released),
    }
}

/// Whether an ADD would find its configuration and its IPAM plugin in order.
pub(crate) fn status(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    config
        .ipam
        .as_deref()
        .map_or(Ok(()), |plugin| ipam::status(plugin, request))
}

/// Whether what ADD made is still there: the bridge, the container's interface, its addresses and routes.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    let previous = request.previous_result()?;
    if let Some(plugin) = &config.ipam {
        ipam::check(plugin, request)?;
    }
    network::check(&config)?;
    port::check(request, &previous)
}

/// Has addresses released that nobody knows any more. Links go with their namespaces.
pub(crate) fn collect(request: &Request) -> Result<(), Failure> {
    let config = Config::load(request)?;
    config
        .ipam
        .as_deref()
        .map_or(Ok(()), |plugin| ipam::collect(plugin, request))
}

fn attach(
    request: &Request,
    config: &Config,
    netns: &NetNs,
    mut result: AddResult,
) -> Result<Value, Failure> {
    let ips = complete(config, &mut result)?;
    let mut host = Rtnl::open()?;
    let bridge = network::ensure_bridge(&mut host, config)?;
    if config.is_gateway {
        network::ensure_gateway(&mut host, &bridge, config, &result)?;
    }
    let subnets: Vec<IpNet> = ips.iter().map(IpNet::trunc).collect();
    if config.masquerade {
        masquerade::ensure(&request.network, &subnets)?;
    }
    if config.accept_forward {
        firewall::ensure(&request.network, &subnets)?;
    }
    let port = Port {
        host_name: hash::veth_name(&request.container_id, &request.ifname),
        host_mac: hash::mac_of_names(&[&request.container_id, &request.ifname, "host"]),
        ifname: &request.ifname,
        mac: container_mac(request, config, &ips),
        config,
    };
    port.plug(&mut host, &bridge, netns, &result)?;
    result.interfaces = vec![
        Interface {
            name: bridge.name.clone(),
            mac: mac_text(bridge.mac),
            ..Interface::default()
        },
        Interface {
            name: port.host_name.clone(),
            mac: port.host_mac.to_string(),
            ..Interface::default()
        },
        Interface {
            name: request.ifname.clone(),
            mac: port.mac.to_string(),
            mtu: config.mtu,
            sandbox: netns.path().to_string_lossy().into_owned(),
            ..Interface::default()
        },
    ];
    if let Some(dns) = &config.dns {
        result.dns = dns.clone();
    }
    Ok(result.to_value(request.version))
}

/// Checks what the IPAM plugin gave, and adds what follows from it: the gateways, and the default routes to them.
fn complete(config: &Config, result: &mut AddResult) -> Result<Vec<IpNet>, Failure> {
    if config.ipam.is_some() && result.ips.is_empty() {
        return Err(Failure::refused("the IPAM plugin gave no address"));
    }
    for ip in &mut result.ips {
        ip.interface = Some(2);
        if ip.gateway.is_none() && config.is_gateway {
            ip.gateway = first_host(ip.address);
        }
    }
    if config.is_default_gateway {
        for any in [
            IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        ] {
            let of_family = |address: IpAddr| address.is_ipv4() == any.addr().is_ipv4();
            let first = result.ips.iter().find(|ip| of_family(ip.address.addr()));
            let has_default = result.routes.iter().any(|r| r.dst == any && r.gw.is_some());
            if let (Some(first), false) = (first, has_default) {
                result.routes.push(Route::new(any, first.gateway));
            }
        }
    }
    Ok(result.ips.iter().map(|ip| ip.address).collect())
}

/// The first address of a subnet after the one that names it.
fn first_host(net: IpNet) -> Option<IpAddr> {
    let network = IpNet::new(net.network(), net.prefix_len()).ok()?;
    match network {
        IpNet::V4(v4) => v4.hosts().next().map(IpAddr::V4),
        IpNet::V6(v6) => u128::from(v6.network())
            .checked_add(1)
            .map(|first| Ipv6Addr::from(first).into()),
    }
}

fn container_mac(request: &Request, config: &Config, ips: &[IpNet]) -> Mac {
    let from_ip = ips.first().map(|net| hash::mac_of_ip(net.addr()));
    config
        .mac
        .or(from_ip)
        .unwrap_or_else(|| hash::mac_of_names(&[&request.container_id, &request.ifname]))
}

fn mac_text(mac: Option<Mac>) -> String {
    mac.map(|m| m.to_string()).unwrap_or_default()
}

fn up() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}
