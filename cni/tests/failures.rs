//! What the bridge and host-local plugins refuse, and what they leave after a failure: nothing.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use cni::Attachment;
use netlink::Rtnl;
use serde_json::json;
use support::*;

#[test]
fn two_networks_of_one_subnet_are_refused_by_name_and_nothing_is_left() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let first = world.network("twin-a", "10.201.6.0/24", json!({}));
    world
        .host
        .run(|| world.executor().add(&first, &world.attachment("a")))
        .unwrap();
    let second = world.network("twin-b", "10.201.6.128/25", json!({}));
    let pod = world.attachment("b");
    let error = world
        .host
        .run(|| world.executor().add(&second, &pod))
        .unwrap_err()
        .to_string();
    let expected = "plugin \"bridge\" ADD: network \"twin-b\": its subnet 10.201.6.128/25 overlaps with 10.201.6.0/24 of network \"twin-a\"";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        !world.path("ipam/twin-b/10.201.6.130").exists(),
        "the address was given back"
    );
}

#[test]
fn an_exhausted_range_says_so_and_a_released_address_is_given_again() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("tiny", "10.201.10.0/29", json!({}));
    let pods: Vec<Attachment> = (0..6)
        .map(|n| world.attachment(&format!("pod-{n}")))
        .collect();
    for pod in &pods[..5] {
        world
            .host
            .run(|| world.executor().add(&network, pod))
            .unwrap();
    }
    let error = world
        .host
        .run(|| world.executor().add(&network, &pods[5]))
        .unwrap_err();
    let expected = "plugin \"bridge\" ADD: no address left in 10.201.10.1-10.201.10.6: all 5 are reserved under";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(
        inside(&pods[5], || Rtnl::open()
            .unwrap()
            .link_by_name("eth0")
            .unwrap()),
        None
    );
    world
        .host
        .run(|| world.executor().del(&network, &pods[2]))
        .unwrap();
    let result = world
        .host
        .run(|| world.executor().add(&network, &pods[5]))
        .unwrap();
    assert_eq!(address(&result).to_string(), "10.201.10.4");
}

#[test]
fn an_add_that_fails_late_leaves_nothing_of_the_container() {
    if !is_root() {
        return;
    }
    let world = World::new();
    // The last step, a route whose gateway is on no link, is what fails.
    let ipam = json!({"type": "host-local", "dataDir": world.path("ipam"), "subnet": "10.201.11.0/24", "routes": [{"dst": "1.0.0.0/8", "gw": "203.0.113.1"}]});
    let network = world.network("late", "10.201.11.0/24", json!({ "ipam": ipam }));
    let pod = world.attachment("pod");
    let error = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("plugin \"bridge\" ADD: link \"eth0\": RTM_NEWROUTE(1.0.0.0/8 via 203.0.113.1): network is unreachable (ENETUNREACH)"), "{error}");
    let left = world.inventory();
    assert!(!left.iter().any(|l| l.starts_with("link veth")), "{left:?}");
    assert!(!left.iter().any(|l| l.contains("/ipam/")), "{left:?}");
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
}

#[test]
fn a_second_add_of_the_same_interface_is_refused_and_harms_nothing() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("again", "10.201.12.0/24", json!({}));
    let pod = world.attachment("pod");
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let error = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap_err()
        .to_string();
    assert!(
        error
            .contains("10.201.12.2 has been allocated to pod, duplicate allocation is not allowed"),
        "{error}"
    );
    // Another container in the same namespace: the name is taken, and the address goes back.
    let intruder = Attachment {
        container_id: "intruder".to_owned(),
        ..pod.clone()
    };
    let error = world
        .host
        .run(|| world.executor().add(&network, &intruder))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("RTM_NEWLINK(kind=veth, peer=\"eth0\"")
            && error.contains("file exists (EEXIST)"),
        "{error}"
    );
    assert!(!world.path("ipam/again/10.201.12.3").exists());
    let echo = inside(&pod, || Echo::listen(address(&result)));
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.201.12.1");
}

