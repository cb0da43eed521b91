//! Version, Status, RuntimeConfig, UpdateRuntimeConfig: the server about itself.

use std::collections::BTreeMap;

use engine::Engine;
use engine::model::{Condition, HandlerInfo};
use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::not_empty;
use crate::node::Node;
use crate::status;

/// Answers before the engine is there: the kubelet's connection check is this call.
pub(super) async fn version(_: &Node, _: VersionRequest) -> Result<VersionResponse, Answer> {
    Ok(VersionResponse {
        version: "0.1.0".into(), // of the kubelet's own runtime API, the same for every runtime
        runtime_name: "davit".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: "v1".into(),
    })
}

pub(super) async fn status(node: &Node, request: StatusRequest) -> Result<StatusResponse, Answer> {
    let engine = node.engine()?;
    let conditions = engine.conditions().into_iter().map(condition).collect();
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        info: if request.verbose {
            verbose(&engine)
        } else {
            BTreeMap::new()
        },
        runtime_handlers: engine.handlers().into_iter().map(handler).collect(),
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: true,
            mount_options: false,
        }),
    })
}

pub(super) async fn runtime_config(
    node: &Node,
    _: RuntimeConfigRequest,
) -> Result<RuntimeConfigResponse, Answer> {
    let cgroup_driver = match node.engine()?.cgroup_driver() {
        engine::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        engine::CgroupDriver::Systemd => CgroupDriver::Systemd,
    };
    Ok(RuntimeConfigResponse {
        linux: Some(LinuxRuntimeConfiguration {
            cgroup_driver: cgroup_driver.into(),
        }),
    })
}

pub(super) async fn update_runtime_config(
    node: &Node,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Answer> {
    let network = request
        .runtime_config
        .and_then(|config| config.network_config);
    if let Some(cidr) = network.and_then(|network| not_empty(network.pod_cidr)) {
        node.engine()?
            .update_pod_cidr(&cidr)
            .await
            .map_err(status::from)?;
    }
    Ok(UpdateRuntimeConfigResponse {})
}

/// `config` holds `stateDir`, which critest reads; both values are JSON objects, which crictl prints as such.
fn verbose(engine: &Engine) -> BTreeMap<String, String> {
    let daemon = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "criVersion": "v1",
    });
    BTreeMap::from([
        ("config".into(), engine.info().to_string()),
        ("daemon".into(), daemon.to_string()),
    ])
}

fn condition(from: Condition) -> RuntimeCondition {
    RuntimeCondition {
        r#type: from.kind,
        status: from.status,
        reason: from.reason,
        message: from.message,
    }
}

fn handler(from: HandlerInfo) -> RuntimeHandler {
    let features = RuntimeHandlerFeatures {
        recursive_read_only_mounts: from.features.recursive_read_only_mounts,
        user_namespaces: from.features.user_namespaces,
    };
    RuntimeHandler {
        name: from.name,
        features: Some(features),
    }
}
