//! What belongs to the network and not to one container: the bridge, the gateway's address, forwarding.
use ipnet::IpNet;
use netlink::{Bridge, Link, LinkChange, Rtnl};

use super::super::{Failure, firewall, hash, portmap, sysctl};
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

/// Whether the bridge is there and up.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    let link = Rtnl::open()?.link_by_name(&config.bridge)?;
    match link {
        Some(link) if link.kind == "bridge" && link.up => Ok(()),
        Some(_) => Err(Failure::refused(format!(
            "link {:?} is no bridge, or is down",
            config.bridge
        ))),
        None => Err(Failure::refused(format!(
            "bridge {:?} is gone",
            config.bridge
        ))),
    }
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
        .filter(|net| wanted.iter().any(|gateway| excludes(*gateway, *net)))
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
    if wanted.iter().any(|net| net.addr().is_ipv4()) {
        sysctl::set("net/ipv4/ip_forward", "1")?;
    }
    if wanted.iter().any(|net| net.addr().is_ipv6()) {
        forward_ipv6()?;
    }
    Ok(())
}

/// Whether a bridge with this gateway should not have that other address. IPv4: any. IPv6: links have several, so only
/// one of the same subnet.
fn excludes(gateway: IpNet, other: IpNet) -> bool {
    match (gateway, other) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(a), IpNet::V6(b)) => a.contains(&b.addr()) || b.contains(&a.addr()),
        _ => false,
    }
}

/// Lets the host forward IPv6. A host that forwards takes no more routes from its routers unless told so: those of its
/// links that did go on.
fn forward_ipv6() -> Result<(), Failure> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    if sysctl::get(FORWARDING).as_deref() == Some("1") {
        return Ok(());
    }
    for link in sysctl::keys("net/ipv6/conf") {
        let accept = format!("net/ipv6/conf/{link}/accept_ra");
        let is_link = !matches!(link.as_str(), "all" | "default" | "lo");
        if is_link && sysctl::get(&accept).as_deref() == Some("1") {
            sysctl::set_if_there(&accept, "2")?;
        }
    }
    sysctl::set(FORWARDING, "1")
}

fn join(nets: &[IpNet]) -> String {
    nets.iter()
        .map(IpNet::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Removes what a network left on the host after its last container: the bridge, its masquerade, and
/// the table of host ports if there are none any more.
/// Idempotent. Forwarding stays on: others may rely on it by now.
///
/// # Errors
/// What the kernel refused; every step is tried.
pub fn remove_network(network: &str, bridge: &str) -> Result<(), Failure> {
    let masquerade = masquerade::remove(network);
    let link = Rtnl::open().and_then(|mut rtnl| match rtnl.link_by_name(bridge)? {
        Some(link) if link.kind == "bridge" => rtnl
            .delete_link(&link)
            .or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) }),
        _ => Ok(()),
    });
    masquerade
        .and(firewall::remove(network))
        .and(portmap::remove_if_empty())
        .and(link.map_err(Failure::from))
}
