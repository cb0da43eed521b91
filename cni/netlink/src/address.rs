//! Addresses of links.
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use nix::libc;

use crate::attr::{as_ip, as_u32, attributes};
use crate::socket::{About, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{Link, Result, Rtnl};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`.
const IFADDR: usize = 8;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address with its prefix length.
    pub net: IpNet,
}

impl Rtnl {
    /// Gives a link an address; the route to its subnet comes with it. An IPv6 address is usable at once: whoever gives
    /// it knows that nobody else has it, and asking the neighbours would take a second.
    ///
    /// # Errors
    /// `EEXIST` if the link has it.
    pub fn add_address(&mut self, link: &Link, net: IpNet) -> Result<()> {
        let mut message = address(link, net);
        if net.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            message
                .attributes
                .push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        self.socket.request(
            RTM_NEWADDR,
            NLM_F_CREATE | NLM_F_EXCL,
            &bytes(&message),
            &about(link, "RTM_NEWADDR", net),
        )
    }

    /// Takes an address from a link; the routes that need it go with it.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if the link does not have it.
    pub fn delete_address(&mut self, link: &Link, net: IpNet) -> Result<()> {
        self.socket.request(
            RTM_DELADDR,
            0,
            &bytes(&address(link, net)),
            &about(link, "RTM_DELADDR", net),
        )
    }

    /// The addresses of a link.
    ///
    /// # Errors
    /// The kernel refused the question, or the table never stood still.
    pub fn addresses(&mut self, link: &Link) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = link.index;
        let about = About::new(format!("link {:?}", link.name), "RTM_GETADDR(dump)");
        let messages = self.socket.dump(RTM_GETADDR, &bytes(&message), &about)?;
        // A kernel without strict checking sends the addresses of all links.
        Ok(messages
            .iter()
            .filter_map(read)
            .filter(|a| a.link == link.index)
            .collect())
    }
}

fn address(link: &Link, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = link.index;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(net.addr()));
    message
}

fn about(link: &Link, call: &str, net: IpNet) -> About {
    About::new(format!("link {:?}", link.name), format!("{call}({net})"))
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn bytes(message: &AddressMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn read(message: &Message) -> Option<Address> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    let header = message.payload.get(..IFADDR)?;
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(&message.payload[IFADDR..]) {
        match kind {
            libc::IFA_LOCAL => local = as_ip(&value),
            libc::IFA_ADDRESS => address = as_ip(&value),
            _ => {}
        }
    }
    // IFA_ADDRESS is the peer on a point-to-point link; IPv6 has no IFA_LOCAL otherwise.
    let net = IpNet::new(local.or(address)?, header[1]).ok()?;
    Some(Address {
        link: as_u32(&header[4..8])?,
        net,
    })
}
