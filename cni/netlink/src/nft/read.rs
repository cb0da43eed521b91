//! Reading back what is there.
use nix::errno::Errno;

use super::batch::{NEWCHAIN, NEWRULE, NEWTABLE, Nft, chain_named, nfgenmsg, set_named, subsystem};
use super::expr::{DATA_VALUE, DATA_VERDICT, LIST_ELEM, Verdict};
use super::object::{BaseChain, Element, Rule, Table};
use crate::attr::{as_be32, as_text, attributes, find};
use crate::error::Result;
use crate::socket::About;

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSETELEM: u16 = 13;
const GETGEN: u16 = 16;
/// `struct nfgenmsg`.
const NFGEN: usize = 4;

impl Nft {
    /// The names of the tables of a family.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn tables(&mut self, family: super::Family) -> Result<Vec<String>> {
        let about = About::new("tables", "NFT_MSG_GETTABLE(dump)");
        let messages =
            self.socket
                .dump(subsystem(GETTABLE), &nfgenmsg(family.number(), 0), &about)?;
        let tables = messages.iter().filter(|m| m.kind == subsystem(NEWTABLE));
        Ok(tables
            .filter_map(|m| find(m.payload.get(NFGEN..)?, 1))
            .map(|name| as_text(&name))
            .collect())
    }

    /// The number of the last change of any table, for [`Nft::commit_unless_changed`].
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn generation(&mut self) -> Result<u32> {
        let about = About::new("nftables", "NFT_MSG_GETGEN");
        let answer = self
            .socket
            .get(subsystem(GETGEN), &nfgenmsg(0, 0), &about)?;
        answer
            .payload
            .get(NFGEN..)
            .and_then(|payload| as_be32(&find(payload, 1)?))
            .ok_or_else(|| {
                crate::Error::unusable(&about.object, &about.call, "a generation without number")
            })
    }

    /// The base chains of all tables of families that we know.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>> {
        let about = About::new("chains", "NFT_MSG_GETCHAIN(dump)");
        let messages = self
            .socket
            .dump(subsystem(GETCHAIN), &nfgenmsg(0, 0), &about)?;
        let chains = messages.iter().filter(|m| m.kind == subsystem(NEWCHAIN));
        Ok(chains.filter_map(|m| read_base_chain(&m.payload)).collect())
    }

    /// The rules of a chain, in their order; none if it is not there.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<Rule>> {
        let about = About::new(chain_named(table, chain), "NFT_MSG_GETRULE(dump)");
        let question = crate::attr::Writer::with_header(&nfgenmsg(table.family.number(), 0))
            .text(1, table.name)
            .text(2, chain)
            .into_bytes();
        let messages = match self.socket.dump(subsystem(GETRULE), &question, &about) {
            Err(e) if e.errno == Errno::ENOENT => return Ok(Vec::new()),
            other => other?,
        };
        let rules = messages.iter().filter(|m| m.kind == subsystem(NEWRULE));
        // A kernel that does not filter sends the rules of all chains.
        Ok(rules
            .filter_map(|m| read_rule(m.payload.get(NFGEN..)?, table.name, chain))
            .collect())
    }

    /// The elements of a set or map, without the ends of intervals; none if the set or its table is not there.
    ///
    /// # Errors
    /// The kernel refused the question.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>> {
        let about = About::new(set_named(table, set), "NFT_MSG_GETSETELEM(dump)");
        let question = crate::attr::Writer::with_header(&nfgenmsg(table.family.number(), 0))
            .text(1, table.name)
            .text(2, set)
            .into_bytes();
        let messages = match self.socket.dump(subsystem(GETSETELEM), &question, &about) {
            Err(e) if e.errno == Errno::ENOENT => return Ok(Vec::new()),
            other => other?,
        };
        let lists = messages
            .iter()
            .filter_map(|m| find(m.payload.get(NFGEN..)?, 3));
        Ok(lists
            .flat_map(|list| {
                attributes(&list)
                    .filter(|(kind, _)| *kind == LIST_ELEM)
                    .filter_map(|(_, e)| read(&e))
                    .collect::<Vec<_>>()
            })
            .collect())
    }
}

fn read_base_chain(payload: &[u8]) -> Option<BaseChain> {
    const DROP: u32 = 0;
    let family = super::Family::from_number(*payload.first()?)?;
    let attributes = payload.get(NFGEN..)?;
    let hook = find(attributes, 4)?;
    Some(BaseChain {
        family,
        table: as_text(&find(attributes, 1)?),
        name: as_text(&find(attributes, 3)?),
        hook: as_be32(&find(&hook, 1)?)?,
        drops: find(attributes, 5).and_then(|policy| as_be32(&policy)) == Some(DROP),
    })
}

fn read_rule(payload: &[u8], table: &str, chain: &str) -> Option<Rule> {
    let named = |kind, name: &str| find(payload, kind).is_some_and(|v| as_text(&v) == name);
    if !named(1, table) || !named(2, chain) {
        return None;
    }
    let handle = <[u8; 8]>::try_from(find(payload, 3)?).ok()?;
    Some(Rule {
        handle: u64::from_be_bytes(handle),
        comment: find(payload, 7).and_then(|data| read_comment(&data)),
    })
}

fn read(element: &[u8]) -> Option<Element> {
    const INTERVAL_END: u32 = 1;
    let (mut key, mut verdict, mut data, mut comment) = (None, None, None, None);
    for (kind, value) in attributes(element) {
        match kind {
            1 => key = find(&value, DATA_VALUE),
            2 => {
                verdict = find(&value, DATA_VERDICT).and_then(|v| read_verdict(&v));
                data = find(&value, DATA_VALUE);
            }
            3 if as_be32(&value)? & INTERVAL_END != 0 => return None,
            6 => comment = read_comment(&value),
            _ => {}
        }
    }
    Some(Element {
        key: key?,
        end: None,
        verdict,
        data,
        comment,
    })
}

/// The first text (kind 0) among kinds, lengths and values of one byte each.
fn read_comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (&[kind, len], rest) = data.split_first_chunk::<2>()?;
        let value = rest.get(..usize::from(len))?;
        if kind == 0 {
            return Some(as_text(value));
        }
        data = rest.get(usize::from(len)..)?;
    }
}

fn read_verdict(value: &[u8]) -> Option<Verdict> {
    let code = <[u8; 4]>::try_from(find(value, 1)?)
        .ok()
        .map(i32::from_be_bytes)?;
    Verdict::from_parts(code, find(value, 2).map(|chain| as_text(&chain)))
}
