//! Layer archives: parsing them, and applying them to a directory.

mod apply;
mod content;
mod dirs;
mod entry;
mod error;
mod limits;
mod rules;
mod stream;
mod whiteout;

pub(crate) use apply::{Applied, apply};
pub use error::ApplyError;
pub use limits::Limits;
