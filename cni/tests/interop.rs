//! Each side with the genuine other side: our plugins under libcni's `cnitool`, the reference plugins under our
//! executor, and one taking down what the other made.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::*;
use sys::netns::NetNs;

/// Runs `cnitool` as the host. Its cache is under the given directory; it knows a container by its namespace's path.
fn cnitool(world: &World, verb: &str, network: &str, netns: &Path, bin_dir: &Path) -> Output {
    let tool = reference_dir().unwrap().join("cnitool");
    let mut command = Command::new(tool);
    command
        .args([verb, network])
        .arg(netns)
        .env("CNI_PATH", bin_dir)
        .env("NETCONFPATH", world.path("net.d"));
    world.host.run(|| command.output()).expect("run cnitool")
}

fn write_conflist(world: &World, conf: &Value) {
    std::fs::create_dir_all(world.path("net.d")).unwrap();
    std::fs::write(world.path("net.d/10-test.conflist"), conf.to_string()).unwrap();
}

fn result_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// libcni's default cache, to which `cnitool` gives no choice: the test's own entries are removed by the DEL in it.
fn cached_by_cnitool(network: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/var/lib/cni/results")
        .into_iter()
        .flatten();
    entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().contains(&format!("/{network}-")))
        .collect()
}

#[test]
fn our_plugins_work_under_genuine_libcni() {
    let Some(_) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let world = World::new();
        let mut conf = world.conflist("cnitool-a", "10.202.1.0/24", json!({}));
        conf["cniVersion"] = version.into();
        conf["plugins"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"type": "loopback"}));
        write_conflist(&world, &conf);
        let pod = world.pod();
        let result = result_of(&cnitool(
            &world,
            "add",
            "cnitool-a",
            &pod,
            &world.path("bin"),
        ));
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["address"], "10.202.1.2/24");
        assert_eq!(result["interfaces"][2]["sandbox"], pod.to_str().unwrap());
        let echo = NetNs::open(&pod)
            .unwrap()
            .run(|| Echo::listen("10.202.1.2".parse().unwrap()))
            .unwrap();
        assert_eq!(world.host.run(|| seen_from(echo.address)), "10.202.1.1");
        drop(echo);
        // The same namespace again and again: DEL really takes the interface away.
        let status = (version == "1.1.0").then_some("status");
        for verb in ["del", "del", "add", "del"].into_iter().chain(status) {
            let output = cnitool(&world, verb, "cnitool-a", &pod, &world.path("bin"));
            assert!(output.status.success(), "{version} {verb}: {output:?}");
        }
        assert!(files_of(&world).is_empty());
        assert!(cached_by_cnitool("cnitool-a").is_empty());
    }
}

fn files_of(world: &World) -> Vec<String> {
    world
        .inventory()
        .into_iter()
        .filter(|line| !line.starts_with("link") && !line.starts_with("table"))
        .collect()
}

#[test]
fn an_error_of_our_plugin_reaches_the_user_of_libcni() {
    let Some(_) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    let world = World::new();
    write_conflist(
        &world,
        &world.conflist("cnitool-b", "10.202.2.0/24", json!({"vlan": 5})),
    );
    let output = cnitool(&world, "add", "cnitool-b", &world.pod(), &world.path("bin"));
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("unsupported field \"vlan\": 5"), "{text}");
}

