//! Every request against a real kernel, in network namespaces of the tests' own.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use netlink::nft::{
    Batch, Chain, ChainKind, CtKey, Element, Expr, Family, Hook, MetaKey, Nft, Set, SetData,
    SetKey, Table, Verdict,
};
use netlink::{Bridge, LinkChange, Mac, PortFlags, RouteSpec, Rtnl, Veth, VethEnd};
use sys::netns::NetNs;

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// None where namespaces cannot be made; with `MUST_WORK=1` they must.
    fn new() -> Option<Namespace> {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("MUST_WORK").is_none(),
                "these tests need root"
            );
            eprintln!("skipped: making network namespaces needs root");
            return None;
        }
        let name = format!(
            "nlt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        assert!(
            Command::new("ip")
                .args(["netns", "add", &name])
                .status()
                .unwrap()
                .success()
        );
        Some(Namespace {
            path: Path::new("/run/netns").join(name),
        })
    }

    fn open(&self) -> NetNs {
        NetNs::open(&self.path).unwrap()
    }

    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.open().run(f).unwrap()
    }

    fn rtnl(&self) -> Rtnl {
        Rtnl::open_in(&self.open()).unwrap()
    }

    fn nft(&self) -> Nft {
        self.run(|| Nft::open().unwrap())
    }

    /// What `nft list ruleset` says: somebody else's reading of what we wrote.
    fn ruleset(&self) -> String {
        let output = self.run(|| {
            Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .unwrap()
        });
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let name = self.path.file_name().unwrap_or_default();
        Command::new("ip")
            .args(["netns", "delete"])
            .arg(name)
            .status()
            .ok();
    }
}

fn end(name: &str) -> VethEnd<'_> {
    VethEnd {
        name,
        ..VethEnd::default()
    }
}

#[test]
fn a_bridge_is_made_found_changed_and_deleted() {
    let Some(ns) = Namespace::new() else { return };
    let mut rtnl = ns.rtnl();
    assert_eq!(rtnl.link_by_name("br0").unwrap(), None);
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let bridge = Bridge {
        name: "br0",
        mtu: Some(1400),
        mac: Some(mac),
    };
    rtnl.add_bridge(&bridge).unwrap();
    let link = rtnl.link_by_name("br0").unwrap().unwrap();
    assert_eq!(
        (link.kind.as_str(), link.mtu, link.mac, link.up),
        ("bridge", 1400, Some(mac), false)
    );
    assert_eq!(rtnl.link_by_index(link.index).unwrap().unwrap(), link);

    let error = rtnl.add_bridge(&bridge).unwrap_err();
    assert!(error.already_exists());
    assert_eq!(
        error.to_string(),
        "link \"br0\": RTM_NEWLINK(kind=bridge): file exists (EEXIST)"
    );

    let change = LinkChange {
        up: Some(true),
        mtu: Some(1300),
        promiscuous: Some(true),
        ..LinkChange::default()
    };
    rtnl.change_link(&link, &change).unwrap();
    let now = rtnl.link_by_name("br0").unwrap().unwrap();
    assert_eq!((now.up, now.mtu, now.promiscuous), (true, 1300, true));

    rtnl.delete_link(&link).unwrap();
    let error = rtnl.delete_link(&link).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "link \"br0\": RTM_DELLINK: no such device (ENODEV)"
    );
}

