//! libcni's result cache: `<cache_dir>/results/<network>-<container>-<ifname>`, one JSON object per attachment.
use serde_json::{Map, Value};

use std::path::PathBuf;

/// What is remembered of one attachment.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedAttachment {
    /// The network's name.
    pub network: String,
    /// The container's id.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The namespace at the time of the ADD.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS` of the ADD.
    pub args: Vec<(String, String)>,
    /// Capability arguments of the ADD.
    pub capability_args: Map<String, Value>,
    /// The network's configuration at the time of the ADD.
    pub config: Vec<u8>,
    /// The result; None when the ADD did not end well.
    pub result: Option<Value>,
}
