use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::version::Version;

fn request(dir: &Path, container: &str, ipam: Value) -> Request {
    let mut ipam = ipam;
    ipam["dataDir"] = json!(dir);
    Request {
        command: "ADD".to_owned(),
        container_id: container.to_owned(),
        netns: None,
        ifname: "eth0".to_owned(),
        args: Vec::new(),
        path: Vec::new(),
        network: "net".to_owned(),
        version: Version::NEWEST,
        config: json!({"name": "net", "ipam": ipam}),
    }
}

fn given(result: &AddResult) -> Vec<String> {
    result.ips.iter().map(|ip| ip.address.to_string()).collect()
}

fn small() -> Value {
    json!({"ranges": [[{"subnet": "10.1.2.0/29"}]]})
}

#[test]
fn addresses_go_round_and_a_released_one_comes_last() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |name: &str| given(&add(&request(dir.path(), name, small())).unwrap())[0].clone();
    assert_eq!(ask("a"), "10.1.2.2/29");
    assert_eq!(ask("b"), "10.1.2.3/29");
    del(&request(dir.path(), "a", small())).unwrap();
    assert_eq!(
        [ask("c"), ask("d"), ask("e")],
        ["10.1.2.4/29", "10.1.2.5/29", "10.1.2.6/29"]
    );
    assert_eq!(ask("f"), "10.1.2.2/29");
    let failure = add(&request(dir.path(), "g", small())).unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("no address left in 10.1.2.1-10.1.2.6: all 5 are reserved under"),
        "{failure}"
    );
}

#[test]
fn files_are_the_reference_s() {
    let dir = tempfile::tempdir().unwrap();
    add(&request(dir.path(), "a", small())).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("net").join(name)).unwrap();
    assert_eq!(read("10.1.2.2"), "a\r\neth0");
    assert_eq!(read("last_reserved_ip.0"), "10.1.2.2");
    let names: BTreeSet<String> = std::fs::read_dir(dir.path().join("net"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [".owners", "10.1.2.2", "last_reserved_ip.0", "lock"]
    );
}

#[test]
fn a_container_does_not_get_a_second_address_and_del_is_for_its_interface_only() {
    let dir = tempfile::tempdir().unwrap();
    add(&request(dir.path(), "a", small())).unwrap();
    let failure = add(&request(dir.path(), "a", small())).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("10.1.2.2 has been allocated to a, duplicate allocation is not allowed"),
        "{failure}"
    );
    let mut other = request(dir.path(), "a", small());
    other.ifname = "eth1".to_owned();
    assert_eq!(given(&add(&other).unwrap()), ["10.1.2.3/29"]);
    del(&other).unwrap();
    del(&other).unwrap();
    assert!(dir.path().join("net/10.1.2.2").exists() && !dir.path().join("net/10.1.2.3").exists());
}

#[test]
fn reservations_of_old_versions_and_torn_ones_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    std::fs::create_dir(&net).unwrap();
    std::fs::write(net.join("10.1.2.2"), "old\n").unwrap();
    std::fs::write(net.join("10.1.2.3"), "").unwrap();
    // The empty file is a crash's, the old form is somebody's.
    assert_eq!(
        given(&add(&request(dir.path(), "new", small())).unwrap()),
        ["10.1.2.3/29"]
    );
    del(&request(dir.path(), "old", small())).unwrap();
    assert!(!net.join("10.1.2.2").exists());
}

#[test]
fn each_range_set_gives_one_address_or_none_of_them_does() {
    let dir = tempfile::tempdir().unwrap();
    let two = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/30"}]], "routes": [{"dst": "0.0.0.0/0"}]});
    let first = add(&request(dir.path(), "a", two.clone())).unwrap();
    assert_eq!(given(&first), ["10.1.2.2/24", "10.1.3.2/30"]);
    assert_eq!(first.routes.len(), 1);
    add(&request(dir.path(), "b", two)).unwrap_err();
    assert!(
        !dir.path().join("net/10.1.2.3").exists(),
        "what the first set gave went back"
    );
}

