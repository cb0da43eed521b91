//! `WWW-Authenticate`: what a registry wants before it answers.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// The token service.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
        /// Why a token that was sent is no good.
        error: Option<String>,
    },
    /// A name and a password.
    Basic,
}

/// The challenge in an answer: a token where the registry takes one, else a password.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let all = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = all.flat_map(parse).collect();
    let bearer = challenges
        .iter()
        .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(challenges.first()).cloned()
}

/// All challenges of one header: `Scheme key="value", key=value, Scheme …`.
fn parse(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = vec![];
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let word_end = rest
            .find(|c: char| c == '=' || c == ',' || c.is_whitespace())
            .unwrap_or(rest.len());
        let word = rest[..word_end].to_ascii_lowercase();
        rest = rest[word_end..].trim_start();
        match (rest.strip_prefix('='), schemes.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let (value, after) = value(after.trim_start());
                parameters.push((word, value));
                rest = after;
            }
            (Some(_), None) => return vec![],
            (None, _) if !word.is_empty() => schemes.push((word, vec![])),
            (None, _) => {}
        }
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    schemes
        .into_iter()
        .filter_map(|(scheme, parameters)| known(&scheme, parameters))
        .collect()
}

/// A quoted or bare value, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ',' || c.is_whitespace())
            .unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn known(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
            error: get("error"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer {
            realm: realm.into(),
            service: owned(service),
            scope: owned(scope),
            error: None,
        }
    }

    #[test]
    fn the_challenges_of_real_registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#;
        assert_eq!(
            parse(hub),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/busybox:pull,push")
            )]
        );
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(
            parse("bearer realm=https://x/t , service = s"),
            [bearer("https://x/t", Some("s"), None)]
        );
        assert_eq!(
            parse(r#"Negotiate, Basic realm="a, b", Bearer realm="r\"q""#),
            [Challenge::Basic, bearer("r\"q", None, None)]
        );
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=x".parse().unwrap());
        assert_eq!(challenge(&headers), Some(bearer("x", None, None)));
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in [
            "",
            "=",
            "x=y",
            "Bearer",
            "Bearer service=x",
            "Digest realm=x",
            ",,,",
            "\"",
            "Bearer realm",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
    }
}
