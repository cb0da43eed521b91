//! Links, addresses, routes and nftables transactions over netlink sockets.
//!
//! Synchronous, one request at a time: made for short-lived plugins and for tasks that may block. A [`Rtnl`] or
//! [`nft::Nft`] stays in the network namespace in which it was opened, whichever thread uses it later.
//! Messages of rtnetlink are built with netlink-packet-route; what the kernel answers is read attribute by
//! attribute, because a newer kernel's unknown attribute must never make a link unreadable.
//! See `netlink(7)`, `rtnetlink(7)`.
#![forbid(unsafe_code)]

mod address;
mod attr;
mod conntrack;
mod error;
mod link;
pub mod nft;
mod route;
mod socket;

pub use address::Address;
pub use conntrack::{Conntrack, Flow};
pub use error::{Error, Result};
pub use link::{Bridge, Link, LinkChange, Mac, PortFlags, Veth, VethEnd};
pub use route::{Route, RouteSpec};

use sys::netns::NetNs;

/// A connection to the kernel's routing and link tables in one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: socket::Socket,
}

impl Rtnl {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open() -> Result<Rtnl> {
        Ok(Rtnl {
            socket: socket::Socket::open(netlink_sys::protocols::NETLINK_ROUTE, "NETLINK_ROUTE")?,
        })
    }

    /// Opens a connection inside `netns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// The namespace cannot be entered or the socket cannot be made.
    pub fn open_in(netns: &NetNs) -> Result<Rtnl> {
        netns
            .run(Rtnl::open)
            .map_err(|e| Error::from_sys(&format!("network namespace {:?}", netns.path()), &e))?
    }
}
