//! Expressions: what a rule looks at and what it does.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::attr::Writer;

/// The register that verdicts go to.
const VERDICT_REGISTER: u32 = 0;
/// One general register is enough for rules that compare one thing at a time.
const REGISTER: u32 = 1;
/// `NFTA_DATA_VALUE`.
pub(crate) const DATA_VALUE: u16 = 1;
/// `NFTA_DATA_VERDICT`.
pub(crate) const DATA_VERDICT: u16 = 2;
/// `NFTA_LIST_ELEM`.
pub(crate) const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const NETWORK_HEADER: u32 = 1;

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is gone.
    Drop,
    /// The calling chain goes on.
    Return,
    /// Another chain, then on here.
    Jump(String),
    /// Another chain, then on in the caller.
    Goto(String),
}

/// Something about a packet that is not in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The mark.
    Mark,
    /// The name of the interface it came in by.
    InputName,
    /// The name of the interface it leaves by.
    OutputName,
    /// IPv4 or IPv6, in tables of family inet.
    Protocol,
    /// TCP, UDP, ...
    Transport,
}

/// Something about a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// New, established, related, ... as bits.
    State,
    /// Whether its addresses were translated, ... as bits.
    Status,
    /// The connection's mark.
    Mark,
}

/// One step of a rule. Loading steps fill a register, which the comparing step after it looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads something about the packet.
    Meta(MetaKey),
    /// Loads something about its connection.
    Ct(CtKey),
    /// Loads bytes of the network header.
    NetworkHeader {
        /// The first byte.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// Masks what was loaded.
    Mask(Vec<u8>),
    /// Goes on if what was loaded equals this.
    Equal(Vec<u8>),
    /// Goes on if what was loaded differs from this.
    NotEqual(Vec<u8>),
    /// Goes on if what was loaded is in the set.
    InSet(String),
    /// Looks up what was loaded in a verdict map and does what it says.
    VerdictMap(String),
    /// Counts.
    Counter,
    /// Replaces the source address by that of the interface that the packet leaves by.
    Masquerade,
    /// Replaces the destination.
    DestinationNat {
        /// The new address.
        address: Ipv4Addr,
        /// The new port.
        port: Option<u16>,
    },
    /// A verdict.
    Verdict(Verdict),
}

impl Expr {
    /// Goes on with IPv4 packets only, as rules on addresses need in a table of family inet.
    #[must_use]
    pub fn is_ipv4() -> Vec<Expr> {
        vec![Expr::Meta(MetaKey::Protocol), Expr::Equal(vec![2])]
    }

    /// Loads the source address of an IPv4 packet.
    #[must_use]
    pub fn ipv4_source() -> Expr {
        Expr::NetworkHeader { offset: 12, len: 4 }
    }

    /// Goes on if an IPv4 packet goes to that network.
    #[must_use]
    pub fn ipv4_goes_to(net: Ipv4Net) -> Vec<Expr> {
        let mut exprs = vec![Expr::NetworkHeader { offset: 16, len: 4 }];
        if net.prefix_len() < 32 {
            exprs.push(Expr::Mask(net.netmask().octets().to_vec()));
        }
        exprs.push(Expr::Equal(net.network().octets().to_vec()));
        exprs
    }

