//! loopback: sets `lo` up.
use std::path::Path;

use ipnet::IpNet;
use netlink::{LinkChange, Rtnl};
use nix::errno::Errno;
use serde_json::{Value, json};
use sys::netns::NetNs;

use super::{Failure, Request};
use crate::AddResult;
use crate::result::{Interface, IpConfig};

const LO: &str = "lo";

/// Sets `lo` up and gives its addresses. As a later plugin of a chain it passes the result on.
pub(crate) fn add(request: &Request) -> Result<Value, Failure> {
    let netns_path = request.netns.as_deref().unwrap_or(Path::new(""));
    let mut rtnl = Rtnl::open_in(&NetNs::open(netns_path)?)?;
    let Some(lo) = rtnl.link_by_name(LO)? else {
        return Err(Failure::refused(format!(
            "network namespace {netns_path:?} has no interface {LO:?}"
        )));
    };
    rtnl.change_link(
        &lo,
        &LinkChange {
            up: Some(true),
            ..LinkChange::default()
        },
    )?;
    if let Some(previous) = request.config.get("prevResult").filter(|p| !p.is_null()) {
        return Ok(previous.clone());
    }
    let addresses: Vec<IpNet> = rtnl.addresses(&lo)?.iter().map(|a| a.net).collect();
    let ips = addresses
        .iter()
        .map(|net| IpConfig {
            address: *net,
            gateway: None,
            interface: Some(0),
        })
        .collect();
    let interface = Interface {
        name: LO.to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        sandbox: netns_path.to_string_lossy().into_owned(),
        ..Interface::default()
    };
    Ok(AddResult {
        interfaces: vec![interface],
        ips,
        raw: json!(null),
        ..AddResult::default()
    }
    .to_value(request.version))
}

/// Sets `lo` down, if its namespace is still there.
pub(crate) fn del(request: &Request) -> Result<(), Failure> {
    let Some(path) = &request.netns else {
        return Ok(());
    };
    let netns = match NetNs::open(path) {
        Ok(netns) => netns,
        Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    let mut rtnl = Rtnl::open_in(&netns)?;
    if let Some(lo) = rtnl.link_by_name(LO)? {
        rtnl.change_link(
            &lo,
            &LinkChange {
                up: Some(false),
                ..LinkChange::default()
            },
        )?;
    }
    Ok(())
}