#[test]
fn a_veth_pair_spans_two_namespaces_and_dies_as_one() {
    let (Some(near), Some(far)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    let (mut here, mut there) = (near.rtnl(), far.rtnl());
    here.add_bridge(&Bridge {
        name: "br0",
        ..Bridge::default()
    })
    .unwrap();
    let bridge = here.link_by_name("br0").unwrap().unwrap();
    let far_ns = far.open();
    let macs = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let veth = Veth {
        near: VethEnd {
            mac: Some(macs.0),
            mtu: Some(1400),
            ..end("host0")
        },
        near_up: true,
        master: Some(bridge.index),
        far: VethEnd {
            mac: Some(macs.1),
            mtu: Some(1400),
            ..end("eth0")
        },
        far_netns: far_ns.as_fd(),
    };
    here.add_veth(&veth).unwrap();
    let (host0, eth0) = (
        here.link_by_name("host0").unwrap().unwrap(),
        there.link_by_name("eth0").unwrap().unwrap(),
    );
    assert_eq!(
        (host0.kind.as_str(), host0.master, host0.mac, host0.up),
        ("veth", Some(bridge.index), Some(macs.0), true)
    );
    assert_eq!(
        (eth0.mac, eth0.mtu, eth0.up, eth0.peer),
        (Some(macs.1), 1400, false, Some(host0.index))
    );
    assert_eq!(
        here.link_by_name("eth0").unwrap(),
        None,
        "the far end is never in the near namespace"
    );

    here.change_port(
        &host0,
        PortFlags {
            hairpin: Some(true),
            isolated: Some(true),
        },
    )
    .unwrap();
    let details = near.run(|| {
        Command::new("bridge")
            .args(["-d", "link", "show"])
            .output()
            .unwrap()
    });
    let details = String::from_utf8(details.stdout).unwrap();
    assert!(
        details.contains("hairpin on") && details.contains("isolated on"),
        "{details}"
    );

    here.change_link(
        &host0,
        &LinkChange {
            master: Some(None),
            ..LinkChange::default()
        },
    )
    .unwrap();
    assert_eq!(here.link_by_name("host0").unwrap().unwrap().master, None);
    here.delete_link(&host0).unwrap();
    assert_eq!(there.link_by_name("eth0").unwrap(), None);
}

#[test]
fn a_name_that_is_taken_on_the_far_side_makes_nothing_on_the_near() {
    let (Some(near), Some(far)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    let far_ns = far.open();
    far.rtnl()
        .add_bridge(&Bridge {
            name: "eth0",
            ..Bridge::default()
        })
        .unwrap();
    let mut here = near.rtnl();
    let error = here
        .add_veth(&Veth {
            near: end("host0"),
            near_up: false,
            master: None,
            far: end("eth0"),
            far_netns: far_ns.as_fd(),
        })
        .unwrap_err();
    assert!(error.already_exists(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("link \"host0\": RTM_NEWLINK(kind=veth, peer=\"eth0\", peer netns="),
        "{error}"
    );
    assert_eq!(here.link_by_name("host0").unwrap(), None);
}

#[test]
fn addresses_and_routes_come_and_go() {
    let Some(ns) = Namespace::new() else { return };
    let mut rtnl = ns.rtnl();
    for name in ["br0", "br1"] {
        rtnl.add_bridge(&Bridge {
            name,
            ..Bridge::default()
        })
        .unwrap();
    }
    let link = rtnl.link_by_name("br0").unwrap().unwrap();
    rtnl.change_link(
        &link,
        &LinkChange {
            up: Some(true),
            ..LinkChange::default()
        },
    )
    .unwrap();
    let net = "10.7.0.1/24".parse().unwrap();
    rtnl.add_address(&link, net).unwrap();
    assert_eq!(
        rtnl.addresses(&link)
            .unwrap()
            .iter()
            .map(|a| a.net)
            .filter(|n| n.addr().is_ipv4())
            .collect::<Vec<_>>(),
        [net]
    );
    let other = rtnl.link_by_name("br1").unwrap().unwrap();
    assert!(
        rtnl.addresses(&other).unwrap().is_empty(),
        "another link's addresses are not in the answer"
    );
    let error = rtnl.add_address(&link, net).unwrap_err().to_string();
    assert!(
        error.starts_with("link \"br0\": RTM_NEWADDR(10.7.0.1/24): file exists (EEXIST)"),
        "{error}"
    );

    let gateway: IpAddr = "10.7.0.9".parse().unwrap();
    let spec = RouteSpec {
        mtu: Some(1280),
        priority: Some(7),
        ..RouteSpec::new("203.0.113.0/24".parse().unwrap(), Some(gateway))
    };
    rtnl.add_route(&link, &spec).unwrap();
    let found = rtnl
        .routes()
        .unwrap()
        .into_iter()
        .find(|r| r.dst == spec.dst)
        .unwrap();
    assert_eq!(
        (found.gateway, found.link, found.priority, found.table),
        (Some(gateway), Some(link.index), 7, 254)
    );
    let elsewhere = RouteSpec {
        table: Some(1000),
        ..RouteSpec::new("0.0.0.0/0".parse().unwrap(), Some(gateway))
    };
    rtnl.add_route(&link, &elsewhere).unwrap();
    assert!(
        rtnl.routes()
            .unwrap()
            .iter()
            .any(|r| r.table == 1000 && r.dst.prefix_len() == 0)
    );
    rtnl.delete_route(&link, &spec).unwrap();
    let error = rtnl.delete_route(&link, &spec).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        "link \"br0\": RTM_DELROUTE(203.0.113.0/24 via 10.7.0.9): no such process (ESRCH)"
    );
    let nowhere = RouteSpec::new(
        "1.0.0.0/8".parse().unwrap(),
        Some("192.0.2.1".parse().unwrap()),
    );
    let error = rtnl.add_route(&link, &nowhere).unwrap_err().to_string();
    assert!(
        error.contains("network is unreachable (ENETUNREACH): Nexthop has invalid gateway"),
        "{error}"
    );

    rtnl.delete_address(&link, net).unwrap();
    assert!(rtnl.delete_address(&link, net).unwrap_err().is_not_found());
}

/// A dump that the kernel marks as interrupted is asked for again: links that stay are in every answer, once.
#[test]
fn a_dump_is_whole_while_others_change_the_table() {
    let Some(ns) = Namespace::new() else { return };
    let mut rtnl = ns.rtnl();
    let stays: Vec<String> = (0..40).map(|n| format!("stay{n}")).collect();
    for name in &stays {
        rtnl.add_bridge(&Bridge {
            name,
            ..Bridge::default()
        })
        .unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rtnl = ns.rtnl();
            while !stop.load(Ordering::Relaxed) {
                rtnl.add_bridge(&Bridge {
                    name: "blink",
                    ..Bridge::default()
                })
                .unwrap();
                let link = rtnl.link_by_name("blink").unwrap().unwrap();
                rtnl.delete_link(&link).unwrap();
            }
        });
        for _ in 0..50 {
            let links = rtnl.links().unwrap();
            for name in &stays {
                assert_eq!(
                    links.iter().filter(|l| l.name == *name).count(),
                    1,
                    "{name}"
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_connection_stays_in_its_namespace_and_serves_any_thread() {
    let Some(ns) = Namespace::new() else { return };
    let mut rtnl = ns.rtnl();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rtnl.add_bridge(&Bridge {
                name: "only-there",
                ..Bridge::default()
            })
            .unwrap()
        });
    });
    assert!(ns.rtnl().link_by_name("only-there").unwrap().is_some());
    assert_eq!(
        Rtnl::open().unwrap().link_by_name("only-there").unwrap(),
        None
    );
}

const TABLE: Table<'static> = Table {
    family: Family::Inet,
    name: "t",
};

