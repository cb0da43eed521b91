//! The files of an image on disk, whether they lie in a directory or in a tar file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar_core::EntryType;
use tar_core::parse::{Limits as ParseLimits, ParseEvent, Parser};

use crate::error::{Error, IoContext};
use crate::inflate::{Format, Inflated};
use crate::registry::MAX_DOCUMENT;
use crate::store::Inner;

/// How much of a tar file is looked at at a time, when only headers matter.
const CHUNK: usize = 64 * 1024;
/// How many files a tar file may have.
const MAX_FILES: usize = 100_000;
/// How many links may lead to a file: old versions of docker link equal layers.
const MAX_LINKS: usize = 8;

/// The files.
pub(super) enum Files {
    /// In a directory.
    Directory(PathBuf),
    /// In a tar file, by name.
    Tar {
        file: Arc<File>,
        entries: HashMap<String, Place>,
    },
}

/// Where a file is in a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    At { offset: u64, size: u64 },
    Link(String),
}

impl Files {
    /// Opens a directory or an archive. A compressed one is inflated into a temporary file first: its parts are needed
    /// in an order of their own.
    pub(super) fn open(store: &Inner, path: &Path) -> Result<Files, Error> {
        let metadata = std::fs::metadata(path).on("open", path)?;
        if metadata.is_dir() {
            return Ok(Files::Directory(path.to_owned()));
        }
        let mut file = File::open(path).on("open", path)?;
        if Inflated::new(&file)?.format() != Format::Plain {
            file.rewind().on("seek", path)?;
            let mut plain = store.ingest.unnamed_file()?;
            let mut inflated = Inflated::new(&file)?;
            copy(&mut inflated, &mut plain, store.options.limits.bytes).on("inflate", path)?;
            file = plain;
        }
        let entries = scan(&file, path)?;
        Ok(Files::Tar {
            file: Arc::new(file),
            entries,
        })
    }

    /// Whether there is a file of this name.
    pub(super) fn exists(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// A small file, whole.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (mut reader, size) = self.reader(name)?;
        if size > MAX_DOCUMENT as u64 {
            return Err(Error::Layout {
                item: name.to_owned(),
                reason: format!("it is larger than {} MiB", MAX_DOCUMENT >> 20),
            });
        }
        let mut bytes = vec![];
        reader.read_to_end(&mut bytes).on("read", name)?;
        Ok(bytes)
    }

    /// A file and its size.
    pub(super) fn reader(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), Error> {
        match (self, self.place(name)?) {
            (Files::Directory(_), Found::Path(path)) => {
                let file = File::open(&path).on("open", &path)?;
                let size = file.metadata().on("open", &path)?.len();
                Ok((Box::new(file), size))
            }
            (Files::Tar { file, .. }, Found::Part { offset, size }) => Ok((
                Box::new(Part {
                    file: file.clone(),
                    offset,
                    end: offset + size,
                }),
                size,
            )),
            _ => Err(missing(name)),
        }
    }

    fn place(&self, name: &str) -> Result<Found, Error> {
        let name = clean(name).ok_or_else(|| Error::Layout {
            item: name.to_owned(),
            reason: "it is not a path within the archive".into(),
        })?;
        match self {
            Files::Directory(dir) => {
                let path = dir.join(&name);
                if path.is_file() {
                    Ok(Found::Path(path))
                } else {
                    Err(missing(&name))
                }
            }
            Files::Tar { entries, .. } => {
                let mut name = name;
                for _ in 0..MAX_LINKS {
                    match entries.get(&name) {
                        Some(Place::At { offset, size }) => {
                            return Ok(Found::Part {
                                offset: *offset,
                                size: *size,
                            });
                        }
                        Some(Place::Link(target)) => name = target.clone(),
                        None => return Err(missing(&name)),
                    }
                }
                Err(Error::Layout {
                    item: name,
                    reason: "too many links lead to it".into(),
                })
            }
        }
    }
}

