//! From records to what a caller sees.

use std::path::Path;

use serde_json::{Value, json};

use crate::model::{ContainerState, ContainerStatus};
use crate::record::{Change, ContainerRecord, Phase};

/// The exit code of a container whose end nobody saw.
pub(crate) const UNKNOWN_EXIT: i32 = 255;
/// The exit code of a container whose program could not be run.
pub(crate) const START_ERROR_EXIT: i32 = 128;

/// The status of a container.
pub(crate) fn status(record: &ContainerRecord, verbose: bool) -> ContainerStatus {
    let mut status = ContainerStatus {
        id: record.id.clone(),
        pod_id: record.pod_id.clone(),
        metadata: record.config.metadata.clone(),
        state: ContainerState::Created,
        created_at: record.created_at,
        started_at: 0,
        finished_at: 0,
        exit_code: 0,
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        reason: String::new(),
        message: String::new(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: record.resources.clone(),
        user: record.user.clone(),
        stop_signal: record.stop_signal.clone(),
        pid: record.pid,
        info: Value::Null,
    };
    match &record.phase {
        Phase::Creating | Phase::Created => {}
        Phase::Running { started_at } => {
            status.state = ContainerState::Running;
            status.started_at = *started_at;
        }
        Phase::Exited(ended) => {
            status.state = ContainerState::Exited;
            status.started_at = ended.started_at;
            status.finished_at = ended.finished_at;
            status.exit_code = ended.exit_code;
            status.reason.clone_from(&ended.reason);
            status.message.clone_from(&ended.message);
            status.pid = None;
        }
    }
    if verbose {
        status.info = json!({
            "sandboxID": record.pod_id,
            "pid": status.pid.unwrap_or(0),
            "removing": false,
            "config": record.config,
            "cgroup": record.cgroup,
            "layers": record.layers,
        });
    }
    status
}

/// A container whose record does not load: there so that it can be removed.
pub(crate) fn unknown(id: &str, pod_id: &str, why: &str) -> ContainerStatus {
    ContainerStatus {
        id: id.to_owned(),
        pod_id: pod_id.to_owned(),
        metadata: crate::model::ContainerMetadata {
            name: "unknown".into(),
            attempt: 0,
        },
        state: ContainerState::Unknown,
        created_at: 1,
        started_at: 0,
        finished_at: 0,
        exit_code: UNKNOWN_EXIT,
        image: crate::model::ImageSpec {
            image: "unknown".into(),
            ..Default::default()
        },
        image_ref: "unknown".into(),
        image_id: String::new(),
        reason: "Unknown".into(),
        message: why.to_owned(),
        labels: Default::default(),
        annotations: Default::default(),
        mounts: Vec::new(),
        log_path: String::new(),
        resources: None,
        user: None,
        stop_signal: String::new(),
        pid: None,
        info: Value::Null,
    }
}

/// The end that a shim recorded.
pub(crate) fn ended(exit: &shim::protocol::Exit) -> Change {
    let reason = match exit.code {
        0 => "Completed",
        _ if exit.oom => "OOMKilled",
        _ => "Error",
    };
    Change::Ended {
        at: exit.finished_at_ns,
        exit_code: exit.code,
        reason,
        message: String::new(),
    }
}

/// The end of a container that nobody saw end.
pub(crate) fn lost(at: i64, message: &str) -> Change {
    Change::Ended {
        at,
        exit_code: UNKNOWN_EXIT,
        reason: "Unknown",
        message: message.to_owned(),
    }
}

/// The end of a container whose program could not be run.
pub(crate) fn start_error(at: i64, message: String) -> Change {
    Change::Ended {
        at,
        exit_code: START_ERROR_EXIT,
        reason: "StartError",
        message,
    }
}

/// Adds the container's `config.json` to what people see, if it is there.
pub(crate) fn add_runtime_spec(status: &mut ContainerStatus, bundle: &Path) {
    let spec = std::fs::read(bundle.join("config.json"))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    if let (Some(info), Some(spec)) = (status.info.as_object_mut(), spec) {
        info.insert("runtimeSpec".into(), spec);
    }
}
