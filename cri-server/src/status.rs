//! The only table from the engine's kinds of errors to gRPC codes.

use engine::{Error, Kind};
use tonic::{Code, Status};

/// gRPC sends the message as a header, and clients bound those. What matters stands at the beginning and the end.
const MESSAGE_LIMIT: usize = 8 * 1024;

/// The gRPC code for a kind of error.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Internal => Code::Internal,
        // cri-client takes only this code off before a kubelet looks at the beginning of the message.
        Kind::Named => Code::Unknown,
    }
}

/// An engine's error, with its whole chain in one line.
pub(crate) fn from(error: Error) -> Status {
    Status::new(code(error.kind()), bounded(error.report()))
}

/// An error of PullImage. The kubelet knows a registry that is away by the beginning of the message, and only where
/// the code is UNKNOWN (cri-api, `pkg/errors`: `RegistryUnavailable`).
pub(crate) fn from_pull(error: Error) -> Status {
    match error.kind() {
        Kind::Unavailable => {
            Status::unknown(bounded(format!("RegistryUnavailable: {}", error.report())))
        }
        _ => from(error),
    }
}

/// An RPC that is part of CRI and not of this server yet.
pub(crate) fn unsupported(rpc: &str) -> Status {
    Status::unimplemented(format!("{rpc} is not supported yet"))
}

fn bounded(text: String) -> String {
    if text.len() <= MESSAGE_LIMIT {
        return text;
    }
    let head = text.floor_char_boundary(MESSAGE_LIMIT * 3 / 4);
    let tail = text.ceil_char_boundary(text.len() - MESSAGE_LIMIT / 4);
    format!("{} […] {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(kind: Kind) -> Error {
        Error::Images {
            action: "pull \"x\"".into(),
            kind,
            source: "connection refused".into(),
        }
    }

    #[test]
    fn an_unknown_pod_is_not_found() {
        let status = from(Error::PodNotFound { id: "abc".into() });
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "pod \"abc\" does not exist")
        );
    }

    /// cri-client: only code Unknown is stripped before the kubelet looks at the prefix.
    #[test]
    fn a_registry_that_is_away_is_unknown_with_the_kubelets_prefix() {
        let status = from_pull(images(Kind::Unavailable));
        assert_eq!(status.code(), Code::Unknown);
        assert_eq!(
            status.message(),
            "RegistryUnavailable: pull \"x\": connection refused"
        );
    }

    #[test]
    fn wrong_credentials_of_a_pull_stay_unauthenticated() {
        assert_eq!(
            from_pull(images(Kind::Unauthenticated)).code(),
            Code::Unauthenticated
        );
    }

    #[test]
    fn a_very_long_message_keeps_its_beginning_and_its_end() {
        let status = from(Error::Internal(format!(
            "begin {} end",
            "ä".repeat(100_000)
        )));
        assert!(
            status.message().len() < MESSAGE_LIMIT + 16,
            "{}",
            status.message().len()
        );
        assert!(status.message().starts_with("begin ") && status.message().ends_with(" end"));
    }
}
