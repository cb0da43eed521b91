//! Netlink attributes (`struct nlattr`): a writer for messages that no crate has types for, and a reader that
//! takes what it knows and passes over the rest.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;

const NLA_F_NESTED: u16 = 1 << 15;
const ALIGN: usize = 4;

/// Builds the payload of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A payload that starts with a fixed header.
    pub(crate) fn with_header(header: &[u8]) -> Writer {
        Writer {
            bytes: header.to_vec(),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends an attribute with `value` as it is.
    ///
    /// # Panics
    /// If `value` is longer than an attribute can be (64 KiB): no caller builds such a one.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        #[allow(clippy::expect_used)] // A plugin's longest attribute is a name of 256 bytes.
        let len = u16::try_from(value.len() + ALIGN).expect("an attribute fits in 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// Appends text with the final NUL that the kernel wants.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Appends a number in network byte order, as netfilter has all its numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// As [`Writer::be32`], 64 bits.
    pub(crate) fn be64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends an attribute that holds attributes.
    pub(crate) fn nested(self, kind: u16, inner: impl FnOnce(Writer) -> Writer) -> Self {
        let inner = inner(Writer::default());
        self.bytes(kind | NLA_F_NESTED, &inner.bytes)
    }
}

/// The attributes of a payload: kind without flags, and value. A malformed rest ends the list.
pub(crate) fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    NlasIterator::new(payload)
        .map_while(std::result::Result::ok)
        .map(|nla| (nla.kind(), nla.value().to_vec()))
}

/// The first attribute of a kind.
pub(crate) fn find(payload: &[u8], wanted: u16) -> Option<Vec<u8>> {
    attributes(payload)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// Text up to its NUL.
pub(crate) fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in host byte order.
pub(crate) fn as_u32(value: &[u8]) -> Option<u32> {
    value.try_into().map(u32::from_ne_bytes).ok()
}

/// A number in network byte order.
pub(crate) fn as_be32(value: &[u8]) -> Option<u32> {
    value.try_into().map(u32::from_be_bytes).ok()
}

/// An address by its length.
pub(crate) fn as_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value)
            .ok()
            .map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(value)
            .ok()
            .map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let payload = Writer::default()
            .text(1, "ab")
            .nested(2, |w| w.be32(3, 7))
            .be64(4, 9)
            .into_bytes();
        assert_eq!(payload.len() % ALIGN, 0);
        assert_eq!(as_text(&find(&payload, 1).unwrap()), "ab");
        let inner = find(&payload, 2).unwrap();
        assert_eq!(as_be32(&find(&inner, 3).unwrap()), Some(7));
        assert_eq!(find(&payload, 5), None);
    }

    #[test]
    fn a_truncated_attribute_ends_the_list_without_a_panic() {
        let mut payload = Writer::default().text(1, "abcdef").be32(2, 1).into_bytes();
        payload.truncate(payload.len() - 3);
        assert_eq!(attributes(&payload).count(), 1);
        for cut in 0..payload.len() {
            let _count = attributes(&payload[..cut]).count();
        }
    }
}
