//! The bridge and host-local plugins under our own executor, in real network namespaces.
mod support;

use serde_json::json;
use support::*;
use sys::netns::NetNs;

#[test]
fn a_pod_gets_an_address_that_the_host_reaches_by_tcp() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("one", "10.201.1.0/24", json!({}));
    let pod = world.attachment("pod-1");
    let before = world.inventory();
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.201.1.2/24");
    let echo = NetNs::open(pod.netns.as_deref().unwrap())
        .unwrap()
        .run(|| Echo::listen(address(&result)))
        .unwrap();
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.201.1.1");
    drop(echo);
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
    world
        .host
        .run(|| cni::plugin::remove_network("one", "br-one", "10.201.1.0/24".parse().unwrap()))
        .unwrap();
    assert_eq!(world.inventory(), before);
}