fn base(name: &str, hook: Hook, kind: ChainKind, priority: i32) -> Chain<'_> {
    Chain {
        name,
        base: Some((kind, hook, priority)),
    }
}

#[test]
fn rules_are_read_by_nft_as_they_were_meant() {
    let Some(ns) = Namespace::new() else { return };
    let mut batch = Batch::new();
    batch
        .add_table(TABLE)
        .add_set(
            TABLE,
            &Set {
                name: "ports",
                key: SetKey::Port,
                interval: false,
                data: None,
            },
        )
        .add_set(
            TABLE,
            &Set {
                name: "to",
                key: SetKey::Ipv4,
                interval: true,
                data: Some(SetData::Verdict),
            },
        )
        .add_chain(TABLE, &base("out", Hook::Postrouting, ChainKind::Nat, 100))
        .add_chain(TABLE, &base("in", Hook::Prerouting, ChainKind::Nat, -100))
        .add_chain(TABLE, &base("fwd", Hook::Forward, ChainKind::Filter, 0))
        .add_chain(
            TABLE,
            &Chain {
                name: "masq",
                base: None,
            },
        );
    let net = "10.8.0.0/16".parse().unwrap();
    let v4 = Expr::is_family_of("0.0.0.0".parse().unwrap());
    batch.add_rule(
        TABLE,
        "masq",
        &[
            v4.clone(),
            Expr::goes_to(net),
            vec![Expr::Verdict(Verdict::Return)],
        ]
        .concat(),
    );
    batch.add_rule(TABLE, "masq", &[Expr::Counter, Expr::Masquerade]);
    batch.add_element(
        TABLE,
        "to",
        &Element::subnet(net).to(Verdict::Goto("masq".to_owned())),
    );
    batch.add_rule(
        TABLE,
        "out",
        &[
            v4.clone(),
            vec![
                Expr::source("0.0.0.0".parse().unwrap()),
                Expr::VerdictMap("to".to_owned()),
            ],
        ]
        .concat(),
    );
    let dnat = Expr::DestinationNat {
        address: "10.8.0.2".parse().unwrap(),
        port: Some(8080),
    };
    let host: ipnet::IpNet = "192.0.2.1/32".parse().unwrap();
    batch.add_rule(
        TABLE,
        "in",
        &[
            v4,
            Expr::goes_to(host),
            vec![Expr::Meta(MetaKey::Transport), Expr::Equal(vec![6]), dnat],
        ]
        .concat(),
    );
    let established = [
        Expr::Ct(CtKey::State),
        Expr::Mask(vec![6, 0, 0, 0]),
        Expr::NotEqual(vec![0; 4]),
        Expr::Verdict(Verdict::Accept),
    ];
    batch.add_rule(TABLE, "fwd", &established);
    ns.nft().commit(&batch).unwrap();

    let rules = ns.ruleset();
    for expected in [
        "type nat hook postrouting priority srcnat; policy accept;",
        "type nat hook prerouting priority dstnat; policy accept;",
        "elements = { 10.8.0.0/16 : goto masq }",
        "ip daddr 10.8.0.0/16 return",
        "counter packets 0 bytes 0 masquerade",
        "ip saddr vmap @to",
        "ip daddr 192.0.2.1 meta l4proto tcp dnat ip to 10.8.0.2:8080",
        "ct state established,related accept",
    ] {
        assert!(rules.contains(expected), "{expected}:\n{rules}");
    }
    assert_eq!(ns.nft().tables(Family::Inet).unwrap(), ["t"]);
    let elements = ns.nft().elements(TABLE, "to").unwrap();
    assert_eq!(
        elements,
        [Element {
            key: vec![10, 8, 0, 0],
            end: None,
            verdict: Some(Verdict::Goto("masq".to_owned())),
            ..Element::default()
        }]
    );
}

