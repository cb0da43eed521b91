//! Network interfaces over rtnetlink, as far as an OCI runtime needs: find one, move it into another network
//! namespace with its addresses, bring it up. See `rtnetlink(7)`, `netlink(7)`.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::error::{Context, Error, Result};
use crate::fd::FdName;

// From linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_REPLACE: u16 = 0x500;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// What of an address's flags is its owner's wish, not its state: no detection of duplicates, no route of its own.
const IFA_F_WISHES: u32 = 0x02 | 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;

/// The length of a message's header.
const HEADER: usize = 16;
/// Larger than any part of an answer: the kernel fills at most 32 KiB.
const BUFFER: usize = 32 * 1024;

/// An interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: i32,
    /// Whether it is up.
    pub up: bool,
}

/// An address of an interface, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    /// `IFA_ADDRESS` and so on, without those that speak of the interface or of its present state.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A connection to the network namespace that the caller was in when it was opened.
#[derive(Debug)]
pub struct Routing {
    fd: OwnedFd,
    sequence: u32,
}

impl Routing {
    /// Connects.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open() -> Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .call(|| "socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE)".to_owned())?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// `ENODEV` where there is none, `ERANGE` for a name that is too long.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let text = || format!("RTM_GETLINK {{ifname={name:?}}}");
        let mut body = link_body(0, 0, 0).to_vec();
        push_attribute(&mut body, IFLA_IFNAME, &c_name(name));
        let answers = self.ask(RTM_GETLINK, 0, &body, text)?;
        answers
            .iter()
            .find_map(|body| parse_link(body))
            .ok_or_else(|| Error::new(Errno::ENODEV, text()))
    }

    /// The addresses of an interface that are permanent and of global scope.
    ///
    /// # Errors
    /// An answer that makes no sense.
    pub fn addresses(&mut self, link: Link) -> Result<Vec<Address>> {
        let text = || format!("RTM_GETADDR {{index={}}}", link.index);
        let answers = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; 8], text)?;
        Ok(answers
            .iter()
            .filter_map(|body| parse_address(body, link.index))
            .collect())
    }

    /// Moves an interface into another network namespace and names it `name` there, in one step.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken there, `EINVAL` for an interface that cannot be moved, `EPERM` without
    /// CAP_NET_ADMIN over both namespaces.
    pub fn move_link(&mut self, link: Link, name: &str, namespace: impl AsFd) -> Result<()> {
        let namespace = namespace.as_fd();
        let mut body = link_body(link.index, 0, 0).to_vec();
        push_attribute(
            &mut body,
            IFLA_NET_NS_FD,
            &namespace.as_raw_fd().to_ne_bytes(),
        );
        push_attribute(&mut body, IFLA_IFNAME, &c_name(name));
        let text = || {
            let namespace = FdName::of(namespace);
            format!(
                "RTM_NEWLINK {{index={}, net_ns_fd={namespace}, ifname={name:?}}}",
                link.index
            )
        };
        self.ask(RTM_NEWLINK, NLM_F_ACK, &body, text).map(drop)
    }

    /// Gives an interface an address, in addition to those that it has.
    ///
    /// # Errors
    /// `EPERM`, `EACCES` where IPv6 is off on this interface.
    pub fn add_address(&mut self, link: Link, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, 0, RT_SCOPE_UNIVERSE];
        body.extend(link.index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            push_attribute(&mut body, *kind, value);
        }
        let text = || format!("RTM_NEWADDR {{index={}, {address:?}}}", link.index);
        self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_REPLACE, &body, text)
            .map(drop)
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// `EPERM`, or what its driver says.
    pub fn set_up(&mut self, link: Link) -> Result<()> {
        let body = link_body(link.index, IFF_UP, IFF_UP);
        let text = || format!("RTM_NEWLINK {{index={}, flags=IFF_UP}}", link.index);
        self.ask(RTM_NEWLINK, NLM_F_ACK, &body, text).map(drop)
    }

    /// Sends one request and collects the bodies of the answers until the kernel has said all.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        text: impl Fn() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(kind, flags | NLM_F_REQUEST, self.sequence, body)
            .ok_or_else(|| Error::new(Errno::EMSGSIZE, text()))?;
        loop {
            match send(self.fd.as_raw_fd(), &message, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other.call(&text).map(drop)?,
            }
        }
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut answers = Vec::new();
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            let count = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other.call(&text)?,
            };
            for answer in Messages(&buffer[..count]) {
                match answer.kind {
                    _ if answer.sequence != self.sequence => {}
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match error_of(answer.body) {
                        Some(0) => return Ok(answers),
                        Some(code) => {
                            return Err(Error::new(
                                Errno::from_raw(code.checked_neg().unwrap_or(libc::EPROTO)),
                                text(),
                            ));
                        }
                        None => return Err(Error::new(Errno::EPROTO, text())),
                    },
                    _ => {
                        answers.push(answer.body.to_vec());
                        if single {
                            return Ok(answers);
                        }
                    }
                }
            }
        }
    }
}

