//! Reading back what is there.
use nix::errno::Errno;

use super::batch::{NEWTABLE, Nft, nfgenmsg, set_named, subsystem};
use super::expr::{DATA_VALUE, DATA_VERDICT, LIST_ELEM, Verdict};
use super::object::{Element, Table};
use crate::attr::{as_be32, as_text, attributes, find};
use crate::error::Result;
use crate::socket::About;

const GETTABLE: u16 = 1;
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
