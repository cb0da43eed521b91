//! Answers to challenges: passwords, tokens from token services, and how long those are good for.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>, <https://distribution.github.io/distribution/spec/auth/oauth/>

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use serde::Deserialize;

use super::challenge::Challenge;
use super::error::{RegistryError, causes};
use super::request::{Ask, Server, peer};
use super::source::Source;
use crate::auth::Credentials;

/// The longest answer of a token service.
const MAX_ANSWER: usize = 1 << 20;
/// How long a token is good for where its service does not say.
const DEFAULT_LIFE: u64 = 60;

/// Whom a token was given to and for what: the registry, the repository, the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    authority: String,
    repository: String,
    fingerprint: u64,
}

/// What is sent with requests.
#[derive(Clone)]
pub(super) struct Authorization {
    header: HeaderValue,
    until: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Source {
    fn key(&self, server: &Server) -> TokenKey {
        let fingerprint = if self.credentials(server).is_some() {
            self.fingerprint
        } else {
            0
        };
        TokenKey {
            authority: server.host.authority.clone(),
            repository: self.reference.repository().to_owned(),
            fingerprint,
        }
    }

    /// What an earlier challenge of this host was answered with, if that is still good.
    pub(super) async fn authorization(&self, server: &Server) -> Option<HeaderValue> {
        let mut tokens = self.tokens.lock().await;
        let key = self.key(server);
        let found = tokens.get(&key)?;
        if found.until.is_some_and(|until| until <= Instant::now()) {
            tokens.remove(&key);
            return None;
        }
        Some(found.header.clone())
    }

    /// Answers a challenge, and keeps the answer for later requests.
    ///
    /// `sent` is what the challenged request carried: where another request has got something newer meanwhile, that is
    /// used. Holding the map over the request to the token service makes a dozen layers ask for one token and not twelve.
    pub(super) async fn authorize(
        &self,
        server: &Server,
        ask: &Ask,
        challenge: &Challenge,
        sent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut tokens = self.tokens.lock().await;
        let key = self.key(server);
        if let Some(found) = tokens.get(&key)
            && Some(&found.header) != sent
            && found.until.is_none_or(|until| until > Instant::now())
        {
            return Ok(found.header.clone());
        }
        tokens.remove(&key);
        let mut fresh = match challenge {
            Challenge::Basic => self.password(server, ask, sent)?,
            Challenge::Bearer {
                realm,
                service,
                scope,
                ..
            } => {
                self.token(server, ask, realm, service.as_deref(), scope.as_deref())
                    .await?
            }
        };
        fresh.header.set_sensitive(true);
        tokens.retain(|_, one| one.until.is_none_or(|until| until > Instant::now()));
        tokens.insert(key, fresh.clone());
        Ok(fresh.header)
    }

    /// `Basic`: the password itself.
    fn password(
        &self,
        server: &Server,
        ask: &Ask,
        sent: Option<&HeaderValue>,
    ) -> Result<Authorization, RegistryError> {
        let unauthorized = |reason: &str| unauthorized(server, ask, reason.to_owned());
        let header = match self.credentials(server) {
            Some(Credentials::Basic { username, password }) => basic(username, password),
            Some(_) => {
                return Err(unauthorized(
                    "it wants a name and a password, and a token was given",
                ));
            }
            None => {
                return Err(unauthorized(
                    "it wants a name and a password, and none were given",
                ));
            }
        };
        if sent == Some(&header) {
            return Err(unauthorized("the name or the password is wrong"));
        }
        Ok(Authorization {
            header,
            until: None,
        })
    }

    /// `Bearer`: a token from the service that the registry names.
    async fn token(
        &self,
        server: &Server,
        ask: &Ask,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Authorization, RegistryError> {
        let credentials = self.credentials(server);
        if let Some(Credentials::Registry(token)) = credentials {
            let header = bearer(token).ok_or_else(|| {
                unauthorized(
                    server,
                    ask,
                    "the registry token contains control characters".into(),
                )
            })?;
            return Ok(Authorization {
                header,
                until: None,
            });
        }
        let uri: Uri = realm.parse().map_err(|error| {
            super::request::protocol(server, ask, format!("token service {realm:?}: {error}"))
        })?;
        let in_clear = uri.scheme_str() != Some("https") && server.host.scheme == "https";
        if credentials.is_some() && in_clear {
            let reason = format!(
                "its token service {realm} is not https, and credentials are not sent there in clear"
            );
            return Err(unauthorized(server, ask, reason));
        }
        let default_scope = format!("repository:{}:pull", self.reference.repository());
        let mut query = vec![("scope", scope.unwrap_or(&default_scope))];
        query.extend(service.map(|service| ("service", service)));
        let request = match credentials {
            Some(Credentials::Identity(refresh)) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "davit"),
                    ("refresh_token", refresh),
                ]);
                let body = Full::new(Bytes::from(encode(&query)));
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                Request::builder()
                    .method(Method::POST)
                    .uri(&uri)
                    .header(CONTENT_TYPE, form)
                    .body(body)
            }
            other => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let mut request =
                    Request::builder().uri(format!("{realm}{separator}{}", encode(&query)));
                if let Some(Credentials::Basic { username, password }) = other {
                    request = request.header(AUTHORIZATION, basic(username, password));
                }
                request.body(Full::new(Bytes::new()))
            }
        };
        let mut request = request.map_err(|error| {
            super::request::protocol(server, ask, format!("token service {realm:?}: {error}"))
        })?;
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(super::AGENT));
        self.fetch_token(server, ask, request).await
    }

    async fn fetch_token(
        &self,
        server: &Server,
        ask: &Ask,
        request: Request<Full<Bytes>>,
    ) -> Result<Authorization, RegistryError> {
        let host = peer(request.uri());
        let target = format!("token for {}", ask.target);
        let mut attempt = 1;
        let response = loop {
            match self
                .send(
                    server,
                    &Ask {
                        target: target.clone(),
                        ..ask.clone()
                    },
                    request.clone(),
                )
                .await
            {
                Ok(response)
                    if (response.status().is_server_error() || response.status() == 429)
                        && attempt < self.retry.attempts => {}
                Ok(response) => break response,
                Err(unsent) if attempt >= self.retry.attempts.min(2) => return Err(unsent.error),
                Err(_) => {}
            }
            tokio::time::sleep(self.retry.delay(attempt, None)).await;
            attempt += 1;
        };
        let status = response.status();
        if !status.is_success() {
            let reason = format!(
                "token service {host} answers HTTP status {}",
                status.as_u16()
            );
            return Err(match status.as_u16() {
                400..=499 => unauthorized(server, ask, reason),
                status => RegistryError::Status {
                    host,
                    target,
                    status,
                    detail: String::new(),
                },
            });
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = match tokio::time::timeout(self.progress_timeout, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                return Err(RegistryError::Connection {
                    host,
                    target,
                    cause: causes(error.as_ref()),
                });
            }
            Err(_) => {
                return Err(RegistryError::Stalled {
                    host,
                    target,
                    seconds: self.progress_timeout.as_secs(),
                });
            }
        };
        let malformed = |reason: &str| RegistryError::Protocol {
            host: host.clone(),
            target: target.clone(),
            reason: reason.to_owned(),
        };
        // serde_json's message would quote parts of a secret.
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| malformed("the answer is not a token"))?;
        let token = answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .ok_or_else(|| malformed("the answer has no token"))?;
        let header =
            bearer(&token).ok_or_else(|| malformed("the token contains control characters"))?;
        // Renewed a little early, so that no request leaves with a token that dies on the way.
        let life = answer
            .expires_in
            .filter(|life| *life > 0)
            .unwrap_or(DEFAULT_LIFE);
        let until = Instant::now().checked_add(Duration::from_secs(life - life / 6));
        Ok(Authorization { header, until })
    }
}

fn unauthorized(server: &Server, ask: &Ask, reason: String) -> RegistryError {
    RegistryError::Unauthorized {
        host: server.host.authority.clone(),
        target: ask.target.clone(),
        reason,
    }
}

fn basic(username: &str, password: &str) -> HeaderValue {
    let mut header = HeaderValue::from_str(&format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
    // base64 has no character that a header refuses.
    .unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `a=b&c=d` with everything special as `%XX`.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte))
                }
                other => out.push_str(&format!("%{other:02X}")),
            }
            out
        })
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull,push"), ("s", "é &")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&s=%C3%A9%20%26"
        );
    }
}
