//! Expressions: what a rule looks at and what it does.
use std::net::IpAddr;

use ipnet::IpNet;

use crate::attr::Writer;

/// The register that verdicts go to.
const VERDICT_REGISTER: u32 = 0;
/// Where everything that is looked at is loaded. Rules compare one thing at a time, and a key of several parts lies
/// in the words from here on.
const REGISTER: u32 = 1;
/// The same register as words of four bytes: `NFT_REG32_00` is the first word of `NFT_REG_1`.
const FIRST_WORD: u32 = 8;
/// `NFTA_DATA_VALUE`.
pub(crate) const DATA_VALUE: u16 = 1;
/// `NFTA_DATA_VERDICT`.
pub(crate) const DATA_VERDICT: u16 = 2;
/// `NFTA_LIST_ELEM`.
pub(crate) const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

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

/// One part of a key of several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart {
    /// The destination of an IPv4 packet.
    DestinationIpv4,
    /// The destination of an IPv6 packet.
    DestinationIpv6,
    /// TCP, UDP, SCTP.
    Transport,
    /// The destination port.
    DestinationPort,
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
    /// Loads a key of several parts.
    Key(Vec<KeyPart>),
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
    /// Goes on if the packet's destination is an address of this host.
    ToThisHost,
    /// Counts.
    Counter,
    /// Replaces the source address by that of the interface that the packet leaves by.
    Masquerade,
    /// Replaces the destination.
    DestinationNat {
        /// The new address.
        address: IpAddr,
        /// The new port.
        port: Option<u16>,
    },
    /// Looks up what was loaded in a map and replaces the destination by the address and port found there.
    DestinationNatByMap {
        /// The map's name.
        map: String,
        /// Whether its addresses are IPv6.
        ipv6: bool,
    },
    /// A verdict.
    Verdict(Verdict),
}

impl Expr {
    /// Goes on with packets of the address's family only, as rules on addresses need in a table of family inet.
    #[must_use]
    pub fn is_family_of(address: IpAddr) -> Vec<Expr> {
        let family = if address.is_ipv4() { 2 } else { 10 };
        vec![Expr::Meta(MetaKey::Protocol), Expr::Equal(vec![family])]
    }

    /// Loads the source address of a packet of that family.
    #[must_use]
    pub fn source(family: IpAddr) -> Expr {
        match family {
            IpAddr::V4(_) => Expr::NetworkHeader { offset: 12, len: 4 },
            IpAddr::V6(_) => Expr::NetworkHeader { offset: 8, len: 16 },
        }
    }

    /// Loads the destination address of a packet of that family.
    #[must_use]
    pub fn destination(family: IpAddr) -> Expr {
        match family {
            IpAddr::V4(_) => Expr::NetworkHeader { offset: 16, len: 4 },
            IpAddr::V6(_) => Expr::NetworkHeader {
                offset: 24,
                len: 16,
            },
        }
    }

    /// Goes on if a packet of the network's family goes to it.
    #[must_use]
    pub fn goes_to(net: IpNet) -> Vec<Expr> {
        let mut exprs = vec![Expr::destination(net.addr())];
        exprs.extend(is_in(net));
        exprs
    }

    /// Goes on if a packet of the network's family comes from it.
    #[must_use]
    pub fn comes_from(net: IpNet) -> Vec<Expr> {
        let mut exprs = vec![Expr::source(net.addr())];
        exprs.extend(is_in(net));
        exprs
    }

