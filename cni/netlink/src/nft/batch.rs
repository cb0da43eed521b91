//! Transactions.
use nix::errno::Errno;

use super::expr::{DATA_VALUE, Expr, LIST_ELEM};
use super::object::{Chain, Element, Set, Table};
use crate::attr::Writer;
use crate::error::{Error, Result};
use crate::socket::{
    About, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Socket, frame, outcome,
};

const SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
/// Another transaction was committed while ours was being checked, too often in a row.
const MAX_TRIES: usize = 8;

/// As long as `nft` reads comments.
const MAX_COMMENT: usize = 127;

pub(crate) const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
pub(crate) const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
pub(crate) const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

/// A connection to nftables in one network namespace.
#[derive(Debug)]
pub struct Nft {
    pub(crate) socket: Socket,
}

/// A transaction in the making.
#[derive(Debug, Default)]
pub struct Batch {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
    about: About,
}

impl Nft {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` on a kernel without nftables.
    pub fn open() -> Result<Nft> {
        Ok(Nft {
            socket: Socket::open(
                netlink_sys::protocols::NETLINK_NETFILTER,
                "NETLINK_NETFILTER",
            )?,
        })
    }

    /// Makes all of the batch, or nothing.
    ///
    /// # Errors
    /// The first step that the kernel refused, by the name of its object.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.commit_once(batch, None) {
                // The kernel repeats by itself and gives up only under a storm of transactions.
                Err(e)
                    if matches!(e.errno, Errno::EAGAIN | Errno::ERESTART | Errno::EINTR)
                        && tries < MAX_TRIES =>
                {
                    tries += 1
                }
                other => return other,
            }
        }
    }

    /// As [`Nft::commit`], if nobody has changed any table since [`Nft::generation`] said `generation`; false if
    /// somebody has, and then nothing was done.
    ///
    /// # Errors
    /// As [`Nft::commit`].
    pub fn commit_unless_changed(&mut self, batch: &Batch, generation: u32) -> Result<bool> {
        match self.commit_once(batch, Some(generation)) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.errno, Errno::ERESTART | Errno::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn commit_once(&mut self, batch: &Batch, generation: Option<u32>) -> Result<()> {
        let whole = About::new(
            "nftables",
            format!("transaction of {} steps", batch.steps.len()),
        );
        let begin = self.socket.take_seq();
        let start = Writer::with_header(&nfgenmsg(0, SUBSYS_NFTABLES));
        // NFNL_BATCH_GENID
        let start = generation.into_iter().fold(start, |w, id| w.be32(1, id));
        let mut bytes = frame(BATCH_BEGIN, NLM_F_REQUEST, begin, &start.into_bytes());
        let mut waiting = Vec::with_capacity(batch.steps.len());
        for step in &batch.steps {
            let seq = self.socket.take_seq();
            bytes.extend(frame(
                subsystem(step.kind),
                step.flags | NLM_F_REQUEST | NLM_F_ACK,
                seq,
                &step.payload,
            ));
            waiting.push((seq, &step.about));
        }
        let end = self.socket.take_seq();
        bytes.extend(frame(
            BATCH_END,
            NLM_F_REQUEST,
            end,
            &nfgenmsg(0, SUBSYS_NFTABLES),
        ));
        self.socket.send(&bytes, &whole)?;

        let mut first_error: Option<Error> = None;
        while !waiting.is_empty() {
            for message in self
                .socket
                .receive(&whole)?
                .iter()
                .filter(|m| m.kind == NLMSG_ERROR)
            {
                if message.seq == begin || message.seq == end {
                    // Refused as a whole: no rights, no memory, or the commit itself.
                    outcome(message, &whole)?;
                } else if let Some(at) = waiting.iter().position(|(seq, _)| *seq == message.seq) {
                    let (_, about) = waiting.remove(at);
                    if let (Err(error), None) = (outcome(message, about), &first_error) {
                        first_error = Some(error);
                    }
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

impl Batch {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// An empty transaction.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self, table: Table<'_>) -> &mut Batch {
        let w = start(table).text(1, table.name);
        self.step(
            NEWTABLE,
            NLM_F_CREATE,
            w,
            About::new(named(table), "NFT_MSG_NEWTABLE"),
        )
    }

    /// Deletes the table and all in it.
    pub fn delete_table(&mut self, table: Table<'_>) -> &mut Batch {
        let w = start(table).text(1, table.name);
        self.step(DELTABLE, 0, w, About::new(named(table), "NFT_MSG_DELTABLE"))
    }

    /// Makes the chain if it is not there.
    pub fn add_chain(&mut self, table: Table<'_>, chain: &Chain<'_>) -> &mut Batch {
        let mut w = start(table).text(1, table.name).text(3, chain.name);
        let mut call = "NFT_MSG_NEWCHAIN".to_owned();
        if let Some((kind, hook, priority)) = chain.base {
            w = w
                .nested(4, |h| {
                    h.be32(1, hook.number()).bytes(2, &priority.to_be_bytes())
                })
                .text(7, kind.name());
            call = format!(
                "NFT_MSG_NEWCHAIN(type {}, hook {hook:?}, priority {priority})",
                kind.name()
            );
        }
        self.step(
            NEWCHAIN,
            NLM_F_CREATE,
            w,
            About::new(chain_named(table, chain.name), call),
        )
    }

    /// Deletes a chain that nothing refers to, with its rules.
    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Batch {
        self.flush_chain(table, chain);
        let w = start(table).text(1, table.name).text(3, chain);
        self.step(
            DELCHAIN,
            0,
            w,
            About::new(chain_named(table, chain), "NFT_MSG_DELCHAIN"),
        )
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) -> &mut Batch {
        let w = start(table).text(1, table.name).text(2, chain);
        self.step(
            DELRULE,
            0,
            w,
            About::new(chain_named(table, chain), "NFT_MSG_DELRULE(all)"),
        )
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, exprs: &[Expr]) -> &mut Batch {
        let w = start(table).text(1, table.name).text(2, chain);
        let w = w.nested(4, |list| {
            exprs
                .iter()
                .fold(list, |list, expr| expr.write_with_loads(list))
        });
        let about = About::new(
            chain_named(table, chain),
            format!("NFT_MSG_NEWRULE({exprs:?})"),
        );
        self.step(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, w, about)
    }

    /// Adds a rule at the head of a chain, with words beside it.
    pub fn insert_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        exprs: &[Expr],
        comment: &str,
    ) -> &mut Batch {
        let w = start(table).text(1, table.name).text(2, chain);
        let w = w.nested(4, |list| {
            exprs
                .iter()
                .fold(list, |list, expr| expr.write_with_loads(list))
        });
        let about = About::new(
            chain_named(table, chain),
            format!("NFT_MSG_NEWRULE(first, {exprs:?})"),
        );
        self.step(
            NEWRULE,
            NLM_F_CREATE,
            w.bytes(7, &comment_data(comment)),
            about,
        )
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) -> &mut Batch {
        let w = start(table)
            .text(1, table.name)
            .text(2, chain)
            .be64(3, handle);
        let about = About::new(
            chain_named(table, chain),
            format!("NFT_MSG_DELRULE({handle})"),
        );
        self.step(DELRULE, 0, w, about)
    }

    /// Makes the set or map if it is not there.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) -> &mut Batch {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let flags =
            if set.interval { INTERVAL } else { 0 } | if set.data.is_some() { MAP } else { 0 };
        let (kind, len) = set.key.kind_and_len();
        let mut w = start(table)
            .text(1, table.name)
            .text(2, set.name)
            .be32(3, flags)
            .be32(4, kind)
            .be32(5, len);
        if let Some((kind, len)) = set.data.map(super::SetData::kind_and_len) {
            w = w.be32(6, kind);
            w = len.into_iter().fold(w, |w, len| w.be32(7, len));
        }
        // NFTA_SET_ID: the kernel wants one, for rules of the same transaction.
        let id = u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX);
        self.step(
            NEWSET,
            NLM_F_CREATE,
            w.be32(10, id),
            About::new(set_named(table, set.name), "NFT_MSG_NEWSET"),
        )
    }

    /// Adds an element; one that is there already must be the same.
    pub fn add_element(&mut self, table: Table<'_>, set: &str, element: &Element) -> &mut Batch {
        let w = elements(table, set, element);
        let about = About::new(
            set_named(table, set),
            format!("NFT_MSG_NEWSETELEM({:?} to {:?})", element.key, element.end),
        );
        self.step(NEWSETELEM, NLM_F_CREATE, w, about)
    }

    /// Adds an element whose key must not be there: `EEXIST` if it is, whatever it leads to.
    pub fn add_new_element(
        &mut self,
        table: Table<'_>,
        set: &str,
        element: &Element,
    ) -> &mut Batch {
        let w = elements(table, set, element);
        let about = About::new(
            set_named(table, set),
            format!("NFT_MSG_NEWSETELEM({:?}, new)", element.key),
        );
        self.step(NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, w, about)
    }

    /// Deletes an element.
    pub fn delete_element(&mut self, table: Table<'_>, set: &str, element: &Element) -> &mut Batch {
        let w = elements(table, set, element);
        let about = About::new(
            set_named(table, set),
            format!("NFT_MSG_DELSETELEM({:?} to {:?})", element.key, element.end),
        );
        self.step(DELSETELEM, 0, w, about)
    }

    fn step(&mut self, kind: u16, flags: u16, w: Writer, about: About) -> &mut Batch {
        self.steps.push(Step {
            kind,
            flags,
            payload: w.into_bytes(),
            about,
        });
        self
    }
}

/// An interval is two elements to the kernel: its start, and a mark where it has ended.
fn elements(table: Table<'_>, set: &str, element: &Element) -> Writer {
    const INTERVAL_END: u32 = 1;
    start(table)
        .text(1, table.name)
        .text(2, set)
        .nested(3, |list| {
            let list = list.nested(LIST_ELEM, |w| {
                let w = w.nested(1, |k| k.bytes(DATA_VALUE, &element.key));
                let w = match (&element.verdict, &element.data) {
                    (Some(verdict), _) => w.nested(2, |d| verdict.write(d)),
                    (None, Some(data)) => w.nested(2, |d| d.bytes(DATA_VALUE, data)),
                    (None, None) => w,
                };
                match &element.comment {
                    Some(comment) => w.bytes(6, &comment_data(comment)),
                    None => w,
                }
            });
            match &element.end {
                Some(end) => list.nested(LIST_ELEM, |w| {
                    w.be32(3, INTERVAL_END)
                        .nested(1, |k| k.bytes(DATA_VALUE, end))
                }),
                None => list,
            }
        })
}

/// Words beside an element, in the form of `libnftnl`: kind 0, a length, text that ends with NUL. Too long ones are
/// cut: the kernel takes 256 bytes.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut text = comment.as_bytes().to_vec();
    text.truncate(MAX_COMMENT);
    text.push(0);
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [vec![0, len], text].concat()
}

pub(crate) fn subsystem(kind: u16) -> u16 {
    subsystem_of(SUBSYS_NFTABLES, kind)
}

/// The type of a netfilter message.
pub(crate) fn subsystem_of(subsystem: u16, kind: u16) -> u16 {
    (subsystem << 8) | kind
}

/// `struct nfgenmsg`: family, version 0, and a resource id in network byte order.
pub(crate) fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn start(table: Table<'_>) -> Writer {
    Writer::with_header(&nfgenmsg(table.family.number(), 0))
}

fn named(table: Table<'_>) -> String {
    format!("table \"{} {}\"", table.family.name(), table.name)
}

pub(crate) fn chain_named(table: Table<'_>, chain: &str) -> String {
    format!("chain \"{} {} {chain}\"", table.family.name(), table.name)
}

pub(crate) fn set_named(table: Table<'_>, set: &str) -> String {
    format!("set \"{} {} {set}\"", table.family.name(), table.name)
}
