//! Credentials for a registry, as CRI's `AuthConfig` carries them. Never printed.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;

/// Credentials for one registry. Empty strings mean that a part is absent.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Auth {
    /// The name for Basic authentication.
    pub username: String,
    /// The password that belongs to `username`.
    pub password: String,
    /// `base64(username:password)`, where those two are not given.
    pub auth: String,
    /// The registry that these are for; empty means the one that the image's name says.
    pub server_address: String,
    /// An OAuth2 refresh token, to be traded for an access token.
    pub identity_token: String,
    /// A token to be sent to the registry as it is.
    pub registry_token: String,
}

/// What remains of [`Auth`] once its `auth` field is decoded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Credentials {
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token.
    Identity(String),
    /// A ready access token.
    Registry(String),
}

impl Auth {
    /// The credentials in here that are used: a ready token before a refresh token before a password.
    ///
    /// # Errors
    /// [`Error::AuthEncoding`] where `auth` is not `base64(username:password)`.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, Error> {
        if !self.registry_token.is_empty() {
            return Ok(Some(Credentials::Registry(self.registry_token.clone())));
        }
        if !self.identity_token.is_empty() {
            return Ok(Some(Credentials::Identity(self.identity_token.clone())));
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credentials::Basic { username, password }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = STANDARD
            .decode(self.auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or(Error::AuthEncoding)?;
        let (username, password) = decoded.split_once(':').ok_or(Error::AuthEncoding)?;
        // docker pads the decoded password with zero bytes.
        let (username, password) = (
            username.to_owned(),
            password.trim_end_matches('\0').to_owned(),
        );
        Ok(Some(Credentials::Basic { username, password }))
    }

    /// A number that differs for different credentials, to keep their pulls and tokens apart in memory.
    pub(crate) fn fingerprint(auth: Option<&Auth>) -> u64 {
        let mut hasher = DefaultHasher::new();
        auth.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of persons are kept out of logs as well.
        f.debug_struct("Auth")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Basic { .. } => "Basic(..)",
            Credentials::Identity(_) => "Identity(..)",
            Credentials::Registry(_) => "Registry(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_shows_in_debug_output() {
        let auth = Auth {
            username: "s3cret".into(),
            password: "s3cret".into(),
            auth: "s3cret".into(),
            server_address: "registry.test".into(),
            identity_token: "s3cret".into(),
            registry_token: "s3cret".into(),
        };
        let shown = format!("{auth:?} {:?}", auth.credentials());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("registry.test"), "{shown}");
    }

    #[test]
    fn the_auth_field_is_decoded_and_refused_without_being_shown() {
        let auth = |text: &str| Auth {
            auth: text.into(),
            ..Auth::default()
        };
        let basic = Credentials::Basic {
            username: "me".into(),
            password: "a:b".into(),
        };
        assert_eq!(auth("bWU6YTpi").credentials().unwrap(), Some(basic));
        assert_eq!(Auth::default().credentials().unwrap(), None);
        for broken in ["bWU=", "%%%"] {
            let error = auth(broken).credentials().unwrap_err().to_string();
            assert!(!error.contains(broken), "{error}");
        }
    }
}