    /// Goes on if it came in by another interface.
    #[must_use]
    pub fn not_by(interface: &str) -> Vec<Expr> {
        let mut name = interface.as_bytes().to_vec();
        name.resize(16, 0);
        vec![Expr::Meta(MetaKey::InputName), Expr::NotEqual(name)]
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
            // Written in parts.
            Expr::Key(_) | Expr::ToThisHost => "",
            Expr::Mask(_) => "bitwise",
            Expr::Equal(_) | Expr::NotEqual(_) => "cmp",
            Expr::InSet(_) | Expr::VerdictMap(_) => "lookup",
            Expr::Counter => "counter",
            Expr::Masquerade => "masq",
            Expr::DestinationNat { .. } | Expr::DestinationNatByMap { .. } => "nat",
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
            Expr::DestinationNat { .. }
            | Expr::DestinationNatByMap { .. }
            | Expr::Verdict(_)
            | Expr::Key(_)
            | Expr::ToThisHost => self.translated(w),
        }
    }

    fn translated(&self, w: Writer) -> Writer {
        match self {
            // NFTA_IMMEDIATE_DREG, _DATA
            Expr::Verdict(verdict) => w.be32(1, VERDICT_REGISTER).nested(2, |d| verdict.write(d)),
            // The registers are loaded before.
            Expr::DestinationNat { address, port } => nat(w, address.is_ipv6(), port.is_some()),
            Expr::DestinationNatByMap { ipv6, .. } => nat(w, *ipv6, true),
            _ => w,
        }
    }

    /// The expression, with what it needs before it.
    pub(crate) fn write_with_loads(&self, mut list: Writer) -> Writer {
        match self {
            Expr::Key(parts) => return load_key(list, parts),
            // NFTA_FIB_DREG, _RESULT (type), _FLAGS (daddr); RTN_LOCAL in host order.
            Expr::ToThisHost => {
                list = list.nested(LIST_ELEM, |w| {
                    w.text(EXPR_NAME, "fib")
                        .nested(EXPR_DATA, |d| d.be32(1, REGISTER).be32(2, 3).be32(3, 2))
                });
                return Expr::Equal(2u32.to_ne_bytes().to_vec()).write(list);
            }
            Expr::DestinationNat { address, port } => {
                let octets = match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                list = load(list, REGISTER, &octets);
                if let Some(port) = port {
                    list = load(list, port_register(address.is_ipv6()), &port.to_be_bytes());
                }
            }
            // NFTA_LOOKUP_SET, _SREG, _DREG
            Expr::DestinationNatByMap { map, .. } => {
                list = list.nested(LIST_ELEM, |w| {
                    w.text(EXPR_NAME, "lookup").nested(EXPR_DATA, |d| {
                        d.text(1, map).be32(2, REGISTER).be32(3, REGISTER)
                    })
                });
            }
            _ => {}
        }
        self.write(list)
    }
}

/// Goes on if the address that was loaded is of the network.
fn is_in(net: IpNet) -> Vec<Expr> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut exprs = Vec::new();
    if net.prefix_len() < net.max_prefix_len() {
        exprs.push(Expr::Mask(octets(net.netmask())));
    }
    exprs.push(Expr::Equal(octets(net.network())));
    exprs
}

/// `NFTA_NAT_TYPE` (destination), `_FAMILY`, `_REG_ADDR_MIN`, `_REG_PROTO_MIN`.
fn nat(w: Writer, ipv6: bool, port: bool) -> Writer {
    let w = w
        .be32(1, 1)
        .be32(2, if ipv6 { 10 } else { 2 })
        .be32(3, REGISTER);
    if port {
        w.be32(5, port_register(ipv6))
    } else {
        w
    }
}

/// The word after an address.
fn port_register(ipv6: bool) -> u32 {
    FIRST_WORD + if ipv6 { 4 } else { 1 }
}

/// Each part takes whole words, as the kernel compares keys of several parts.
fn load_key(mut list: Writer, parts: &[KeyPart]) -> Writer {
    let mut register = FIRST_WORD;
    for part in parts {
        // NFTA_META_DREG, _KEY; NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
        let payload = |w: Writer, base, offset, len| {
            w.text(EXPR_NAME, "payload").nested(EXPR_DATA, |d| {
                d.be32(1, register)
                    .be32(2, base)
                    .be32(3, offset)
                    .be32(4, len)
            })
        };
        list = list.nested(LIST_ELEM, |w| match part {
            KeyPart::DestinationIpv4 => payload(w, NETWORK_HEADER, 16, 4),
            KeyPart::DestinationIpv6 => payload(w, NETWORK_HEADER, 24, 16),
            KeyPart::DestinationPort => payload(w, TRANSPORT_HEADER, 2, 2),
            KeyPart::Transport => w.text(EXPR_NAME, "meta").nested(EXPR_DATA, |d| {
                d.be32(1, register).be32(2, MetaKey::Transport.number())
            }),
        });
        register += if *part == KeyPart::DestinationIpv6 {
            4
        } else {
            1
        };
    }
    list
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