enum Found {
    Path(PathBuf),
    Part { offset: u64, size: u64 },
}

fn missing(name: &str) -> Error {
    Error::Layout {
        item: name.to_owned(),
        reason: "it is missing".into(),
    }
}

/// A name without `./` and empty parts; `None` where it leads outside.
fn clean(name: &str) -> Option<String> {
    let mut parts = vec![];
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        None
    } else {
        Some(parts.join("/"))
    }
}

fn copy(from: &mut impl Read, to: &mut File, most: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(most.saturating_add(1)), to)?;
    if copied > most {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it inflates to more than {most} bytes"),
        ))
    } else {
        Ok(())
    }
}

/// Where each file of a tar file is. Reads headers only.
fn scan(file: &File, path: &Path) -> Result<HashMap<String, Place>, Error> {
    let malformed = |reason: String| Error::Layout {
        item: path.display().to_string(),
        reason,
    };
    let length = file.metadata().on("open", path)?.len();
    let mut parser = Parser::new(ParseLimits::default());
    parser.set_ignore_pax_errors(true);
    let mut entries = HashMap::new();
    let mut offset = 0_u64;
    let mut buffer = vec![0; CHUNK];
    loop {
        let filled = read_at(file, &mut buffer, offset).on("read", path)?;
        match parser
            .parse(&buffer[..filled])
            .map_err(|error| malformed(format!("not a tar archive: {error}")))?
        {
            ParseEvent::NeedData { min_bytes } if filled < buffer.len() => {
                return if filled == 0 {
                    Ok(entries)
                } else {
                    Err(malformed(format!(
                        "the archive ends early, {min_bytes} bytes were expected"
                    )))
                };
            }
            ParseEvent::NeedData { min_bytes } => {
                buffer.resize(min_bytes.next_multiple_of(CHUNK), 0)
            }
            ParseEvent::GlobalExtensions { consumed, .. } => offset += consumed as u64,
            ParseEvent::End { .. } => return Ok(entries),
            ParseEvent::SparseEntry { .. } => {
                return Err(malformed("it has files with holes".into()));
            }
            ParseEvent::Entry { consumed, entry } => {
                offset += consumed as u64;
                let name = String::from_utf8_lossy(&entry.path).into_owned();
                let is_file =
                    matches!(entry.entry_type, EntryType::Regular | EntryType::Continuous);
                let size = if is_file { entry.size } else { 0 };
                let target = entry
                    .link_target
                    .as_ref()
                    .map(|target| String::from_utf8_lossy(target).into_owned());
                let end = offset.checked_add(size).filter(|end| *end <= length);
                let end =
                    end.ok_or_else(|| malformed(format!("the archive ends within {name:?}")))?;
                if let Some(name) = clean(&name)
                    && let Some(place) = place(&name, entry.entry_type, target, offset, size)
                {
                    entries.insert(name, place);
                }
                if entries.len() > MAX_FILES {
                    return Err(malformed(format!("it has more than {MAX_FILES} files")));
                }
                offset = end.next_multiple_of(512);
            }
        }
    }
}

fn place(
    name: &str,
    kind: EntryType,
    target: Option<String>,
    offset: u64,
    size: u64,
) -> Option<Place> {
    match kind {
        EntryType::Regular | EntryType::Continuous => Some(Place::At { offset, size }),
        EntryType::Link => Some(Place::Link(clean(&target?)?)),
        EntryType::Symlink => {
            let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
            Some(Place::Link(clean(&format!("{directory}/{}", target?))?))
        }
        _ => None,
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// A part of a file. Several are read at the same time.
struct Part {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_lead_out_of_the_archive() {
        for (name, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/.", Some("a/b")),
            ("a/../b", Some("b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("../a", None),
            ("a/../../b", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(clean(name).as_deref(), expected, "{name}");
        }
    }
}
