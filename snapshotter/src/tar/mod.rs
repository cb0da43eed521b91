//! Layer archives: parsing them, and applying them to a directory.
mod error;
mod limits;

pub use error::ApplyError;
pub use limits::Limits;
