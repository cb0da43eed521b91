//! ExecSync: a command in a container, to its end.

use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::{Invalid, filled, seconds};
use crate::node::Node;
use crate::status;

/// A command that ends with another code than 0 is an answer; one that runs into the timeout is DEADLINE_EXCEEDED,
/// by which the kubelet knows a failed probe from a broken one.
pub(super) async fn sync(
    node: &Node,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let timeout = seconds("timeout", request.timeout)?;
    if request.cmd.is_empty() {
        return Err(Invalid::new("cmd", "is empty").into());
    }
    let output = node
        .engine()?
        .exec_sync(&id, request.cmd, timeout)
        .await
        .map_err(status::from)?;
    Ok(ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.exit_code,
    })
}
