//! The content of files, with and without holes.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use sys::error::Error;

use super::apply::write_error;
use super::entry::{Entry, Sparse};
use super::error::ApplyError;
use super::stream::Stream;

/// Copies `length` bytes of the entry's content to `offset` of the file.
pub(super) fn write_piece(
    entry: &Entry,
    file: &File,
    stream: &mut Stream<impl Read>,
    mut offset: u64,
    mut length: u64,
) -> Result<(), ApplyError> {
    while length > 0 {
        let data = stream.content(length)?;
        file.write_all_at(data, offset).map_err(|error| {
            let call = format!(
                "pwrite64({}, {} bytes, {offset})",
                sys::fd::FdName::of(file),
                data.len()
            );
            write_error(entry, Error::from_io(&error, call))
        })?;
        offset += data.len() as u64;
        length -= data.len() as u64;
    }
    Ok(())
}

pub(super) fn write_sparse(
    entry: &Entry,
    file: &File,
    stream: &mut Stream<impl Read>,
    sparse: &Sparse,
) -> Result<(), ApplyError> {
    file.set_len(sparse.length).map_err(|error| {
        let call = format!(
            "ftruncate({}, {})",
            sys::fd::FdName::of(file),
            sparse.length
        );
        write_error(entry, Error::from_io(&error, call))
    })?;
    sparse
        .pieces
        .iter()
        .try_for_each(|(offset, length)| write_piece(entry, file, stream, *offset, *length))
}
