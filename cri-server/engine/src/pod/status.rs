//! From a pod's snapshot to what a caller sees.

use serde_json::json;

use super::{Pod, View};
use crate::model::{NamespaceMode, PodMetadata, PodState, PodStatus};
use crate::node::Node;
use crate::record::PodRecord;

/// The status of a pod.
pub(crate) fn status(node: &Node, pod: &Pod, verbose: bool) -> PodStatus {
    let view = pod.view();
    match &view.record {
        Ok(record) => known(node, record, &view, verbose),
        Err(why) => unknown(&pod.id, why),
    }
}

fn known(node: &Node, record: &PodRecord, view: &View, verbose: bool) -> PodStatus {
    let config = &record.config;
    let own_network = config.security.namespaces.network != NamespaceMode::Node;
    let netns = node.pod_dir(&record.id).join("ns/net");
    let ready = view.not_ready.is_none();
    let mut info = serde_json::Value::Null;
    if verbose {
        info = json!({
            "pid": view.shim_pid.unwrap_or(0),
            "notReady": view.not_ready,
            "runtimeHandler": record.handler,
            "cgroup": record.pod_cgroup,
            "directory": node.pod_dir(&record.id),
            "netns": own_network.then_some(&netns),
            "ips": record.ips,
            "config": config,
        });
    }
    PodStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: if ready {
            PodState::Ready
        } else {
            PodState::NotReady
        },
        created_at: record.created_at.max(1),
        // The addresses of a stopped pod are somebody else's already.
        ip: record
            .ips
            .first()
            .filter(|_| ready)
            .cloned()
            .unwrap_or_default(),
        additional_ips: record
            .ips
            .iter()
            .skip(1)
            .filter(|_| ready)
            .cloned()
            .collect(),
        namespaces: config.security.namespaces.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        handler: record.handler.clone(),
        shim_pid: view.shim_pid,
        netns: (own_network && ready).then(|| netns.to_string_lossy().into_owned()),
        known: true,
        info,
    }
}

/// A pod whose record does not load: there so that it can be removed.
fn unknown(id: &str, why: &str) -> PodStatus {
    PodStatus {
        id: id.to_owned(),
        metadata: PodMetadata {
            name: "unknown".into(),
            uid: id.to_owned(),
            namespace: "unknown".into(),
            attempt: 0,
        },
        state: PodState::NotReady,
        created_at: 1,
        ip: String::new(),
        additional_ips: Vec::new(),
        namespaces: Default::default(),
        labels: Default::default(),
        annotations: Default::default(),
        handler: String::new(),
        shim_pid: None,
        netns: None,
        known: false,
        info: json!({ "error": why }),
    }
}
