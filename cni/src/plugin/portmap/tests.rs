use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::{Config, HostIp};
use super::*;
use crate::version::Version;

fn request(config: Value) -> Request {
    Request {
        command: "ADD".to_owned(),
        container_id: "pod".to_owned(),
        netns: None,
        ifname: "eth0".to_owned(),
        args: Vec::new(),
        path: Vec::new(),
        network: "net".to_owned(),
        version: Version::NEWEST,
        config,
    }
}

fn chained(mappings: Value, extra: Value) -> Value {
    let mut config = json!({
        "runtimeConfig": {"portMappings": mappings},
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "br"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [
                {"address": "10.9.9.9/24", "interface": 0},
                {"address": "10.1.2.3/24", "interface": 1},
                {"address": "fd00::3/64", "interface": 1},
                {"address": "10.1.2.4/24", "interface": 1},
            ],
        },
    });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn load(mappings: Value, extra: Value) -> Result<Config, Failure> {
    Config::load(&request(chained(mappings, extra)))
}

#[test]
fn the_first_address_of_each_family_of_the_containers_interface_is_mapped_to() {
    let config = load(
        json!([{"hostPort": 80, "containerPort": 8080, "protocol": "TCP"}]),
        json!({}),
    )
    .unwrap();
    let targets: Vec<String> = config.targets().map(|(_, net)| net.to_string()).collect();
    assert_eq!(targets, ["10.1.2.3/24", "fd00::3/64"]);
}

#[test]
fn a_host_address_chooses_the_family() {
    for (host_ip, expected) in [
        ("", 2),
        ("0.0.0.0", 1),
        ("::", 1),
        ("127.0.0.1", 1),
        ("fd00::1", 1),
    ] {
        let one =
            json!([{"hostPort": 80, "containerPort": 80, "protocol": "udp", "hostIP": host_ip}]);
        let config = load(one, json!({})).unwrap();
        assert_eq!(config.targets().count(), expected, "{host_ip:?}");
    }
}

#[test]
fn bad_requests_are_refused_with_their_place_and_value() {
    for (mapping, expected) in [
        (
            json!({"hostPort": 0, "containerPort": 80}),
            "portMappings[0]: hostPort 0 is not between 1 and 65535",
        ),
        (
            json!({"hostPort": 80, "containerPort": 65536}),
            "containerPort 65536 is not between",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}),
            "protocol \"icmp\" is none of tcp, udp and sctp",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}),
            "hostIP \"localhost\" is not an address",
        ),
    ] {
        let error = load(json!([mapping]), json!({})).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let twice =
        json!([{"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81}]);
    let error = load(twice, json!({})).unwrap_err().to_string();
    assert!(
        error.contains("host port 80/tcp is to lead to port 80 and to port 81"),
        "{error}"
    );
    let same = json!([{"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]);
    assert_eq!(load(same, json!({})).unwrap().mappings.len(), 1);
}

#[test]
fn what_the_reference_has_and_this_has_not_is_refused_by_name() {
    for (extra, expected) in [
        (
            json!({"backend": "iptables"}),
            "unsupported field \"backend\": iptables",
        ),
        (
            json!({"conditionsV4": ["-s", "1.2.3.4"]}),
            "unsupported field \"conditionsV4\": -s 1.2.3.4",
        ),
        (
            json!({"conditionsV6": ["-s", "::1"]}),
            "unsupported field \"conditionsV6\"",
        ),
        (
            json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}),
            "unsupported field \"externalSetMarkChain\"",
        ),
        (
            json!({"markMasqBit": 32}),
            "markMasqBit 32: is not between 0 and 31",
        ),
    ] {
        let error = load(json!([]), extra).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    load(
        json!([]),
        json!({"markMasqBit": 13, "snat": false, "backend": "nftables", "conditionsV4": []}),
    )
    .unwrap();
}

#[test]
fn a_first_plugin_has_nothing_to_map_to() {
    let error = add(&request(json!({}))).unwrap_err().to_string();
    assert!(error.contains("there is no \"prevResult\""), "{error}");
}

#[test]
fn an_owners_mark_fits_and_names_it_even_when_it_is_cut() {
    let long = "c".repeat(300);
    assert_ne!(
        Owner::new("net", &format!("{long}1"), "eth0"),
        Owner::new("net", &format!("{long}2"), "eth0")
    );
}

proptest! {
    #[test]
    fn any_configuration_is_read_or_refused(mappings in any_json(), extra in any_json()) {
        let mut config = chained(mappings, json!({}));
        if let Value::Object(extra) = extra {
            config.as_object_mut().unwrap().extend(extra);
        }
        if let Ok(config) = Config::load(&request(config)) {
            for (mapping, net) in config.targets() {
                prop_assert!(mapping.host_port != 0 && mapping.container_port != 0);
                if let HostIp::One(ip) = mapping.host_ip {
                    prop_assert_eq!(ip.is_ipv4(), net.addr().is_ipv4());
                }
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "hostPort",
        "containerPort",
        "protocol",
        "hostIP",
        "snat",
        "masqAll",
        "backend",
        "prevResult",
        "ips",
        "address",
        "interface",
        "runtimeConfig",
        "portMappings",
        "conditionsV4",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..70000).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "tcp",
            "SCTP",
            "::",
            "10.1.2.3",
            "10.1.2.3/24",
            "x"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}
