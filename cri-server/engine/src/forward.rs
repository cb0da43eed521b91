//! Port-forward: a connection to a port of a pod, as from inside it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use sys::netns::NetNs;

use crate::error::{Error, Result};
use crate::model::NamespaceMode;
use crate::node::Node;
use crate::pod::Pod;
use crate::pod::supervisor::Supervisor;

/// How long a connection may take; both ends are on this machine.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to `localhost:port` of the pod: IPv4 first, then IPv6. Blocks.
pub(crate) fn dial(node: &Node, pod: &Pod, port: u16) -> Result<TcpStream> {
    let view = pod.view();
    let not_ready = |why: &str| Error::PodNotReady {
        id: pod.id.clone(),
        why: why.to_owned(),
    };
    let record = view.record.as_ref().map_err(|why| not_ready(why))?;
    if let Some(why) = &view.not_ready {
        return Err(not_ready(why));
    }
    if record.config.security.namespaces.network == NamespaceMode::Node {
        return connect(&pod.id, port);
    }
    let path = Supervisor::new(node.pod_dir(&pod.id)).netns();
    // The socket keeps its namespace when it comes back.
    enter(&path)?
        .run(|| connect(&pod.id, port))
        .map_err(|source| in_namespace(&path, source))?
}

fn enter(path: &Path) -> Result<NetNs> {
    NetNs::open(path).map_err(|source| in_namespace(path, source))
}

fn in_namespace(path: &Path, source: sys::Error) -> Error {
    let action = format!("enter the pod's network namespace {}", path.display());
    Error::Sys { action, source }
}

fn connect(pod: &str, port: u16) -> Result<TcpStream> {
    let dial = |address: SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok::<_, io::Error>(stream)
    };
    let refused_4 = match dial((Ipv4Addr::LOCALHOST, port).into()) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|refused_6| Error::Connect {
        pod: pod.to_owned(),
        port,
        text: format!("127.0.0.1: {refused_4}; ::1: {refused_6}"),
    })
}
