//! TLS for the streaming server, if it is configured.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Error;
use crate::config::StreamingConfig;

/// Reads certificate and key; `None` without them.
pub(super) fn acceptor(config: &StreamingConfig) -> Result<Option<TlsAcceptor>, Error> {
    let Some((cert, key)) = &config.tls else {
        return Ok(None);
    };
    let bad = |path: &Path, error: &dyn std::fmt::Display| {
        Error::Tls(format!("streaming: {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|error| bad(cert, &error))?;
    // No ALPN: upgrades need HTTP/1.1, which is what a client speaks that agreed on nothing.
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}
