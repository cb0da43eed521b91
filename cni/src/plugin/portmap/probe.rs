//! Whether a program of the host listens at a port.
//!
//! The translation comes before any socket, so a mapped port would silently take a listening program's connections
//! away. Binding the port is the only question that the kernel answers for sure. The socket stays bound until the
//! mapping is made, and so two containers that want one port at the same moment do not both get it, whatever
//! addresses they name.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::super::Failure;
use super::config::{HostIp, Mapping, Transport};

/// Holds the host's ports of these mappings until dropped.
#[derive(Debug)]
pub(super) struct Held {
    _sockets: Vec<OwnedFd>,
}

/// Binds each mapping's port.
pub(super) fn hold(mappings: &[Mapping]) -> Result<Held, Failure> {
    let mut sockets = Vec::new();
    // The widest first: a socket at every address stands for those at single ones.
    let mut held: Vec<&Mapping> = Vec::new();
    let mut widest: Vec<&Mapping> = mappings.iter().collect();
    widest.sort_by_key(|m| match m.host_ip {
        HostIp::Any => 0,
        HostIp::AnyIpv4 | HostIp::AnyIpv6 => 1,
        HostIp::One(_) => 2,
    });
    for mapping in widest {
        if held.iter().any(|other| other.collides(mapping)) {
            continue;
        }
        for address in addresses(mapping.host_ip) {
            sockets.extend(hold_one(mapping, address)?);
        }
        held.push(mapping);
    }
    Ok(Held { _sockets: sockets })
}

fn addresses(host_ip: HostIp) -> Vec<IpAddr> {
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    );
    match host_ip {
        HostIp::Any => vec![v4, v6],
        HostIp::AnyIpv4 => vec![v4],
        HostIp::AnyIpv6 => vec![v6],
        HostIp::One(ip) => vec![ip],
    }
}

fn hold_one(mapping: &Mapping, address: IpAddr) -> Result<Option<OwnedFd>, Failure> {
    // A socket of SCTP would load the kernel's module into a host that has no use for it.
    if mapping.transport == Transport::Sctp {
        return Ok(None);
    }
    match bound(
        mapping.transport,
        SocketAddr::new(address, mapping.host_port),
    ) {
        Ok(socket) => Ok(Some(socket)),
        // An address that the host has not (yet), or a family that it lacks: nobody listens there.
        Err(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => Ok(None),
        Err(Errno::EADDRINUSE) => Err(Failure::refused(format!(
            "host port {mapping} is in use by a program of the host, or is being mapped for another container; hint: ss -lnp 'sport = :{}'",
            mapping.host_port
        ))),
        Err(errno) => Err(Failure::refused(format!(
            "host port {mapping}: bind: {} ({errno:?})",
            errno.desc().to_lowercase()
        ))),
    }
}

fn bound(transport: Transport, at: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let kind = match transport {
        Transport::Udp => SockType::Datagram,
        Transport::Tcp | Transport::Sctp => SockType::Stream,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if at.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // Connections that have ended must not count for a while yet, but listening programs must.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    if kind == SockType::Stream {
        listen(&socket, Backlog::new(1)?)?;
    }
    Ok(socket)
}
