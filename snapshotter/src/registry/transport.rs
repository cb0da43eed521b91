//! Connections: TCP, TLS, and which certificates are good.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::RegistryError;
use super::hosts::{Host, TlsOptions};
use super::proxy::Dialer;

/// A pool of connections with one way to trust.
pub(super) type Transport = Client<HttpsConnector<Dialer>, Full<Bytes>>;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// A new pool for a host's settings.
pub(super) fn transport(
    tls: &TlsOptions,
    dial_timeout: Duration,
) -> Result<Transport, RegistryError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(dial_timeout));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Dialer(tcp));
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(8);
    Ok(builder.build(https))
}

impl Host {
    /// Whether its pool can be shared with all other hosts that have no settings of their own.
    pub(super) fn is_plain(&self) -> bool {
        self.tls == TlsOptions::default() && self.dial_timeout == Duration::from_secs(30)
    }
}

fn tls_config(options: &TlsOptions) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| config_error(Path::new("TLS"), error.to_string()))?;
    let builder = if options.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(options)?)
    };
    match options.client.first() {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| config_error(key, error.to_string()))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| config_error(certificate, error.to_string()))
        }
    }
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, RegistryError> {
    let mut roots = system_roots().clone();
    for path in &options.ca {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| config_error(path, error.to_string()))?;
        }
    }
    Ok(roots)
}

/// The system's authorities, read once. A machine without any can still use registries with a `ca` of their own.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a system certificate is left out");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => Err(config_error(path, "holds no certificate".into())),
        Ok(all) => Ok(all),
        Err(error) => Err(config_error(path, error.to_string())),
    }
}

fn config_error(path: &Path, reason: String) -> RegistryError {
    RegistryError::Config {
        path: path.display().to_string(),
        reason,
    }
}

/// `skip_verify`: any certificate will do, as the administrator wrote.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