#[test]
fn requested_addresses_come_from_arguments_configuration_and_capabilities() {
    let dir = tempfile::tempdir().unwrap();
    let mut by_arg = request(dir.path(), "a", small());
    by_arg.args = vec![
        ("IgnoreUnknown".to_owned(), "1".to_owned()),
        ("K8S_POD_NAME".to_owned(), "p".to_owned()),
        ("IP".to_owned(), "10.1.2.6".to_owned()),
    ];
    assert_eq!(given(&add(&by_arg).unwrap()), ["10.1.2.6/29"]);
    let mut by_conf = request(dir.path(), "b", small());
    by_conf.config["args"] = json!({"cni": {"ips": ["10.1.2.5"]}});
    assert_eq!(given(&add(&by_conf).unwrap()), ["10.1.2.5/29"]);
    let mut by_capability = request(dir.path(), "c", small());
    by_capability.config["runtimeConfig"] = json!({"ips": ["10.1.2.4/29"]});
    assert_eq!(given(&add(&by_capability).unwrap()), ["10.1.2.4/29"]);
    let mut ranges = request(dir.path(), "d", small());
    ranges.config["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.7.0.0/24"}]]});
    assert_eq!(given(&add(&ranges).unwrap())[0], "10.7.0.2/24");
}

#[test]
fn a_requested_address_that_cannot_be_given_says_why() {
    let dir = tempfile::tempdir().unwrap();
    add(&request(dir.path(), "holder", small())).unwrap();
    for (ip, expected) in [
        ("10.1.2.2", "requested address 10.1.2.2 is taken"),
        (
            "10.1.2.1",
            "requested address 10.1.2.1 is the gateway of 10.1.2.0/29",
        ),
        (
            "10.9.9.9",
            "requested address 10.9.9.9 is in no range of network \"net\"",
        ),
        ("x", "requested address \"x\" is not an address"),
        (
            "fd00::1",
            "requested address fd00::1 is in no range of network \"net\"",
        ),
    ] {
        let mut r = request(dir.path(), "asker", small());
        r.args = vec![("IP".to_owned(), ip.to_owned())];
        let failure = add(&r).unwrap_err().to_string();
        assert!(failure.contains(expected), "{ip}: {failure}");
        assert!(
            !dir.path().join("net/10.1.2.3").exists(),
            "{ip}: nothing stays reserved"
        );
    }
    let mut unknown = request(dir.path(), "asker", small());
    unknown.args = vec![("COLOUR".to_owned(), "red".to_owned())];
    assert!(
        add(&unknown)
            .unwrap_err()
            .to_string()
            .contains("unknown key \"COLOUR\"")
    );
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (ipam, expected) in [
        (json!({}), "no ranges"),
        (json!({"ranges": [[]]}), "range set 0: ipam: is empty"),
        (
            json!({"subnet": "10.1.2.0"}),
            "subnet \"10.1.2.0\" is not ADDRESS/LENGTH",
        ),
        (
            json!({"subnet": "10.1.2.0/31"}),
            "subnet 10.1.2.0/31 is too small",
        ),
        (
            json!({"subnet": "10.1.2.5/24"}),
            "has host bits set; the network is 10.1.2.0/24",
        ),
        (
            json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}),
            "rangeStart 10.1.3.1 is not in subnet 10.1.2.0/24",
        ),
        (
            json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}),
            "rangeStart 10.1.2.9 is after rangeEnd 10.1.2.8",
        ),
        (
            json!({"subnet": "10.1.2.0/24", "gateway": "router"}),
            "gateway \"router\" is not an address",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.1.2.0/24"}]]}),
            "range set 0 overlaps with 1",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "10.1.2.0/24"}]]}),
            "overlaps with 10.1.2.1-10.1.2.254",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "fd00::/64"}]]}),
            "IPv4 and IPv6 ranges cannot be alternatives",
        ),
        (
            json!({"subnet": "fd00::/127"}),
            "subnet fd00::/127 is too small",
        ),
        (json!({"subnet": 5}), "invalid type"),
    ] {
        let failure = add(&request(dir.path(), "a", ipam.clone()))
            .unwrap_err()
            .to_string();
        assert!(failure.contains(expected), "{ipam}: {failure}");
    }
    assert!(
        !dir.path().join("net").exists(),
        "nothing is touched before the configuration is understood"
    );
}

