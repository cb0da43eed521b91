//! What belongs to the network and not to one container: the bridge, the gateway's address, forwarding.
use ipnet::{IpNet, Ipv4Net};
use netlink::{Bridge, Link, LinkChange, Rtnl};

use super::super::{Failure, hash, portmap, sysctl};
use super::config::Config;
use super::{masquerade, up};
use crate::AddResult;

/// The bridge, made if it is not there, and up.
pub(super) fn ensure_bridge(rtnl: &mut Rtnl, config: &Config) -> Result<Link, Failure> {
    let name = config.bridge.as_str();
    let bridge = match rtnl.link_by_name(name)? {
        Some(link) => link,
        None => make_bridge(rtnl, config)?,
    };
    if bridge.kind != "bridge" {
        let kind = if bridge.kind.is_empty() {
            "a device"
        } else {
            &bridge.kind
        };
        return Err(Failure::refused(format!(
            "link {name:?} is there already and is not a bridge but {kind}"
        )));
    }
    // The host must not take routes from whatever a container advertises (CVE-2020-10749).
    sysctl::set_if_there(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    if !bridge.up {
        rtnl.change_link(&bridge, &up())?;
    }
    if config.promiscuous && !bridge.promiscuous {
        rtnl.change_link(
            &bridge,
            &LinkChange {
                promiscuous: Some(true),
                ..LinkChange::default()
            },
        )?;
    }
    Ok(bridge)
}

fn make_bridge(rtnl: &mut Rtnl, config: &Config) -> Result<Link, Failure> {
    let name = config.bridge.as_str();
    // An address of its own: else the bridge would take the lowest one of its ports, and change it with them.
    let made = rtnl.add_bridge(&Bridge {
        name,
        mtu: config.mtu,
        mac: Some(hash::mac_of_names(&[name])),
    });
    match made {
        // Another ADD was faster.
        Err(e) if e.already_exists() => {}
        other => other?,
    }
    rtnl.link_by_name(name)?
        .ok_or_else(|| Failure::refused(format!("link {name:?} vanished while it was made")))
}

/// Gives the bridge the gateways' addresses, and lets the host forward.
pub(super) fn ensure_gateway(
    rtnl: &mut Rtnl,
    bridge: &Link,
    config: &Config,
    result: &AddResult,
) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for ip in &result.ips {
        let Some(gateway) = ip.gateway else { continue };
        wanted.push(
            IpNet::new(gateway, ip.address.prefix_len())
                .map_err(|e| Failure::config(e.to_string()))?,
        );
    }
    let present: Vec<IpNet> = rtnl
        .addresses(bridge)?
        .iter()
        .map(|a| a.net)
        .filter(|net| matches!(net, IpNet::V4(_)))
        .collect();
    for other in present.iter().filter(|net| !wanted.contains(net)) {
        if !config.force_address {
            let msg = format!(
                "bridge {:?} has the address {other}, and the network's gateway is {}",
                bridge.name,
                join(&wanted)
            );
            return Err(Failure::refused(format!(
                "{msg}; hint: another \"bridge\" name, or \"forceAddress\": true"
            )));
        }
        rtnl.delete_address(bridge, *other)?;
    }
    for net in wanted.iter().filter(|net| !present.contains(net)) {
        match rtnl.add_address(bridge, *net) {
            Err(e) if e.already_exists() => {}
            other => other?,
        }
    }
    sysctl::set("net/ipv4/ip_forward", "1")
}

fn join(nets: &[IpNet]) -> String {
    nets.iter()
        .map(IpNet::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Removes what a network left on the host after its last container: the bridge, the masquerade of `subnet`, and
/// the table of host ports if there are none any more.
/// Idempotent. Forwarding stays on: others may rely on it by now.
///
/// # Errors
/// What the kernel refused; every step is tried.
pub fn remove_network(network: &str, bridge: &str, subnet: Ipv4Net) -> Result<(), Failure> {
    let masquerade = masquerade::remove(network, IpNet::V4(subnet.trunc()));
    let link = Rtnl::open().and_then(|mut rtnl| match rtnl.link_by_name(bridge)? {
        Some(link) if link.kind == "bridge" => rtnl
            .delete_link(&link)
            .or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) }),
        _ => Ok(()),
    });
    masquerade
        .and(portmap::remove_if_empty())
        .and(link.map_err(Failure::from))
}