/// A name with its final NUL.
fn c_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// `struct ifinfomsg`
fn link_body(index: i32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// `struct rtattr` with its value, padded.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Names and addresses are short; what is longer fails in the kernel as a cut attribute does.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// `struct nlmsghdr` with its body.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(HEADER + body.len()).ok()?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    Some(message)
}

// === Reading answers: nothing here trusts a length. ===

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of one packet; ends at the first that does not fit.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;
    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let whole = self.0.get(..length)?;
        let message = Message {
            kind: u16_at(whole, 4)?,
            sequence: u32_at(whole, 8)?,
            body: whole.get(HEADER..)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

/// The attributes of a body; ends at the first that does not fit.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)?;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn bytes_at<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.get(..N)?.try_into().ok()
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    bytes_at(data, at).map(u16::from_ne_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    bytes_at(data, at).map(u32::from_ne_bytes)
}

fn i32_at(data: &[u8], at: usize) -> Option<i32> {
    bytes_at(data, at).map(i32::from_ne_bytes)
}

fn error_of(body: &[u8]) -> Option<i32> {
    i32_at(body, 0)
}

fn parse_link(body: &[u8]) -> Option<Link> {
    Some(Link {
        index: i32_at(body, 4)?,
        up: u32_at(body, 8)? & IFF_UP != 0,
    })
}

/// The address, if it is one of interface `index` that its owner set for good and for everywhere.
fn parse_address(body: &[u8], index: i32) -> Option<Address> {
    let [family, prefix, short_flags, scope] = bytes_at(body, 0)?;
    if i32_at(body, 4)? != index || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let mut flags = u32::from(short_flags);
    let mut attributes = Vec::new();
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            IFA_FLAGS => flags = u32_at(value, 0)?,
            IFA_LABEL | IFA_CACHEINFO => {}
            _ => attributes.push((kind, value.to_vec())),
        }
    }
    if flags & IFA_F_WISHES != 0 {
        attributes.push((IFA_FLAGS, (flags & IFA_F_WISHES).to_ne_bytes().to_vec()));
    }
    (flags & IFA_F_PERMANENT != 0).then_some(Address {
        family,
        prefix,
        attributes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_has_no_address_to_take_along() {
        let mut routing = Routing::open().unwrap();
        let lo = routing.link("lo").unwrap();
        assert_eq!(lo.index, 1);
        // 127.0.0.1 is of the host's scope, ::1 too.
        assert_eq!(routing.addresses(lo).unwrap(), []);
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Routing::open().unwrap().link("nothere0").unwrap_err();
        assert_eq!(error.errno, Errno::ENODEV);
        assert_eq!(error.call, "RTM_GETLINK {ifname=\"nothere0\"}");
        let long = Routing::open().unwrap().link(&"x".repeat(99));
        assert!(long.is_err());
    }

    #[test]
    fn an_address_keeps_what_is_its_owners_and_leaves_its_state() {
        let mut body = vec![2, 24, 0x80, 0];
        body.extend(7_i32.to_ne_bytes());
        push_attribute(&mut body, 1, &[10, 0, 0, 1]);
        push_attribute(&mut body, IFA_LABEL, b"eth0\0");
        push_attribute(&mut body, IFA_FLAGS, &0x280_u32.to_ne_bytes());
        let address = parse_address(&body, 7).unwrap();
        let flags = 0x200_u32.to_ne_bytes().to_vec();
        assert_eq!(
            address.attributes,
            [(1, vec![10, 0, 0, 1]), (IFA_FLAGS, flags)]
        );
        assert_eq!(parse_address(&body, 8), None, "of another interface");
        body[3] = 253;
        assert_eq!(parse_address(&body, 7), None, "of the link only");
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let written = message(RTM_NEWLINK, 0, 5, &link_body(3, IFF_UP, 0)).unwrap();
        let twice = [written.as_slice(), &written].concat();
        let read: Vec<_> = Messages(&twice)
            .map(|one| (one.kind, one.sequence, parse_link(one.body)))
            .collect();
        let link = Some(Link { index: 3, up: true });
        assert_eq!(read, [(RTM_NEWLINK, 5, link); 2]);
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        for first in 0..=255_u8 {
            for length in 0..40 {
                let mut data = vec![first; length];
                data.iter_mut()
                    .skip(1)
                    .step_by(2)
                    .for_each(|byte| *byte = 0);
                let seen = Messages(&data).take(100).count() + Attributes(&data).take(100).count();
                assert!(seen <= 40, "{first} {length}");
                assert!(parse_address(&data, 0).is_none_or(|one| one.attributes.len() < 40));
            }
        }
    }
}