#[test]
fn the_executor_runs_the_reference_plugins_in_a_chain() {
    let Some(reference) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    let world = World::new();
    let mut conf = world.conflist("ref-a", "10.202.3.0/24", json!({}));
    conf["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}));
    let network = cni::NetworkList::parse(conf.to_string().as_bytes()).unwrap();
    let executor = world.executor_of(vec![reference]);
    world.host.run(|| executor.check_ready(&network)).unwrap();
    let pod = world.attachment("ref-pod");
    let result = world.host.run(|| executor.add(&network, &pod)).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.202.3.2/24");
    let netns = NetNs::open(pod.netns.as_deref().unwrap()).unwrap();
    assert_eq!(
        netns
            .run(|| std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap())
            .unwrap()
            .trim(),
        "500"
    );
    let echo = netns.run(|| Echo::listen(address(&result))).unwrap();
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.202.3.1");
    drop(echo);
    world.host.run(|| executor.del(&network, &pod)).unwrap();
    assert!(files_of(&world).is_empty(), "{:?}", files_of(&world));
}

#[test]
fn our_bridge_with_the_reference_host_local_and_the_other_way_round() {
    let Some(reference) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    for (name, ours, theirs) in [
        ("mix-a", "bridge", "host-local"),
        ("mix-b", "host-local", "bridge"),
    ] {
        let world = World::new();
        let mixed = world.path("mixed");
        std::fs::create_dir(&mixed).unwrap();
        std::os::unix::fs::symlink(davit_cni(), mixed.join(ours)).unwrap();
        std::os::unix::fs::symlink(reference.join(theirs), mixed.join(theirs)).unwrap();
        let executor = world.executor_of(vec![mixed]);
        let network = world.network(name, "10.202.4.0/24", json!({}));
        let pod = world.attachment("mixed-pod");
        let result = world.host.run(|| executor.add(&network, &pod)).unwrap();
        let reservation = std::fs::read_to_string(
            world
                .path("ipam")
                .join(name)
                .join(address(&result).to_string()),
        )
        .unwrap();
        assert_eq!(reservation, "mixed-pod\r\neth0");
        world.host.run(|| executor.del(&network, &pod)).unwrap();
        assert!(
            files_of(&world).is_empty(),
            "{name}: {:?}",
            files_of(&world)
        );
    }
}

#[test]
fn what_the_reference_plugins_made_ours_take_down_and_the_other_way_round() {
    let Some(reference) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    for reversed in [false, true] {
        let world = World::new();
        let network = world.network("swap", "10.202.5.0/24", json!({}));
        let (ours, theirs) = (world.executor(), world.executor_of(vec![reference.clone()]));
        let (adds, deletes) = if reversed {
            (&ours, &theirs)
        } else {
            (&theirs, &ours)
        };
        let pod = world.attachment("swap-pod");
        let links = |world: &World| {
            world
                .inventory()
                .into_iter()
                .filter(|l| l.starts_with("link veth"))
                .count()
        };
        world.host.run(|| adds.add(&network, &pod)).unwrap();
        assert_eq!(links(&world), 1);
        world.host.run(|| deletes.del(&network, &pod)).unwrap();
        assert_eq!(links(&world), 0);
        assert!(files_of(&world).is_empty(), "{:?}", files_of(&world));
    }
}

#[test]
fn a_cache_entry_of_libcni_is_read_and_ours_has_the_same_fields() {
    let Some(_) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    let world = World::new();
    let conf = world.conflist("cnitool-c", "10.202.6.0/24", json!({}));
    write_conflist(&world, &conf);
    let pod = world.pod();
    result_of(&cnitool(
        &world,
        "add",
        "cnitool-c",
        &pod,
        &world.path("bin"),
    ));
    let entry = cached_by_cnitool("cnitool-c")
        .pop()
        .expect("an entry of libcni");
    let theirs: Value = serde_json::from_slice(&std::fs::read(&entry).unwrap()).unwrap();
    // libcni's entry, in our cache: DEL by what it says.
    std::fs::create_dir_all(world.path("cache/results")).unwrap();
    std::fs::copy(
        &entry,
        world.path("cache/results").join(entry.file_name().unwrap()),
    )
    .unwrap();
    let id = theirs["containerId"].as_str().unwrap().to_owned();
    let cached = world
        .executor()
        .cached(&id, "eth0")
        .unwrap()
        .expect("our reader finds libcni's entry");
    assert_eq!(cached.network, "cnitool-c");
    world
        .host
        .run(|| world.executor().del_cached(&id, "eth0"))
        .unwrap();
    assert!(files_of(&world).is_empty(), "{:?}", files_of(&world));

    // And ours has libcni's fields.
    let network = cni::NetworkList::parse(conf.to_string().as_bytes()).unwrap();
    let attachment = cni::Attachment::new("own").in_netns(world.pod());
    world
        .host
        .run(|| world.executor().add(&network, &attachment))
        .unwrap();
    let ours: Value = serde_json::from_slice(
        &std::fs::read(world.path("cache/results/cnitool-c-own-eth0")).unwrap(),
    )
    .unwrap();
    let keys = |v: &Value| {
        v.as_object()
            .unwrap()
            .keys()
            .filter(|k| *k != "cniArgs" && *k != "capabilityArgs")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&ours), keys(&theirs));
    let output = cnitool(&world, "del", "cnitool-c", &pod, &world.path("bin"));
    assert!(output.status.success(), "{output:?}");
}

