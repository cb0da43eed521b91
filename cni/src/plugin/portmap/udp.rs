//! What the kernel remembers of UDP, and must forget when a port begins or ceases to lead somewhere.
//!
//! TCP's connections end; a client that sends datagrams for ever keeps being sent where the port led at first, be it the
//! host itself or a container that is gone.
use std::net::{IpAddr, SocketAddr};

use netlink::{Conntrack, Flow};
use nix::errno::Errno;

use super::super::Failure;
use super::config::{Config, Transport};

/// A port of the host that led to a container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) transport: Transport,
    pub(super) host_port: u16,
    pub(super) to: SocketAddr,
}

/// Before the first packet of a mapping: flows to its port that lead elsewhere.
pub(super) fn forget(config: &Config) -> Result<(), Failure> {
    let ports: Vec<(u16, IpAddr)> = config
        .targets()
        .filter(|(mapping, _)| mapping.transport == Transport::Udp)
        .map(|(mapping, net)| (mapping.host_port, net.addr()))
        .collect();
    forget_if(!ports.is_empty(), |flow| {
        ports.iter().any(|(port, pod)| {
            flow.sent_to.port() == *port
                && flow.sent_to.is_ipv4() == pod.is_ipv4()
                && flow.answered_by.ip() != *pod
        })
    })
}

/// After the last: flows that lead to the container.
pub(super) fn forget_of(gone: &[Led]) -> Result<(), Failure> {
    let gone: Vec<&Led> = gone
        .iter()
        .filter(|led| led.transport == Transport::Udp)
        .collect();
    forget_if(!gone.is_empty(), |flow| {
        gone.iter()
            .any(|led| flow.sent_to.port() == led.host_port && flow.answered_by == led.to)
    })
}

fn forget_if(needed: bool, stale: impl Fn(&Flow) -> bool) -> Result<(), Failure> {
    if !needed {
        return Ok(());
    }
    let mut conntrack = Conntrack::open()?;
    let flows = match conntrack.flows() {
        // A kernel whose table cannot be asked: nothing to do about it.
        Err(e) if matches!(e.errno, Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM) => {
            return Ok(());
        }
        other => other?,
    };
    let udp = Transport::Udp.number();
    for flow in flows.iter().filter(|f| f.protocol == udp && stale(f)) {
        conntrack.forget(flow)?;
    }
    Ok(())
}
