//! The stack of directories that makes an image out of its layers.
use std::sync::Arc;

use crate::digest::DiffId;
use crate::error::Error;
use crate::store::{Inner, Prepared};

/// The stack of an image, bottom first, and the layers that had to be made for it.
pub(crate) fn compose(
    store: &Arc<Inner>,
    layers: &[DiffId],
    prepared: &[Arc<Prepared>],
) -> Result<(Vec<DiffId>, Vec<Arc<Prepared>>), Error> {
    let mut stack = vec![];
    for layer in layers {
        let state = store.state();
        let fresh = prepared
            .iter()
            .find(|one| one.id == *layer)
            .map(|one| &one.record);
        let record = fresh
            .or_else(|| state.layers.get(layer))
            .ok_or(Error::MissingLayer(*layer))?;
        if record.opaque {
            stack.clear();
        }
        stack.push(*layer);
    }
    Ok((stack, vec![]))
}