#[test]
fn del_without_any_reservation_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    del(&request(dir.path(), "a", small())).unwrap();
    assert!(!dir.path().join("net").exists());
}

#[test]
fn the_end_of_the_address_space_is_no_special_place() {
    let dir = tempfile::tempdir().unwrap();
    let last = json!({"subnet": "255.255.255.0/24", "rangeStart": "255.255.255.254", "rangeEnd": "255.255.255.255"});
    for expected in ["255.255.255.254/24", "255.255.255.255/24"] {
        assert_eq!(
            given(
                &add(&request(
                    dir.path(),
                    expected.split('/').next().unwrap(),
                    last.clone()
                ))
                .unwrap()
            ),
            [expected]
        );
    }
    add(&request(dir.path(), "more", last)).unwrap_err();
}

/// What a kill between the two names of a reservation leaves.
#[test]
fn a_torn_reservation_does_not_change_whose_address_it_is() {
    let dir = tempfile::tempdir().unwrap();
    add(&request(dir.path(), "a", small())).unwrap();
    let net = dir.path().join("net");
    std::fs::hard_link(net.join("10.1.2.2"), net.join(".reservation")).unwrap();
    assert_eq!(
        given(&add(&request(dir.path(), "b", small())).unwrap()),
        ["10.1.2.3/29"]
    );
    assert_eq!(
        std::fs::read_to_string(net.join("10.1.2.2")).unwrap(),
        "a\r\neth0"
    );
}

#[test]
fn the_index_follows_whatever_others_do_to_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let ask = |name: &str| add(&request(dir.path(), name, small())).map(|r| given(&r)[0].clone());
    ask("a").unwrap();
    ask("b").unwrap();
    // Another plugin releases a's address and gives it to c, who then asks us.
    std::fs::remove_file(net.join("10.1.2.2")).unwrap();
    std::fs::write(net.join("10.1.2.2"), "c\r\neth0").unwrap();
    assert!(
        ask("c")
            .unwrap_err()
            .to_string()
            .contains("10.1.2.2 has been allocated to c")
    );
    assert_eq!(ask("a").unwrap(), "10.1.2.4/29");
    // And releases b's with its entry in the index, as the reference plugin does, or without.
    std::fs::remove_file(net.join("10.1.2.3")).unwrap();
    del(&request(dir.path(), "b", small())).unwrap();
    for name in ["a", "c"] {
        del(&request(dir.path(), name, small())).unwrap();
    }
    assert_eq!(
        std::fs::read_dir(net.join(".owners")).unwrap().count(),
        0,
        "no stale entries"
    );
    let left: Vec<_> = std::fs::read_dir(&net)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n.to_string_lossy().starts_with("10."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_directory_without_an_index_works_and_an_emptied_reservation_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    add(&request(dir.path(), "a", small())).unwrap();
    add(&request(dir.path(), "b", small())).unwrap();
    std::fs::remove_dir_all(net.join(".owners")).unwrap();
    assert!(
        add(&request(dir.path(), "a", small()))
            .unwrap_err()
            .to_string()
            .contains("10.1.2.2 has been allocated to a")
    );
    del(&request(dir.path(), "a", small())).unwrap();
    assert!(!net.join("10.1.2.2").exists());
    add(&request(dir.path(), "c", small())).unwrap();
    std::fs::write(net.join("10.1.2.4"), "").unwrap();
    del(&request(dir.path(), "c", small())).unwrap();
    assert!(!net.join("10.1.2.4").exists());
}