    pub(crate) fn write(&self, list: Writer) -> Writer {
        list.nested(LIST_ELEM, |w| {
            w.text(EXPR_NAME, self.name())
                .nested(EXPR_DATA, |data| self.data(data))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Expr::Meta(_) => "meta",
            Expr::Ct(_) => "ct",
            Expr::NetworkHeader { .. } => "payload",
            Expr::Mask(_) => "bitwise",
            Expr::Equal(_) | Expr::NotEqual(_) => "cmp",
            Expr::InSet(_) | Expr::VerdictMap(_) => "lookup",
            Expr::Counter => "counter",
            Expr::Masquerade => "masq",
            Expr::DestinationNat { .. } => "nat",
            Expr::Verdict(_) => "immediate",
        }
    }

    fn data(&self, w: Writer) -> Writer {
        match self {
            // NFTA_META_DREG, NFTA_META_KEY
            Expr::Meta(key) => w.be32(1, REGISTER).be32(2, key.number()),
            // NFTA_CT_DREG, NFTA_CT_KEY
            Expr::Ct(key) => w.be32(1, REGISTER).be32(2, key.number()),
            // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
            Expr::NetworkHeader { offset, len } => w
                .be32(1, REGISTER)
                .be32(2, NETWORK_HEADER)
                .be32(3, *offset)
                .be32(4, *len),
            // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
            Expr::Mask(mask) => w
                .be32(1, REGISTER)
                .be32(2, REGISTER)
                .be32(3, u32::try_from(mask.len()).unwrap_or(0))
                .nested(4, |d| d.bytes(DATA_VALUE, mask))
                .nested(5, |d| d.bytes(DATA_VALUE, &vec![0; mask.len()])),
            // NFTA_CMP_SREG, _OP, _DATA
            Expr::Equal(value) => w
                .be32(1, REGISTER)
                .be32(2, 0)
                .nested(3, |d| d.bytes(DATA_VALUE, value)),
            Expr::NotEqual(value) => w
                .be32(1, REGISTER)
                .be32(2, 1)
                .nested(3, |d| d.bytes(DATA_VALUE, value)),
            // NFTA_LOOKUP_SET, _SREG, _DREG
            Expr::InSet(set) => w.text(1, set).be32(2, REGISTER),
            Expr::VerdictMap(map) => w.text(1, map).be32(2, REGISTER).be32(3, VERDICT_REGISTER),
            // NFTA_COUNTER_BYTES, _PACKETS
            Expr::Counter => w.be64(1, 0).be64(2, 0),
            Expr::Masquerade => w,
            Expr::DestinationNat { .. } | Expr::Verdict(_) => self.translated(w),
        }
    }

    fn translated(&self, w: Writer) -> Writer {
        match self {
            // NFTA_IMMEDIATE_DREG, _DATA
            Expr::Verdict(verdict) => w.be32(1, VERDICT_REGISTER).nested(2, |d| verdict.write(d)),
            // NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN; the registers are loaded by `steps`.
            Expr::DestinationNat { port, .. } => {
                let w = w.be32(1, 1).be32(2, 2).be32(3, REGISTER);
                if port.is_some() {
                    w.be32(5, REGISTER + 1)
                } else {
                    w
                }
            }
            _ => w,
        }
    }

    /// The immediate loads that an expression needs before it.
    pub(crate) fn write_with_loads(&self, mut list: Writer) -> Writer {
        if let Expr::DestinationNat { address, port } = self {
            list = load(list, REGISTER, &address.octets());
            if let Some(port) = port {
                list = load(list, REGISTER + 1, &port.to_be_bytes());
            }
        }
        self.write(list)
    }
}

fn load(list: Writer, register: u32, value: &[u8]) -> Writer {
    list.nested(LIST_ELEM, |w| {
        w.text(EXPR_NAME, "immediate").nested(EXPR_DATA, |d| {
            d.be32(1, register)
                .nested(2, |v| v.bytes(DATA_VALUE, value))
        })
    })
}

impl Verdict {
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;

    fn code(&self) -> i32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => Verdict::JUMP,
            Verdict::Goto(_) => Verdict::GOTO,
            Verdict::Return => Verdict::RETURN,
        }
    }

    pub(crate) fn from_parts(code: i32, chain: Option<String>) -> Option<Verdict> {
        match (code, chain) {
            (0, _) => Some(Verdict::Drop),
            (1, _) => Some(Verdict::Accept),
            (Verdict::RETURN, _) => Some(Verdict::Return),
            (Verdict::JUMP, Some(chain)) => Some(Verdict::Jump(chain)),
            (Verdict::GOTO, Some(chain)) => Some(Verdict::Goto(chain)),
            _ => None,
        }
    }

    /// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
    pub(crate) fn write(&self, data: Writer) -> Writer {
        data.nested(DATA_VERDICT, |w| {
            let w = w.bytes(1, &self.code().to_be_bytes());
            match self {
                Verdict::Jump(chain) | Verdict::Goto(chain) => w.text(2, chain),
                _ => w,
            }
        })
    }
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            MetaKey::Mark => 3,
            MetaKey::InputName => 6,
            MetaKey::OutputName => 7,
            MetaKey::Protocol => 15,
            MetaKey::Transport => 16,
        }
    }
}

impl CtKey {
    fn number(self) -> u32 {
        match self {
            CtKey::State => 0,
            CtKey::Status => 2,
            CtKey::Mark => 3,
        }
    }
}