#[test]
fn del_succeeds_again_and_again_and_after_the_namespace_is_gone() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("gone", "10.201.13.0/24", json!({}));
    let pod = world.attachment("pod");
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    for _ in 0..2 {
        world
            .host
            .run(|| world.executor().del(&network, &pod))
            .unwrap();
    }
    let dead = Namespace::new("dead");
    let pod = Attachment::new("dead").in_netns(&dead.path);
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    dead.destroy();
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
    assert!(
        !world.inventory().iter().any(|l| l.contains("/ipam/")),
        "{:?}",
        world.inventory()
    );
    // Never added at all.
    world
        .host
        .run(|| world.executor().del(&network, &Attachment::new("never")))
        .unwrap();
}

#[test]
fn a_link_that_is_no_bridge_and_a_bridge_of_another_subnet_are_refused() {
    if !is_root() {
        return;
    }
    let world = World::new();
    world
        .host
        .run(|| ip(&["link", "add", "br-taken", "type", "ifb"]));
    let network = world.network("taken", "10.201.15.0/24", json!({}));
    let error = world
        .host
        .run(|| world.executor().add(&network, &world.attachment("a")))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("link \"br-taken\" is there already and is not a bridge but ifb"),
        "{error}"
    );

    world
        .host
        .run(|| ip(&["link", "add", "br-other", "type", "bridge"]));
    world
        .host
        .run(|| ip(&["addr", "add", "10.201.99.1/24", "dev", "br-other"]));
    let network = world.network("other", "10.201.16.0/24", json!({}));
    let pod = world.attachment("b");
    let error = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap_err()
        .to_string();
    assert!(error.contains("bridge \"br-other\" has the address 10.201.99.1/24, and the network's gateway is 10.201.16.1/24; hint:"), "{error}");
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
    let forced = world.network("other", "10.201.16.0/24", json!({"forceAddress": true}));
    world
        .host
        .run(|| world.executor().add(&forced, &pod))
        .unwrap();
    assert_eq!(
        world.host.run(|| first_address("br-other")).to_string(),
        "10.201.16.1"
    );
}

#[test]
fn what_this_bridge_does_not_do_is_an_error_with_the_field_and_its_value() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let v6 = json!({"type": "host-local", "dataDir": world.path("ipam"), "subnet": "fd00::/127"});
    let table = [
        (json!({"vlan": 100}), 2, "unsupported field \"vlan\": 100"),
        (
            json!({"vlanTrunk": [{"id": 5}]}),
            2,
            "unsupported field \"vlanTrunk\": [{\"id\":5}]",
        ),
        (
            json!({"macspoofchk": true}),
            2,
            "unsupported field \"macspoofchk\": true",
        ),
        (
            json!({"disableContainerInterface": true}),
            2,
            "unsupported field \"disableContainerInterface\": true",
        ),
        (
            json!({"ipMasqBackend": "iptables"}),
            2,
            "unsupported field \"ipMasqBackend\": iptables",
        ),
        (
            json!({"promiscMode": true}),
            7,
            "hairpinMode and promiscMode exclude each other",
        ),
        (json!({"mtu": 10}), 7, "mtu 10: is not between 68 and 65535"),
        (
            json!({"bridge": "a-name-that-is-too-long"}),
            7,
            "bridge \"a-name-that-is-too-long\": is longer than 15 bytes",
        ),
        (
            json!({"isGateway": "yes"}),
            6,
            "configuration of network \"no\": invalid type: string \"yes\", expected a boolean",
        ),
        (
            json!({ "ipam": v6 }),
            7,
            "range set 0: ipam: subnet fd00::/127 is too small",
        ),
        (
            json!({"ipam": {"type": "nope"}}),
            7,
            "ipam plugin \"nope\" not found in CNI_PATH",
        ),
        (
            json!({"ipam": {"type": "../sh"}}),
            7,
            "ipam.type \"../sh\" contains `/`",
        ),
        (
            json!({"ipam": {"type": "host-local"}}),
            7,
            "ipam: no ranges",
        ),
        (
            json!({"args": {"cni": {"mac": "x"}}}),
            7,
            "mac \"x\": is not a link's hardware address",
        ),
    ];
    let before = world.inventory();
    for (extra, code, expected) in table {
        let network = world.network("no", "10.201.17.0/24", extra.clone());
        let pod = world.attachment("pod");
        let error = world
            .host
            .run(|| world.executor().add(&network, &pod))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("plugin \"bridge\" ADD: {expected}")),
            "{extra}: {text}"
        );
        assert_eq!(error.plugin_code(), Some(code), "{extra}: {text}");
    }
    // Only the intents of the refused ADDs are left.
    world
        .host
        .run(|| {
            world.executor().del(
                &world.network("no", "10.201.17.0/24", json!({})),
                &Attachment::new("pod"),
            )
        })
        .unwrap();
    assert_eq!(world.inventory(), before);
}