#[test]
fn a_range_set_of_each_family_gives_an_address_of_each() {
    let dir = tempfile::tempdir().unwrap();
    let both = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]]});
    let ask = |name: &str| add(&request(dir.path(), name, both.clone())).unwrap();
    let first = ask("a");
    assert_eq!(given(&first), ["10.1.2.2/24", "fd00:1:2::2/64"]);
    assert_eq!(first.ips[1].gateway, Some("fd00:1:2::1".parse().unwrap()));
    assert_eq!(given(&ask("b")), ["10.1.2.3/24", "fd00:1:2::3/64"]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("net").join(name)).unwrap();
    assert_eq!(read("fd00:1:2::2"), "a\r\neth0");
    del(&request(dir.path(), "a", both.clone())).unwrap();
    assert!(!dir.path().join("net/fd00:1:2::2").exists());
    // From the end of the range to its start again, in a subnet that nobody could walk through.
    let net = dir.path().join("net");
    std::fs::write(
        net.join("last_reserved_ip.1"),
        "fd00:1:2:0:ffff:ffff:ffff:fffe",
    )
    .unwrap();
    assert_eq!(given(&ask("c"))[1], "fd00:1:2:0:ffff:ffff:ffff:ffff/64");
    assert_eq!(given(&ask("d"))[1], "fd00:1:2::2/64");
    let mut asked = request(dir.path(), "e", both.clone());
    asked.config["runtimeConfig"] = json!({"ips": ["fd00:1:2::77/64"]});
    assert_eq!(given(&add(&asked).unwrap())[1], "fd00:1:2::77/64");
}

#[test]
fn check_says_what_is_missing_and_gc_releases_what_nobody_knows() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |name: &str| request(dir.path(), name, small());
    for name in ["a", "b", "c"] {
        add(&ask(name)).unwrap();
        check(&ask(name)).unwrap();
    }
    let mut gc = ask("");
    gc.config["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);
    collect(&gc).unwrap();
    collect(&gc).unwrap();
    check(&ask("b")).unwrap();
    let error = check(&ask("a")).unwrap_err().to_string();
    assert!(
        error.contains(
            "no address of 10.1.2.1-10.1.2.6 is reserved for container a, interface eth0"
        ),
        "{error}"
    );
    assert!(!dir.path().join("net/10.1.2.4").exists());
    gc.config = ask("").config;
    let error = collect(&gc).unwrap_err().to_string();
    assert!(
        error.contains("GC needs \"cni.dev/valid-attachments\""),
        "{error}"
    );
    check(&ask("b")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a model that is a set of addresses: no address twice, none outside the ranges, never the gateway,
    /// a failure exactly when all are taken, and after every DEL the address is free again.
    #[test]
    fn allocation_agrees_with_a_set(prefix in 26u8..=29, from in 0u32..8, span in 0u32..24, steps in prop::collection::vec((any::<bool>(), 0usize..24), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let size = 1u32 << (32 - prefix);
        let start = (1 + from).min(size - 2);
        let end = (start + span).min(size - 2);
        let at = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a05_0000 + n));
        let ipam = json!({"subnet": format!("10.5.0.0/{prefix}"), "rangeStart": at(start), "rangeEnd": at(end)});
        let usable: BTreeSet<IpAddr> = (start..=end).map(at).filter(|a| *a != at(1)).collect();
        let mut held: std::collections::BTreeMap<usize, IpAddr> = std::collections::BTreeMap::new();
        for (adding, who) in steps {
            let r = request(dir.path(), &format!("c{who}"), ipam.clone());
            if !adding {
                del(&r).unwrap();
                held.remove(&who);
                continue;
            }
            match add(&r) {
                Ok(result) => {
                    let got = result.ips[0].address.addr();
                    prop_assert!(usable.contains(&got), "{got} is not usable");
                    prop_assert!(!held.values().any(|a| *a == got), "{got} is given twice");
                    prop_assert!(held.insert(who, got).is_none());
                }
                Err(_) => prop_assert!(held.contains_key(&who) || held.len() == usable.len()),
            }
        }
    }
}
