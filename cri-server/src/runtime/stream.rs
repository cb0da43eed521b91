//! Exec, Attach and PortForward: requests that are answered with a URL. What is wrong with them is said here, where the
//! caller still reads a gRPC error.

use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::{Converted, Invalid, filled};
use crate::node::Node;
use crate::status;
use crate::streaming::{Session, Wants};

pub(super) async fn exec(node: &Node, request: ExecRequest) -> Result<ExecResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    if request.cmd.first().is_none_or(String::is_empty) {
        return Err(Invalid::new("cmd", "is empty").into());
    }
    let wants = wants(request.stdin, request.stdout, request.stderr, request.tty)?;
    let id = node.engine()?.check_exec(&id).map_err(status::from)?;
    let command = request.cmd;
    let session = Session::Exec { id, command, wants };
    Ok(ExecResponse {
        url: node.streaming()?.url(session)?,
    })
}

pub(super) async fn attach(node: &Node, request: AttachRequest) -> Result<AttachResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let wants = wants(request.stdin, request.stdout, request.stderr, request.tty)?;
    let (id, _) = node.engine()?.check_attach(&id).map_err(status::from)?;
    let session = Session::Attach { id, wants };
    Ok(AttachResponse {
        url: node.streaming()?.url(session)?,
    })
}

pub(super) async fn port_forward(
    node: &Node,
    request: PortForwardRequest,
) -> Result<PortForwardResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    let port = |port: i32| match u16::try_from(port) {
        Ok(0) | Err(_) => Err(Invalid::new(
            "port",
            format!("{port} is not from 1 to 65535"),
        )),
        Ok(port) => Ok(port),
    };
    let ports = request
        .port
        .into_iter()
        .map(port)
        .collect::<Converted<_>>()?;
    let pod = node.engine()?.check_forward(&id).map_err(status::from)?;
    let session = Session::PortForward { pod, ports };
    Ok(PortForwardResponse {
        url: node.streaming()?.url(session)?,
    })
}

/// At least one stream; a terminal has no stderr of its own.
fn wants(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Converted<Wants> {
    if tty && stderr {
        let problem = "cannot be had together with tty, whose output is all stdout";
        return Err(Invalid::new("stderr", problem));
    }
    if !(stdin || stdout || stderr) {
        return Err(Invalid::new("stdin, stdout, stderr", "none is asked for"));
    }
    Ok(Wants {
        stdin,
        stdout,
        stderr,
        tty,
    })
}
