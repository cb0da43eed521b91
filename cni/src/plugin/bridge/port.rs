//! One container's link: the veth pair, the bridge's port, and the container's side of it.
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::{Link, Mac, PortFlags, RouteSpec, Rtnl, Veth, VethEnd};
use std::os::fd::AsFd;
use sys::netns::NetNs;

use super::super::{Failure, Request, hash, sysctl};
use super::config::Config;
use super::up;
use crate::AddResult;
use crate::result::IpConfig;

/// How long a port may take to carry frames after both its ends are up; usually it is there at once.
const CARRIER_DEADLINE: Duration = Duration::from_secs(3);

/// The pair to make.
pub(super) struct Port<'a> {
    pub(super) host_name: String,
    pub(super) host_mac: Mac,
    pub(super) ifname: &'a str,
    pub(super) mac: Mac,
    pub(super) config: &'a Config,
}

impl Port<'_> {
    /// Makes the pair and its addresses and routes. On failure the pair is gone again.
    pub(super) fn plug(
        &self,
        host: &mut Rtnl,
        bridge: &Link,
        netns: &NetNs,
        result: &AddResult,
    ) -> Result<(), Failure> {
        host.add_veth(&Veth {
            near: VethEnd {
                name: &self.host_name,
                mac: Some(self.host_mac),
                mtu: self.config.mtu,
            },
            near_up: false,
            master: Some(bridge.index),
            far: VethEnd {
                name: self.ifname,
                mac: Some(self.mac),
                mtu: self.config.mtu,
            },
            far_netns: netns.as_fd(),
        })?;
        self.configure(host, netns, result)
            .map_err(|failure| match self.undo(host) {
                Ok(()) => failure,
                Err(undo) => failure.and(undo),
            })
    }

    fn configure(&self, host: &mut Rtnl, netns: &NetNs, result: &AddResult) -> Result<(), Failure> {
        let link = self.host_link(host)?;
        if self.config.hairpin || self.config.isolated {
            let flags = PortFlags {
                hairpin: self.config.hairpin.then_some(true),
                isolated: self.config.isolated.then_some(true),
            };
            host.change_port(&link, flags)?;
        }
        host.change_link(&link, &up())?;
        self.configure_inside(netns, result)?;
        self.wait_until_running(host)
    }

    fn configure_inside(&self, netns: &NetNs, result: &AddResult) -> Result<(), Failure> {
        let name = self.ifname;
        // The interface tells its neighbours when it comes up: bridge and hosts that knew the address elsewhere
        // learn the new place. That needs the address before.
        let (rtnl, prepared) =
            netns.visit(|| (Rtnl::open(), prepare_inside(name, has_ipv6(result))))?;
        let mut rtnl = rtnl?;
        prepared?;
        let link = rtnl.link_by_name(name)?.ok_or_else(|| {
            Failure::refused(format!("link {name:?} vanished from the namespace"))
        })?;
        for ip in &result.ips {
            rtnl.add_address(&link, ip.address)?;
        }
        rtnl.change_link(&link, &up())?;
        for route in &result.routes {
            let gateway = route.gw.or_else(|| gateway_of_family(result, &route.dst));
            let spec = RouteSpec {
                dst: route.dst,
                gateway: gateway.filter(|gw| !gw.is_unspecified()),
                mtu: route.mtu,
                advmss: route.advmss,
                priority: route.priority,
                table: route.table,
                scope: route.scope,
            };
            match rtnl.add_route(&link, &spec) {
                // The address brought it along, or the list has it twice.
                Err(e) if e.already_exists() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// A bridge passes frames only once the kernel has noticed the carrier, in a task of its own; a connection
    /// attempt before that would wait a second for its first retry.
    fn wait_until_running(&self, host: &mut Rtnl) -> Result<(), Failure> {
        let deadline = Instant::now() + CARRIER_DEADLINE;
        let mut pause = Duration::from_micros(100);
        while !self.host_link(host)?.running {
            if Instant::now() > deadline {
                return Err(Failure::refused(format!(
                    "link {:?}: no carrier after {} s",
                    self.host_name,
                    CARRIER_DEADLINE.as_secs()
                )));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    fn host_link(&self, host: &mut Rtnl) -> Result<Link, Failure> {
        let name = &self.host_name;
        host.link_by_name(name)?.ok_or_else(|| {
            Failure::refused(format!(
                "link {name:?} vanished; was the network namespace destroyed?"
            ))
        })
    }

    fn undo(&self, host: &mut Rtnl) -> Result<(), Failure> {
        match host.link_by_name(&self.host_name)? {
            Some(link) => Ok(host.delete_link(&link).or_else(ignore_gone)?),
            None => Ok(()),
        }
    }
}

/// What the container's interface must know before it has addresses and comes up.
fn prepare_inside(name: &str, ipv6: bool) -> Result<(), Failure> {
    sysctl::set_if_there(&format!("net/ipv4/conf/{name}/arp_notify"), "1")?;
    // Its routes come from the network; a neighbour that plays the router gives it none.
    sysctl::set_if_there(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    if ipv6 {
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/ndisc_notify"), "1")?;
        // Some runtimes begin with IPv6 switched off.
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    Ok(())
}

fn has_ipv6(result: &AddResult) -> bool {
    result.ips.iter().any(|ip| ip.address.addr().is_ipv6())
}

fn gateway_of_family(result: &AddResult, dst: &IpNet) -> Option<std::net::IpAddr> {
    result
        .ips
        .iter()
        .filter_map(|ip| ip.gateway)
        .find(|gw| gw.is_ipv4() == matches!(dst, IpNet::V4(_)))
}

fn ignore_gone(error: netlink::Error) -> Result<(), netlink::Error> {
    if error.is_not_found() {
        Ok(())
    } else {
        Err(error)
    }
}

/// Whether the container's interface is up, has its addresses and leads where its routes say.
pub(super) fn check(request: &Request, previous: &AddResult) -> Result<(), Failure> {
    let netns = request.netns()?;
    let mut rtnl = netns.visit(Rtnl::open)??;
    let name = &request.ifname;
    let wrong =
        |what: String| Failure::refused(format!("interface {name:?} of the container {what}"));
    let Some(link) = rtnl.link_by_name(name)?.filter(|link| link.up) else {
        return Err(wrong("is gone or down".to_owned()));
    };
    let addresses: Vec<IpNet> = rtnl.addresses(&link)?.iter().map(|a| a.net).collect();
    let is_ours = |ip: &&IpConfig| {
        let interface = ip
            .interface
            .and_then(|index| previous.interfaces.get(index));
        interface.is_none_or(|i| i.name == *name)
    };
    for ip in previous.ips.iter().filter(is_ours) {
        if !addresses.contains(&ip.address) {
            return Err(wrong(format!("has not the address {}", ip.address)));
        }
    }
    let mut routes = rtnl.routes()?;
    if has_ipv6(previous) {
        routes.extend(rtnl.routes6()?);
    }
    for route in &previous.routes {
        let there = routes
            .iter()
            .any(|there| there.dst == route.dst && there.link == Some(link.index));
        if !there {
            return Err(wrong(format!("has no route to {}", route.dst)));
        }
    }
    Ok(())
}

/// Takes the container's link away.
///
/// A namespace that the runtime is about to destroy takes its link with it, and spares us the kernel's waiting; only
/// the addresses go now, so that nobody answers for them when they are given to another container.
pub(super) fn unplug(request: &Request, netns_dies: bool) -> Result<(), Failure> {
    if let Some(netns) = request.netns_if_there()? {
        return unplug_inside(&netns, &request.ifname, netns_dies);
    }
    // Without the namespace the host's end is found by its name: it may outlive an ADD that was killed.
    let mut host = Rtnl::open()?;
    match host.link_by_name(&hash::veth_name(&request.container_id, &request.ifname))? {
        Some(link) if !netns_dies => Ok(host.delete_link(&link).or_else(ignore_gone)?),
        _ => Ok(()),
    }
}

fn unplug_inside(netns: &NetNs, ifname: &str, netns_dies: bool) -> Result<(), Failure> {
    let mut rtnl = netns.visit(Rtnl::open)??;
    let Some(link) = rtnl.link_by_name(ifname)? else {
        return Ok(());
    };
    if !netns_dies {
        return Ok(rtnl.delete_link(&link).or_else(ignore_gone)?);
    }
    for address in rtnl.addresses(&link)? {
        rtnl.delete_address(&link, address.net)
            .or_else(ignore_gone)?;
    }
    Ok(())
}
