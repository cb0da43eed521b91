//! Links: bridges, veth pairs, their state and their bridge port flags.
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use nix::libc;

use crate::attr::{as_text, as_u32, attributes};
use crate::socket::{About, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{Error, Result, Rtnl};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const IFINFO: usize = 16;
const OPER_UP: u8 = 6;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, ...; empty for hardware and loopback.
    pub kind: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// The bridge (or other master) it is a port of.
    pub master: Option<u32>,
    /// For a veth: the other end's index, in the other end's namespace.
    pub peer: Option<u32>,
    /// Set up by the administrator.
    pub up: bool,
    /// Able to carry frames.
    pub running: bool,
    /// In promiscuous mode.
    pub promiscuous: bool,
}

/// A bridge to make.
#[derive(Debug, Clone, Default)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Its hardware address; a bridge without one of its own takes that of a port and changes it with the ports.
    pub mac: Option<Mac>,
}

/// One end of a veth pair.
#[derive(Debug, Clone, Default)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: Option<u32>,
}

/// A veth pair to make: `near` in the connection's namespace, `far` in another.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// The end in the connection's namespace.
    pub near: VethEnd<'a>,
    /// Whether the near end is up from the start. The far end is always down: when the kernel makes it, it has no
    /// other end yet.
    pub near_up: bool,
    /// The bridge that the near end becomes a port of.
    pub master: Option<u32>,
    /// The other end.
    pub far: VethEnd<'a>,
    /// The namespace of the other end.
    pub far_netns: BorrowedFd<'a>,
}

/// What to change on a link; None leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The master; `Some(None)` takes it out of its bridge.
    pub master: Option<Option<u32>>,
    /// Promiscuous mode.
    pub promiscuous: Option<bool>,
}

/// Flags of a bridge's port; None leaves it as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct PortFlags {
    /// Frames may go back out of the port they came from.
    pub hairpin: Option<bool>,
    /// No frames to other isolated ports.
    pub isolated: Option<bool>,
}

