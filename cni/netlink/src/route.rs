//! Routes.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use nix::libc;

use crate::address::family;
use crate::attr::{as_ip, as_u32, attributes};
use crate::socket::{About, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{Link, Result, Rtnl};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`.
const RTMSG: usize = 12;

/// A route to make or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Destination; prefix length 0 is the default route.
    pub dst: IpNet,
    /// Next hop; None means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Path MTU.
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise.
    pub advmss: Option<u32>,
    /// Metric, lower is preferred.
    pub priority: Option<u32>,
    /// Routing table; None is the main one.
    pub table: Option<u32>,
    /// Scope as the kernel numbers it; None is global with and link without a gateway.
    pub scope: Option<u8>,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// The link's index.
    pub link: Option<u32>,
    /// Metric.
    pub priority: u32,
    /// Routing table.
    pub table: u32,
}

impl RouteSpec {
    /// A route without the optional properties.
    #[must_use]
    pub fn new(dst: IpNet, gateway: Option<IpAddr>) -> RouteSpec {
        RouteSpec {
            dst,
            gateway,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

impl Rtnl {
    /// Adds a route over a link.
    ///
    /// # Errors
    /// `EEXIST` if there is one of the same destination, table and metric; `ENETUNREACH` if the gateway is not on
    /// the link.
    pub fn add_route(&mut self, link: &Link, route: &RouteSpec) -> Result<()> {
        let message = message(link, route);
        self.socket.request(
            RTM_NEWROUTE,
            NLM_F_CREATE | NLM_F_EXCL,
            &bytes(&message),
            &about(link, "RTM_NEWROUTE", route),
        )
    }

    /// The route that a packet to `destination` would take from here.
    ///
    /// # Errors
    /// `ENETUNREACH` if there is none.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(destination)));
        let about = About::new(format!("route to {destination}"), "RTM_GETROUTE");
        let answer = self.socket.get(RTM_GETROUTE, &bytes(&message), &about)?;
        Ok(read(&answer))
    }

    /// Deletes a route over a link.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    pub fn delete_route(&mut self, link: &Link, route: &RouteSpec) -> Result<()> {
        self.socket.request(
            RTM_DELROUTE,
            0,
            &bytes(&message(link, route)),
            &about(link, "RTM_DELROUTE", route),
        )
    }

    /// All IPv4 routes of the namespace, of every table.
    ///
    /// # Errors
    /// The kernel refused the question, or the table never stood still.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        self.routes_of(AddressFamily::Inet)
    }

    /// All IPv6 routes of the namespace, of every table.
    ///
    /// # Errors
    /// As [`Rtnl::routes`].
    pub fn routes6(&mut self) -> Result<Vec<Route>> {
        self.routes_of(AddressFamily::Inet6)
    }

    fn routes_of(&mut self, family: AddressFamily) -> Result<Vec<Route>> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let messages = self.socket.dump(
            RTM_GETROUTE,
            &bytes(&question),
            &About::new("routes", "RTM_GETROUTE(dump)"),
        )?;
        Ok(messages.iter().filter_map(read).collect())
    }
}

fn message(link: &Link, route: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.dst.addr());
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.gateway) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, Some(_)) => RouteScope::Universe,
        (None, None) => RouteScope::Link,
    };
    if route.dst.prefix_len() != 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(
                route.dst.network(),
            )));
    }
    message.attributes.push(RouteAttribute::Oif(link.index));
    message.attributes.extend(
        route
            .gateway
            .map(|gw| RouteAttribute::Gateway(RouteAddress::from(gw))),
    );
    message
        .attributes
        .extend(route.priority.map(RouteAttribute::Priority));
    message
        .attributes
        .extend(route.table.map(RouteAttribute::Table));
    let metrics: Vec<RouteMetric> = [
        route.mtu.map(RouteMetric::Mtu),
        route.advmss.map(RouteMetric::Advmss),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn about(link: &Link, call: &str, route: &RouteSpec) -> About {
    let via = route
        .gateway
        .map(|gw| format!(" via {gw}"))
        .unwrap_or_default();
    About::new(
        format!("link {:?}", link.name),
        format!("{call}({}{via})", route.dst),
    )
}

fn bytes(message: &RouteMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn read(message: &Message) -> Option<Route> {
    if message.kind != RTM_NEWROUTE {
        return None;
    }
    let header = message.payload.get(..RTMSG)?;
    let any = if i32::from(header[0]) == libc::AF_INET6 {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    let (mut dst, mut gateway, mut link, mut priority, mut table) =
        (any, None, None, 0, u32::from(header[4]));
    for (kind, value) in attributes(&message.payload[RTMSG..]) {
        match kind {
            libc::RTA_DST => dst = as_ip(&value)?,
            libc::RTA_GATEWAY => gateway = as_ip(&value),
            libc::RTA_OIF => link = as_u32(&value),
            libc::RTA_PRIORITY => priority = as_u32(&value)?,
            libc::RTA_TABLE => table = as_u32(&value)?,
            _ => {}
        }
    }
    Some(Route {
        dst: IpNet::new(dst, header[1]).ok()?,
        gateway,
        link,
        priority,
        table,
    })
}
