//! Tokens: whoever has one has the session, once, within a minute.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;

use super::Session;

/// How long a token is good.
const LIFE: Duration = Duration::from_secs(60);

/// The most tokens that nobody has used yet.
const CEILING: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (Session, Instant)>>);

impl Tokens {
    /// A new token: eight characters, 48 bits from the kernel.
    pub(super) fn issue(&self, session: Session) -> Result<String, Status> {
        self.issue_at(session, Instant::now())
    }

    fn issue_at(&self, session: Session, now: Instant) -> Result<String, Status> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        if tokens.len() >= CEILING {
            return Err(Status::resource_exhausted(format!(
                "{CEILING} requests to stream wait for their clients already; try again later"
            )));
        }
        loop {
            let token = random()?;
            if !tokens.contains_key(&token) {
                tokens.insert(token.clone(), (session, now + LIFE));
                return Ok(token);
            }
        }
    }

    /// What the token stands for; it is used up by this.
    pub(super) fn take(&self, token: &str) -> Option<Session> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: &str, now: Instant) -> Option<Session> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, until) = tokens.remove(token)?;
        (until > now).then_some(session)
    }
}

fn random() -> Result<String, Status> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Status::internal(format!("read /dev/urandom: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::PortForward {
            pod: "p".into(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_token_has_eight_characters_and_is_good_once() {
        let tokens = Tokens::default();
        let token = tokens.issue(session()).expect("a token");
        assert_eq!(token.len(), 8);
        assert_eq!(tokens.take(&token), Some(session()));
        assert_eq!(tokens.take(&token), None);
    }

    #[test]
    fn a_token_is_good_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let [early, late] = [(); 2].map(|()| tokens.issue_at(session(), now).expect("a token"));
        assert!(
            tokens
                .take_at(&early, now + Duration::from_secs(59))
                .is_some()
        );
        assert!(tokens.take_at(&late, now + LIFE).is_none());
    }

    #[test]
    fn the_ceiling_is_told_and_ends_with_the_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..CEILING {
            tokens.issue_at(session(), now).expect("a token");
        }
        let refused = tokens.issue_at(session(), now).expect_err("one too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(tokens.issue_at(session(), now + LIFE).is_ok());
    }
}
