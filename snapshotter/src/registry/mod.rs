//! The registry client.
mod error;
mod retry;

pub use error::RegistryError;
pub use retry::RetryPolicy;
