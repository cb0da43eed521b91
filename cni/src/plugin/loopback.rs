//! loopback: sets `lo` up.
use ipnet::IpNet;
use netlink::{LinkChange, Rtnl};
use serde_json::{Value, json};

use super::{Failure, Request};
use crate::AddResult;
use crate::result::{Interface, IpConfig};

const LO: &str = "lo";

/// Sets `lo` up and gives its addresses. As a later plugin of a chain it passes the result on.
pub(crate) fn add(request: &Request) -> Result<Value, Failure> {
    let netns = request.netns()?;
    let mut rtnl = netns.visit(Rtnl::open)??;
    let Some(lo) = rtnl.link_by_name(LO)? else {
        return Err(Failure::refused(format!(
            "network namespace {:?} has no interface {LO:?}",
            netns.path()
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
        sandbox: netns.path().to_string_lossy().into_owned(),
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
    let Some(netns) = request.netns_if_there()? else {
        return Ok(());
    };
    let mut rtnl = netns.visit(Rtnl::open)??;
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

/// Whether `lo` is up.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    let netns = request.netns()?;
    let mut rtnl = netns.visit(Rtnl::open)??;
    match rtnl.link_by_name(LO)? {
        Some(lo) if lo.up => Ok(()),
        _ => Err(Failure::refused(format!(
            "interface {LO:?} of network namespace {:?} is not up",
            netns.path()
        ))),
    }
}