/// As [`cnitool`], with capability arguments as libcni hands them on in `runtimeConfig`.
fn cnitool_with(world: &World, verb: &str, netns: &Path, bin_dir: &Path, ports: &Value) -> Output {
    let tool = reference_dir().unwrap().join("cnitool");
    let mut command = Command::new(tool);
    command
        .args([verb, "ports"])
        .arg(netns)
        .env("CNI_PATH", bin_dir)
        .env("CAP_ARGS", json!({"portMappings": ports}).to_string())
        .env("NETCONFPATH", world.path("net.d"));
    world.host.run(|| command.output()).expect("run cnitool")
}

#[test]
fn our_portmap_under_libcni_does_what_the_reference_does() {
    let Some(reference) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    let mut answers = Vec::new();
    for theirs in [true, false] {
        let world = World::new();
        let mut conf = world.conflist("ports", "10.202.7.0/24", json!({}));
        conf["plugins"].as_array_mut().unwrap().push(json!({
            "type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables",
        }));
        write_conflist(&world, &conf);
        let mixed = world.path("mixed");
        std::fs::create_dir(&mixed).unwrap();
        for name in ["bridge", "host-local"] {
            std::os::unix::fs::symlink(davit_cni(), mixed.join(name)).unwrap();
        }
        let portmap = if theirs {
            reference.join("portmap")
        } else {
            davit_cni().into()
        };
        std::os::unix::fs::symlink(portmap, mixed.join("portmap")).unwrap();

        let pod = world.pod();
        let echo = NetNs::open(&pod)
            .unwrap()
            .run(|| Echo::listen("0.0.0.0".parse().unwrap()))
            .unwrap();
        let ports = json!([
            {"hostPort": 12000, "containerPort": echo.address.port(), "protocol": "tcp"},
            {"hostPort": 12001, "containerPort": echo.address.port(), "protocol": "tcp", "hostIP": "127.0.0.1"},
        ]);
        let mut result = result_of(&cnitool_with(&world, "add", &pod, &mixed, &ports));
        let seen = world.host.run(|| {
            ["127.0.0.1:12000", "10.202.7.1:12000", "127.0.0.1:12001"]
                .map(|at| seen_from(at.parse().unwrap()))
        });
        let from_itself = NetNs::open(&pod)
            .unwrap()
            .run(|| seen_from("10.202.7.1:12000".parse().unwrap()))
            .unwrap();
        let checked = cnitool_with(&world, "check", &pod, &mixed, &ports);
        let refused = world
            .host
            .run(|| std::net::TcpStream::connect("10.202.7.1:12001").is_err());
        let output = cnitool_with(&world, "del", &pod, &mixed, &ports);
        assert!(output.status.success(), "{output:?}");
        let gone = world
            .host
            .run(|| std::net::TcpStream::connect("10.202.7.1:12000").is_err());
        // Names and addresses of links differ by namespace.
        result["interfaces"] = Value::Null;
        answers.push((result, seen, from_itself, refused, gone));
        assert!(checked.status.success(), "{checked:?}");
    }
    assert_eq!(answers[0], answers[1], "the reference's and ours");
}
