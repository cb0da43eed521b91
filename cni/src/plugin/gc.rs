//! GC: what the runtime says is still attached. Everything else of the network may go.
use serde::Deserialize;

use super::{Failure, Request};

/// An attachment that the runtime knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Valid {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
}

/// The list; without one nothing may go, for a runtime that forgot to say what it has would lose it all.
pub(crate) fn valid_attachments(request: &Request) -> Result<Vec<Valid>, Failure> {
    let raw: Raw = request.parse_config()?;
    raw.valid.ok_or_else(|| {
        Failure::config(
            "GC needs \"cni.dev/valid-attachments\", the list of what is still attached",
        )
    })
}
