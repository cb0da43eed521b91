//! `Debug` for the messages that carry secrets: it says which fields are set, never what they hold, so that no log line,
//! span or panic message can leak a password. The generator is told to leave these out (`tests/generated.rs`).

use std::fmt;

use crate::davit::v1::Credentials;
use crate::runtime::v1::AuthConfig;

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &hidden(&self.username))
            .field("password", &hidden(&self.password))
            .field("auth", &hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &hidden(&self.username))
            .field("password", &hidden(&self.password))
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}

/// What stands for a secret: whether it is set. The user's name is hidden too; with some registries it is a token.
fn hidden(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "<redacted>" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRI: AuthConfig must never reach a log; requests are printed whole, so the nested Debug is what counts.
    #[test]
    fn debug_output_of_a_pull_request_holds_no_secret() {
        let request = crate::runtime::v1::PullImageRequest {
            auth: Some(AuthConfig {
                username: "sesame-user".into(),
                password: "sesame-password".into(),
                auth: "sesame-auth".into(),
                server_address: "registry.example".into(),
                identity_token: "sesame-identity".into(),
                registry_token: "sesame-registry".into(),
            }),
            ..Default::default()
        };
        let text = format!("{request:?} {request:#?}");
        assert!(!text.contains("sesame"), "{text}");
        assert!(text.contains("registry.example"), "{text}");
    }

    #[test]
    fn debug_output_of_credentials_holds_no_secret() {
        let request = crate::davit::v1::PullRequest {
            reference: "busybox".into(),
            credentials: Some(Credentials {
                username: "sesame-user".into(),
                password: "sesame-password".into(),
                identity_token: "sesame-identity".into(),
                registry_token: "sesame-registry".into(),
            }),
            ..Default::default()
        };
        let text = format!("{request:?}");
        assert!(!text.contains("sesame"), "{text}");
        assert!(text.contains("busybox"), "{text}");
    }
}