impl Rtnl {
    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = question(0);
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(&message, &About::new(link_named(name), "RTM_GETLINK"))
    }

    /// The link of that index, if there is one.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.get_link(
            &question(index),
            &About::new(format!("link {index}"), "RTM_GETLINK"),
        )
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel refused the question, or the table never stood still.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let messages = self.socket.dump(
            RTM_GETLINK,
            &bytes(&question(0)),
            &About::new("links", "RTM_GETLINK(dump)"),
        )?;
        Ok(messages.iter().filter_map(read).collect())
    }

    /// Makes a bridge; it stays down.
    ///
    /// # Errors
    /// `EEXIST` if a link of that name is there, whatever its kind.
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) -> Result<()> {
        let mut message = named(bridge.name, bridge.mtu, bridge.mac);
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        let about = About::new(link_named(bridge.name), "RTM_NEWLINK(kind=bridge)");
        self.socket.request(
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            &bytes(&message),
            &about,
        )
    }

    /// Makes a veth pair whose far end starts its life in another namespace, with master and state, in one request.
    ///
    /// # Errors
    /// `EEXIST` if either name is taken in its namespace; then nothing was made.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut far = named(veth.far.name, veth.far.mtu, veth.far.mac);
        far.attributes
            .push(LinkAttribute::NetNsFd(veth.far_netns.as_raw_fd()));
        let mut near = named(veth.near.name, veth.near.mtu, veth.near.mac);
        if veth.near_up {
            near.header.flags = LinkFlags::Up;
            near.header.change_mask = LinkFlags::Up;
        }
        if let Some(master) = veth.master {
            near.attributes.push(LinkAttribute::Controller(master));
        }
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        let call = format!(
            "RTM_NEWLINK(kind=veth, peer={:?}, peer netns={})",
            veth.far.name,
            veth.far_netns.as_raw_fd()
        );
        self.socket.request(
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            &bytes(&near),
            &About::new(link_named(veth.near.name), call),
        )
    }

    /// Changes a link.
    ///
    /// # Errors
    /// `ENODEV` if it is gone.
    pub fn change_link(&mut self, link: &Link, change: &LinkChange) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let mut what = Vec::new();
        for (wanted, flag, on, off) in [
            (change.up, LinkFlags::Up, "up", "down"),
            (
                change.promiscuous,
                LinkFlags::Promisc,
                "promisc on",
                "promisc off",
            ),
        ] {
            let Some(wanted) = wanted else { continue };
            message.header.change_mask |= flag;
            message.header.flags.set(flag, wanted);
            what.push(if wanted { on } else { off }.to_owned());
        }
        if let Some(mtu) = change.mtu {
            message.attributes.push(LinkAttribute::Mtu(mtu));
            what.push(format!("mtu={mtu}"));
        }
        if let Some(mac) = change.mac {
            message
                .attributes
                .push(LinkAttribute::Address(mac.0.to_vec()));
            what.push(format!("mac={mac}"));
        }
        if let Some(master) = change.master {
            message
                .attributes
                .push(LinkAttribute::Controller(master.unwrap_or(0)));
            what.push(format!("master={}", master.unwrap_or(0)));
        }
        let about = About::new(
            link_named(&link.name),
            format!("RTM_NEWLINK({})", what.join(", ")),
        );
        self.socket
            .request(RTM_NEWLINK, 0, &bytes(&message), &about)
    }

    /// Changes the bridge's side of a port.
    ///
    /// # Errors
    /// `EINVAL` if the link is no bridge's port.
    pub fn change_port(&mut self, link: &Link, flags: PortFlags) -> Result<()> {
        let mut data = Vec::new();
        let mut what = Vec::new();
        if let Some(on) = flags.hairpin {
            data.push(InfoBridgePort::HairpinMode(on));
            what.push(format!("hairpin={on}"));
        }
        if let Some(on) = flags.isolated {
            data.push(InfoBridgePort::Isolated(on));
            what.push(format!("isolated={on}"));
        }
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ]));
        let about = About::new(
            link_named(&link.name),
            format!("RTM_NEWLINK(bridge port, {})", what.join(", ")),
        );
        self.socket
            .request(RTM_NEWLINK, 0, &bytes(&message), &about)
    }

    /// Deletes a link. A veth takes its other end with it. The kernel holds the caller for some 20 ms, until
    /// nobody can see the link any more; closing the link's namespace instead costs the caller nothing.
    ///
    /// # Errors
    /// `ENODEV` if it is gone.
    pub fn delete_link(&mut self, link: &Link) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        self.socket.request(
            RTM_DELLINK,
            0,
            &bytes(&message),
            &About::new(link_named(&link.name), "RTM_DELLINK"),
        )
    }

    fn get_link(&mut self, message: &LinkMessage, about: &About) -> Result<Option<Link>> {
        match self.socket.get(RTM_GETLINK, &bytes(message), about) {
            Ok(answer) => read(&answer).map(Some).ok_or_else(|| {
                Error::unusable(&about.object, &about.call, "a link without a name")
            }),
            Err(e) if e.errno == Errno::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A question about one link (or with index 0 about that named in an attribute, or all), without its counters.
fn question(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn named(name: &str, mtu: Option<u32>, mac: Option<Mac>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}

fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn link_named(name: &str) -> String {
    format!("link {name:?}")
}

fn read(message: &Message) -> Option<Link> {
    const PROMISC: u32 = 0x100;
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let header = message.payload.get(..IFINFO)?;
    let flags = as_u32(&header[8..12])?;
    let mut link = Link {
        index: as_u32(&header[4..8])?,
        name: String::new(),
        kind: String::new(),
        mac: None,
        mtu: 0,
        master: None,
        peer: None,
        up: flags & 1 != 0,
        running: false,
        promiscuous: flags & PROMISC != 0,
    };
    for (kind, value) in attributes(&message.payload[IFINFO..]) {
        match kind {
            libc::IFLA_IFNAME => link.name = as_text(&value),
            libc::IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value.as_slice()).ok().map(Mac),
            libc::IFLA_MTU => link.mtu = as_u32(&value)?,
            libc::IFLA_MASTER => link.master = as_u32(&value),
            libc::IFLA_LINK => link.peer = as_u32(&value),
            libc::IFLA_OPERSTATE => link.running = value.first() == Some(&OPER_UP),
            libc::IFLA_LINKINFO => {
                link.kind = crate::attr::find(&value, libc::IFLA_INFO_KIND)
                    .map(|k| as_text(&k))
                    .unwrap_or_default();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

// === impl Mac ===

impl Mac {
    /// Reads `02:42:0a:59:00:02`; a group or all-zero address is none that a link could have.
    #[must_use]
    pub fn parse(text: &str) -> Option<Mac> {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        if parts.len() != 6
            || parts
                .iter()
                .any(|p| p.len() != 2 || !p.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return None;
        }
        let mut bytes = [0; 6];
        for (byte, part) in bytes.iter_mut().zip(parts) {
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_read_and_printed() {
        assert_eq!(
            Mac::parse("02:42:0A:59:00:02")
                .map(|m| m.to_string())
                .as_deref(),
            Some("02:42:0a:59:00:02")
        );
        for bad in [
            "",
            "02:42:0a:59:00",
            "02:42:0a:59:00:2",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:42:0a:59:00:02",
        ] {
            assert_eq!(Mac::parse(bad), None, "{bad:?}");
        }
    }
}
