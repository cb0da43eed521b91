//! What the error channel says at the end: a `metav1.Status`, or with old protocols a text.

use serde_json::json;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// The command's code, not 0.
    ExitCode(i32),
    /// Anything else.
    Failure(String),
}

/// How the protocol wants to hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// v4 and later: JSON, in any case.
    Status,
    /// Before: text, of failures only.
    Text,
}

impl Outcome {
    /// What to send; may be nothing.
    pub(super) fn encode(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Status => self.status().to_string().into_bytes(),
            Form::Text => self.text().unwrap_or_default().into_bytes(),
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::ExitCode(code) => Some(format!(
                "command terminated with non-zero exit code: exit code {code}"
            )),
            Self::Failure(text) => Some(text.clone()),
        }
    }

    fn status(&self) -> serde_json::Value {
        let message = self.text().unwrap_or_default();
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(text) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {text}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": text}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_that_clients_read() {
        let status = Outcome::ExitCode(7).status();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "7");
    }

    #[test]
    fn old_protocols_hear_of_failures_only() {
        assert!(Outcome::Success.encode(Form::Text).is_empty());
        assert_eq!(Outcome::Failure("no".into()).encode(Form::Text), b"no");
        assert_eq!(
            Outcome::Success.encode(Form::Status),
            br#"{"metadata":{},"status":"Success"}"#
        );
    }
}