#[test]
fn a_transaction_with_one_bad_step_changes_nothing_and_names_it() {
    let Some(ns) = Namespace::new() else { return };
    let mut batch = Batch::new();
    batch
        .add_table(TABLE)
        .add_rule(TABLE, "missing", &[Expr::Verdict(Verdict::Drop)])
        .add_chain(
            TABLE,
            &Chain {
                name: "fine",
                base: None,
            },
        );
    let error = ns.nft().commit(&batch).unwrap_err();
    assert_eq!(error.object, "chain \"inet t missing\"");
    assert!(
        error
            .to_string()
            .contains("NFT_MSG_NEWRULE([Verdict(Drop)]): no such file or directory (ENOENT)"),
        "{error}"
    );
    assert_eq!(ns.ruleset(), "");
    assert!(
        ns.nft().elements(TABLE, "none").unwrap().is_empty(),
        "a missing table has no elements"
    );
}

#[test]
fn the_same_transaction_twice_is_as_good_as_once_and_overlaps_are_refused() {
    let Some(ns) = Namespace::new() else { return };
    let mut nft = ns.nft();
    let set = Set {
        name: "nets",
        key: SetKey::Ipv4,
        interval: true,
        data: None,
    };
    let mut batch = Batch::new();
    batch.add_table(TABLE).add_set(TABLE, &set).add_element(
        TABLE,
        "nets",
        &Element::subnet("10.0.0.0/16".parse().unwrap()),
    );
    batch.add_element(
        TABLE,
        "nets",
        &Element::subnet("255.255.255.0/24".parse().unwrap()),
    );
    nft.commit(&batch).unwrap();
    let once = ns.ruleset();
    nft.commit(&batch).unwrap();
    assert_eq!(ns.ruleset(), once);
    assert!(
        once.contains("10.0.0.0/16, 255.255.255.0/24")
            || once.contains("255.255.255.0-255.255.255.255"),
        "{once}"
    );

    let mut overlap = Batch::new();
    overlap.add_element(
        TABLE,
        "nets",
        &Element::subnet("10.0.1.0/24".parse().unwrap()),
    );
    let error = nft.commit(&overlap).unwrap_err();
    assert!(error.already_exists(), "{error}");
    assert_eq!(error.object, "set \"inet t nets\"");

    let mut gone = Batch::new();
    gone.delete_element(
        TABLE,
        "nets",
        &Element::subnet("10.0.0.0/16".parse().unwrap()),
    )
    .delete_table(TABLE);
    nft.commit(&gone).unwrap();
    assert_eq!(ns.ruleset(), "");
    assert!(nft.commit(&gone).unwrap_err().is_not_found());
}

#[test]
fn transactions_of_many_at_once_all_arrive() {
    let Some(ns) = Namespace::new() else { return };
    std::thread::scope(|scope| {
        for n in 0..16 {
            let ns = &ns;
            scope.spawn(move || {
                let name = format!("c{n}");
                let mut batch = Batch::new();
                batch.add_table(TABLE).add_chain(
                    TABLE,
                    &Chain {
                        name: &name,
                        base: None,
                    },
                );
                ns.nft().commit(&batch).unwrap();
            });
        }
    });
    let rules = ns.ruleset();
    assert_eq!(
        (0..16)
            .filter(|n| rules.contains(&format!("chain c{n} {{")))
            .count(),
        16,
        "{rules}"
    );
}

#[test]
fn without_rights_the_error_says_what_was_tried() {
    let Some(ns) = Namespace::new() else { return };
    let error = ns.run(|| {
        // For this thread alone, which ends with the closure.
        let none = sys::creds::CapSet::default();
        sys::creds::set_capabilities(none, none, none).unwrap();
        Rtnl::open()
            .unwrap()
            .add_bridge(&Bridge {
                name: "davit0",
                ..Bridge::default()
            })
            .unwrap_err()
    });
    assert_eq!(
        error.to_string(),
        "link \"davit0\": RTM_NEWLINK(kind=bridge): operation not permitted (EPERM)"
    );
}
