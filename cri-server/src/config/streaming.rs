//! The table `[streaming]`: where exec, attach and port-forward are served.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Where and how streams are served, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamingConfig {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
    /// Certificate chain and private key, PEM files: with them everything goes over TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// How long a connection may be silent, in both directions.
    pub idle_timeout: Duration,
    /// How long a client may take to open the streams that belong together.
    pub stream_creation_timeout: Duration,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            tls: None,
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            stream_creation_timeout: Duration::from_secs(30),
        }
    }
}
