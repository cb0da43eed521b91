//! bridge: a veth pair between the container and a bridge of the host.
//!
//! Configuration as for the reference plugin (<https://www.cni.dev/plugins/current/main/bridge/>), IPv4. What it does
//! in this order: addresses from the IPAM plugin, the bridge with the gateway's address, masquerade of the subnet,
//! the veth pair, the container's side. An ADD that fails undoes what was the container's own; the bridge and the
//! masquerade belong to the network and stay.

mod config;
mod masquerade;
mod network;
mod port;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use netlink::{LinkChange, Mac, Rtnl};
use serde_json::Value;
use sys::netns::NetNs;

use self::config::Config;
use self::port::Port;
use super::{Failure, Request, hash, ipam};
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
    if config.masquerade {
        for (net, _) in &ips {
            masquerade::ensure(&request.network, IpNet::V4(net.trunc()))?;
        }
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

/// Checks what the IPAM plugin gave, and adds what follows from it: the gateway, and the default route to it.
fn complete(
    config: &Config,
    result: &mut AddResult,
) -> Result<Vec<(Ipv4Net, Option<IpAddr>)>, Failure> {
    if config.ipam.is_some() && result.ips.is_empty() {
        return Err(Failure::refused("the IPAM plugin gave no address"));
    }
    let mut ips = Vec::new();
    for ip in &mut result.ips {
        let IpNet::V4(net) = ip.address else {
            return Err(Failure::unsupported(
                "ipam",
                &ip.address,
                "this bridge does IPv4 only",
            ));
        };
        ip.interface = Some(2);
        if ip.gateway.is_none() && config.is_gateway {
            ip.gateway = net.hosts().next().map(IpAddr::V4);
        }
        ips.push((net, ip.gateway));
    }
    let any = IpNet::V4(Ipv4Net::default());
    let has_default = result.routes.iter().any(|r| r.dst == any && r.gw.is_some());
    if let (true, false, Some((_, gateway))) = (config.is_default_gateway, has_default, ips.first())
    {
        result.routes.push(Route::new(any, *gateway));
    }
    Ok(ips)
}

fn container_mac(request: &Request, config: &Config, ips: &[(Ipv4Net, Option<IpAddr>)]) -> Mac {
    let from_ip = ips
        .first()
        .map(|(net, _)| hash::mac_of_ip(net.addr().into()));
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
