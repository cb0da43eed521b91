//! The kernel's table of connections: finding flows and forgetting them.
//!
//! A flow that has an entry is translated as its first packet was. UDP has no end that the kernel could see, so a client
//! that goes on sending keeps an entry alive that leads to where the port led before.
use std::net::{IpAddr, SocketAddr};

use crate::attr::{Writer, as_ip, find};
use crate::error::Result;
use crate::nft::{nfgenmsg, subsystem_of};
use crate::socket::{About, Message, Socket};

const SUBSYS_CTNETLINK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NEW: u16 = 0;
/// `struct nfgenmsg`.
const NFGEN: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;

/// A connection to the table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

/// A flow that the kernel tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// TCP, UDP, ...
    pub protocol: u8,
    /// Where the first packet was sent to.
    pub sent_to: SocketAddr,
    /// Who answers, which is another where the destination was translated.
    pub answered_by: SocketAddr,
    family: u8,
    /// What names the flow to the kernel, as the kernel wrote it.
    original: Vec<u8>,
}

impl Conntrack {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` on a kernel without it.
    pub fn open() -> Result<Conntrack> {
        let socket = Socket::open(
            netlink_sys::protocols::NETLINK_NETFILTER,
            "NETLINK_NETFILTER",
        )?;
        Ok(Conntrack { socket })
    }

    /// The flows of both families; those that lack ports are left out.
    ///
    /// # Errors
    /// The kernel refused the question, as one without connection tracking does (`EINVAL`).
    pub fn flows(&mut self) -> Result<Vec<Flow>> {
        let about = About::new("connections", "IPCTNL_MSG_CT_GET(dump)");
        let kind = subsystem_of(SUBSYS_CTNETLINK, GET);
        let messages = self.socket.dump(kind, &nfgenmsg(0, 0), &about)?;
        Ok(messages.iter().filter_map(read).collect())
    }

    /// Forgets a flow; its next packet is a first one. One that is gone already is as good.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget(&mut self, flow: &Flow) -> Result<()> {
        let about = About::new(
            format!("connection to {}", flow.sent_to),
            "IPCTNL_MSG_CT_DELETE",
        );
        let payload = Writer::with_header(&nfgenmsg(flow.family, 0))
            .bytes(TUPLE_ORIGINAL | NLA_F_NESTED, &flow.original)
            .into_bytes();
        let kind = subsystem_of(SUBSYS_CTNETLINK, DELETE);
        match self.socket.request(kind, 0, &payload, &about) {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }
}

fn read(message: &Message) -> Option<Flow> {
    if message.kind != subsystem_of(SUBSYS_CTNETLINK, NEW) {
        return None;
    }
    let attributes = message.payload.get(NFGEN..)?;
    let original = find(attributes, TUPLE_ORIGINAL)?;
    let (protocol, _, sent_to) = read_tuple(&original)?;
    let (_, answered_by, _) = read_tuple(&find(attributes, TUPLE_REPLY)?)?;
    Some(Flow {
        protocol,
        sent_to,
        answered_by,
        family: *message.payload.first()?,
        original,
    })
}

/// Protocol, source and destination.
fn read_tuple(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    // CTA_TUPLE_IP, CTA_TUPLE_PROTO
    let (ip, proto) = (find(tuple, 1)?, find(tuple, 2)?);
    // CTA_IP_V4_SRC and _DST are 1 and 2, those of IPv6 3 and 4.
    let address =
        |v4: u16, v6: u16| -> Option<IpAddr> { as_ip(&find(&ip, v4).or_else(|| find(&ip, v6))?) };
    // CTA_PROTO_NUM, _SRC_PORT, _DST_PORT
    let port = |kind| {
        let bytes = find(&proto, kind)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    Some((
        *find(&proto, 1)?.first()?,
        SocketAddr::new(address(1, 3)?, port(2)?),
        SocketAddr::new(address(2, 4)?, port(3)?),
    ))
}
