//! nftables: objects, expressions and transactions, over the netfilter netlink socket.
//!
//! Everything that changes goes through a [`Batch`]: one transaction, of which the kernel makes all or nothing. Each
//! message in it asks for its own answer, so an error names the object that caused it. The encoding is our own:
//! most expressions that networks need (masquerade, nat, ct, counter) have no type in any crate, and one writer
//! of attributes serves them all. Layouts are from `linux/netfilter/nf_tables.h`; see also `nft(8)`.

mod batch;
mod expr;
mod object;
mod read;

pub use batch::{Batch, Nft};
pub(crate) use batch::{nfgenmsg, subsystem_of};
pub use expr::{CtKey, Expr, KeyPart, MetaKey, Verdict};
pub use object::{
    BaseChain, Chain, ChainKind, Element, Hook, Rule, Set, SetData, SetKey, Table, part,
};

/// The packets that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames on bridges.
    Bridge,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
            Family::Bridge => 7,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Family> {
        [Family::Inet, Family::Ip, Family::Ip6, Family::Bridge]
            .into_iter()
            .find(|family| family.number() == number)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Bridge => "bridge",
        }
    }
}
