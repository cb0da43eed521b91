//! Layer archives: parsing them, and applying them to a directory.

mod apply;
mod dirs;
mod entry;
mod error;
mod limits;
mod stream;
mod whiteout;

pub(crate) use apply::{Applied, apply};
pub use error::ApplyError;
pub use limits::Limits;
