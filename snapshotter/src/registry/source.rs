//! The servers of one image, asked in turn until one has what is wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::Mutex;

use super::error::{RegistryError, causes};
use super::hosts::{self, Host};
use super::request::{Ask, Server, protocol};
use super::retry::RetryPolicy;
use super::token::{Authorization, TokenKey};
use super::transport::{Transport, transport};
use crate::auth::{Auth, Credentials};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::ACCEPT;
use crate::reference::Reference;
use crate::store::Options;

/// The longest manifest, index or config.
pub(crate) const MAX_DOCUMENT: usize = 4 << 20;

/// Connections and tokens, shared by all pulls.
pub(crate) struct Client {
    transport: Transport,
    tokens: Arc<Mutex<HashMap<TokenKey, Authorization>>>,
}

/// Where one image comes from, with whose credentials.
pub(crate) struct Source {
    pub(super) reference: Reference,
    servers: Vec<Server>,
    credentials: Option<Credentials>,
    /// The registry that the credentials name.
    credentials_for: Option<String>,
    pub(super) fingerprint: u64,
    pub(super) tokens: Arc<Mutex<HashMap<TokenKey, Authorization>>>,
    pub(super) retry: RetryPolicy,
    pub(super) progress_timeout: Duration,
}

/// A document as a server gave it.
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
    /// Who gave it.
    pub(crate) host: String,
}

impl Client {
    /// Connections for the hosts that need no settings.
    pub(crate) fn new(_options: &Options) -> Result<Client, Error> {
        let transport = transport(&hosts::TlsOptions::default(), Duration::from_secs(30))?;
        Ok(Client {
            transport,
            tokens: Arc::default(),
        })
    }

    /// The servers for an image.
    ///
    /// # Errors
    /// A broken `hosts.toml` or broken credentials.
    pub(crate) fn source(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        options: &Options,
    ) -> Result<Source, Error> {
        let mut servers = vec![];
        for host in hosts::hosts(reference.registry(), &options.hosts_dirs)? {
            let transport = if host.is_plain() {
                self.transport.clone()
            } else {
                transport(&host.tls, host.dial_timeout)?
            };
            servers.push(Server { host, transport });
        }
        Ok(Source {
            reference: reference.clone(),
            servers,
            credentials: auth.map(Auth::credentials).transpose()?.flatten(),
            credentials_for: auth
                .map(|auth| server_name(&auth.server_address))
                .filter(|name| !name.is_empty()),
            fingerprint: Auth::fingerprint(auth),
            tokens: self.tokens.clone(),
            retry: options.retry.clone(),
            progress_timeout: options.progress_timeout,
        })
    }
}

/// The host in a server address, which may be a URL: docker writes `https://index.docker.io/v1/`.
fn server_name(address: &str) -> String {
    let without_scheme = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = without_scheme.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

impl Source {
    /// The credentials that a server may see: those that name it, or that name nobody and it is the registry itself.
    /// A mirror gets none that were meant for the registry; `header` in hosts.toml is for mirrors.
    pub(super) fn credentials(&self, server: &Server) -> Option<&Credentials> {
        let meant = match &self.credentials_for {
            None => server.host.upstream,
            Some(name) => {
                server_name(&server.host.authority) == *name
                    || (server.host.upstream && self.reference.registry() == name)
            }
        };
        self.credentials.as_ref().filter(|_| meant)
    }

    pub(super) fn has_credentials(&self, server: &Server) -> bool {
        self.credentials(server).is_some()
            || server
                .host
                .headers
                .iter()
                .any(|(name, _)| *name == hyper::header::AUTHORIZATION)
    }

    /// The manifest or index that the image's name means.
    pub(crate) async fn resolve(&self) -> Result<Document, RegistryError> {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => self.manifest(digest).await,
            (None, tag) => {
                self.document("manifests", tag.unwrap_or("latest"), |host| {
                    host.resolve && host.pull
                })
                .await
            }
        }
    }

    /// The manifest or index with this digest. The caller verifies it.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Document, RegistryError> {
        self.document("manifests", &digest.to_string(), |host| host.pull)
            .await
    }

    /// The small blob with this digest. The caller verifies it.
    pub(crate) async fn config(&self, digest: Digest) -> Result<Document, RegistryError> {
        self.document("blobs", &digest.to_string(), |host| host.pull)
            .await
    }

    /// Servers that may be asked, the registry itself last.
    pub(super) fn servers(&self, may: impl Fn(&Host) -> bool) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| may(&server.host))
    }

    /// What is asked for, in words.
    pub(super) fn target(&self, what: &str, name: &str) -> String {
        let separator = if name.contains(':') { '@' } else { ':' };
        let what = what.trim_end_matches('s');
        format!("{what} {}{separator}{name}", self.reference.repository())
    }

    async fn document(
        &self,
        what: &str,
        name: &str,
        may: impl Fn(&Host) -> bool,
    ) -> Result<Document, RegistryError> {
        let ask = Ask {
            path: format!("/{}/{what}/{name}", self.reference.repository()),
            accept: (what == "manifests").then(|| HeaderValue::from_static(ACCEPT)),
            from: 0,
            target: self.target(what, name),
        };
        let mut last = None;
        for server in self.servers(may) {
            let result = match self.get(server, &ask).await {
                Ok(response) => self.read(server, &ask, response).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(document) => return Ok(document),
                Err(error) => {
                    if !server.host.upstream {
                        tracing::warn!(%error, "a mirror did not have it");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody(&ask.target)))
    }

    /// The error where `hosts.toml` leaves nobody to ask.
    pub(super) fn nobody(&self, target: &str) -> RegistryError {
        let reason = format!(
            "no host for {} has the capability for {target}",
            self.reference.registry()
        );
        RegistryError::Config {
            path: "hosts.toml".into(),
            reason,
        }
    }

    /// Reads a whole, small answer.
    async fn read(
        &self,
        server: &Server,
        ask: &Ask,
        response: Response<Incoming>,
    ) -> Result<Document, RegistryError> {
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let (host, target) = (server.host.authority.clone(), ask.target.clone());
        let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect();
        match tokio::time::timeout(self.progress_timeout, body).await {
            Ok(Ok(body)) => Ok(Document {
                bytes: body.to_bytes().to_vec(),
                content_type,
                host,
            }),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(protocol(
                server,
                ask,
                format!("it is larger than {} MiB", MAX_DOCUMENT >> 20),
            )),
            Ok(Err(error)) => Err(RegistryError::Connection {
                host,
                target,
                cause: causes(error.as_ref()),
            }),
            Err(_) => Err(RegistryError::Stalled {
                host,
                target,
                seconds: self.progress_timeout.as_secs(),
            }),
        }
    }
}