#[test]
fn del_works_with_a_configuration_that_add_would_refuse() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("changed", "10.201.18.0/24", json!({}));
    let pod = world.attachment("pod");
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let now = world.network("changed", "10.201.18.0/24", json!({"vlan": 7}));
    world.host.run(|| world.executor().del(&now, &pod)).unwrap();
    assert!(
        !world
            .inventory()
            .iter()
            .any(|l| l.contains("/ipam/") || l.starts_with("link veth"))
    );
}

/// Wherever the kill hits, DEL leaves nothing, and the address is not lost.
#[test]
fn an_add_killed_at_any_moment_is_cleaned_up_by_del() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("killed", "10.201.19.0/24", json!({}));
    let executor = world.executor();
    world
        .host
        .run(|| executor.add(&network, &world.attachment("warm-up")))
        .unwrap();
    let clean = world.inventory();
    let mut interrupted = 0;
    for step in 0..60u64 {
        let pod = world.attachment(&format!("pod-{step}"));
        // The deadline kills the plugin's group, each time a little later.
        let hasty = cni::Executor {
            timeout: std::time::Duration::from_micros(200 * step),
            ..executor.clone()
        };
        interrupted += u32::from(world.host.run(|| hasty.add(&network, &pod)).is_err());
        world
            .host
            .run(|| executor.del_cached(&pod.container_id, "eth0"))
            .unwrap();
        assert_eq!(
            inside(&pod, || Rtnl::open().unwrap().link_by_name("eth0").unwrap()),
            None,
            "step {step}"
        );
        assert_eq!(world.inventory(), clean, "step {step}");
    }
    assert!(interrupted > 3, "{interrupted} of 60 were interrupted");
}

/// A disk that is full keeps new pods out, and lets old ones go.
#[test]
fn on_a_full_disk_add_fails_cleanly_and_del_works() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let small = Tmpfs::at(world.path("small"));
    let ipam = json!({"type": "host-local", "dataDir": small.path.join("ipam"), "subnet": "10.201.21.0/24"});
    let network = world.network("full", "10.201.21.0/24", json!({ "ipam": ipam }));
    let executor = cni::Executor {
        cache_dir: small.path.join("cache"),
        ..world.executor()
    };
    let (old, new) = (world.attachment("old"), world.attachment("new"));
    world.host.run(|| executor.add(&network, &old)).unwrap();
    small.fill();
    let error = world
        .host
        .run(|| executor.add(&network, &new))
        .unwrap_err()
        .to_string();
    assert!(error.contains("No space left on device"), "{error}");
    world.host.run(|| executor.del(&network, &new)).unwrap();
    world.host.run(|| executor.del(&network, &old)).unwrap();
    assert_eq!(executor.cached_attachments(None).unwrap(), []);
    assert!(!small.path.join("ipam/full/10.201.21.2").exists());
    assert!(!small.path.join("ipam/full/10.201.21.3").exists());
}

/// A file system of 64 KiB, unmounted with its owner.
struct Tmpfs {
    path: std::path::PathBuf,
}

impl Tmpfs {
    fn at(path: std::path::PathBuf) -> Tmpfs {
        std::fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
        assert!(mount.arg(&path).status().unwrap().success());
        Tmpfs { path }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status()
            .ok();
    }
}
