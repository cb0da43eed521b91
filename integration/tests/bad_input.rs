//! Bad input gets a clear error with the right code, leaves nothing behind, and the daemon lives on.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::crictl::{pod, shell};
use integration::image::{Layer, TestImage};
use integration::node::{Node, Options};
use integration::registry::{Registry, free_port};
use integration::{bin, command, wait};
use serde_json::{Value, json};

const IMAGE: &str = "davit.test/busybox:1";
const TOOLS: &[&str] = &["crictl", "busybox", "docker-registry", "skopeo", "nft"];

/// Runs `act`, checks its error, that nothing is left, and that the daemon still answers.
fn refused(
    node: &mut Node,
    what: &str,
    code: &str,
    words: &[&str],
    act: impl FnOnce(&Node) -> command::Outcome,
) {
    eprintln!("--- {what} ---");
    let before = node.scope().snapshot();
    let error = act(node).err();
    assert!(
        error.contains(&format!("code = {code}")),
        "{what}: expected {code}: {error}"
    );
    for word in words {
        assert!(
            error.contains(word),
            "{what}: the error names {word:?}: {error}"
        );
    }
    assert!(node.daemon_is_alive(), "{what}: the daemon lives");
    node.nothing_is_left_since(&before, what);
}

#[test]
fn broken_pods_and_containers_are_refused_with_the_field_s_name() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let mut node = Node::start();
    node.import(&TestImage::busybox(), IMAGE);
    let good = pod("good", node.dir());
    let pod_id = node.crictl().run_pod(&good);

    let mut host_port = pod("port", node.dir());
    host_port["port_mappings"] = json!([{"container_port": 80, "host_port": 65536}]);
    refused(
        &mut node,
        "a host port",
        "InvalidArgument",
        &["port_mappings[0].host_port", "65536"],
        |node| {
            let file = node.crictl().file("port.json", &host_port);
            node.crictl().run(&["runp", &file])
        },
    );
    let cases: Vec<(&str, Value, &str, Vec<&str>)> = vec![
        (
            "an unknown image",
            json!({"image": {"image": "davit.test/nosuch:1"}}),
            "NotFound",
            vec!["davit.test/nosuch:1"],
        ),
        (
            "run_as_group alone",
            json!({"linux": {"security_context": {"run_as_group": {"value": 5}}}}),
            "InvalidArgument",
            vec!["run_as_group"],
        ),
        (
            "an unknown capability",
            json!({"linux": {"security_context": {"capabilities": {"add_capabilities": ["NO_SUCH"]}}}}),
            "InvalidArgument",
            vec!["NO_SUCH"],
        ),
        (
            "a mount without a destination",
            json!({"mounts": [{"host_path": "/tmp", "container_path": ""}]}),
            "InvalidArgument",
            vec!["container_path"],
        ),
        (
            "a user that does not exist",
            json!({"linux": {"security_context": {"run_as_username": "nobodyhere"}}}),
            "InvalidArgument",
            vec!["nobodyhere"],
        ),
        (
            "privileged in a plain pod",
            json!({"linux": {"security_context": {"privileged": true}}}),
            "InvalidArgument",
            vec!["privileged"],
        ),
        (
            "a seccomp profile",
            json!({"linux": {"security_context": {"seccomp": {"profile_type": 2, "localhost_ref": "/nosuch.json"}}}}),
            "InvalidArgument",
            vec!["seccomp", "/nosuch.json", "ENOENT"],
        ),
    ];
    for (what, change, code, words) in cases {
        let mut config = shell("bad", IMAGE, "true");
        for (key, value) in change.as_object().expect("an object") {
            config[key] = value.clone();
        }
        refused(&mut node, what, code, &words, |node| {
            node.crictl().try_create(&pod_id, &config, &good)
        });
    }
    refused(
        &mut node,
        "an unknown pod",
        "NotFound",
        &["nosuchpod"],
        |node| {
            node.crictl()
                .try_create("nosuchpod", &shell("x", IMAGE, "true"), &good)
        },
    );
    assert_eq!(node.crictl().ok(&["ps", "-a", "-q"]), "");
}

#[test]
fn a_registry_that_lies_fails_or_is_not_there_gives_a_clear_error() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let mut node = Node::start();
    let registry = Registry::start();
    let host = registry.host();
    let port = free_port();
    let nobody = format!("127.0.0.1:{port}/davit/x:1");
    refused(
        &mut node,
        "an unreachable registry",
        "Unknown",
        &[
            "RegistryUnavailable",
            &format!("127.0.0.1:{port}"),
            "connection refused",
        ],
        |node| node.crictl().run(&["pull", &nobody]),
    );
    let missing = format!("{host}/davit/nosuch:1");
    refused(
        &mut node,
        "an unknown repository",
        "NotFound",
        &["davit/nosuch"],
        |node| node.crictl().run(&["pull", &missing]),
    );
    refused(
        &mut node,
        "a reference that is none",
        "InvalidArgument",
        &["UPPER"],
        |node| node.crictl().run(&["pull", "davit.test/UPPER:1"]),
    );

    let image = registry.push(
        &TestImage::busybox().with_files(&[("unique", b"lying layer")]),
        "davit/lying:1",
    );
    damage_biggest_blob(&registry.storage());
    refused(
        &mut node,
        "a layer with another digest",
        "Internal",
        &["sha256:"],
        |node| node.crictl().run(&["pull", &image]),
    );

    let manifest = serve_manifest(
        "{\"schemaVersion\": 2, \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"config\": 5}",
    );
    refused(
        &mut node,
        "a manifest that is not one",
        "Internal",
        &["manifest"],
        |node| node.crictl().run(&["pull", &manifest]),
    );
    let old = serve_manifest("{\"schemaVersion\": 1, \"name\": \"x\", \"tag\": \"1\"}");
    refused(
        &mut node,
        "a schema 1 manifest",
        "Unimplemented",
        &["schema 1"],
        |node| node.crictl().run(&["pull", &old]),
    );

    let foreign = registry.push(
        &TestImage::busybox().for_platforms(&["arm64", "s390x"]),
        "davit/foreign:1",
    );
    refused(
        &mut node,
        "no image for this platform",
        "Unimplemented",
        &["linux/amd64", "linux/arm64"],
        |node| node.crictl().run(&["pull", &foreign]),
    );
}

#[test]
fn layers_that_try_to_leave_their_directory_are_refused_with_the_entry_s_name() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let mut node = Node::start();
    let registry = Registry::start();
    let target = node.path("escaped");
    let mut hostile = Layer::new();
    hostile.link("out", &node.dir().to_string_lossy());
    hostile.file("out/escaped", 0o644, b"gotcha");
    let image = registry.push(
        &TestImage::busybox().with_layer(hostile.finish()),
        "davit/hostile:1",
    );
    let pulled = node.crictl().run(&["pull", &image]);
    assert!(
        !target.exists(),
        "nothing may be written outside of the layer"
    );
    if pulled.code != 0 {
        assert!(pulled.clone().err().contains("out/escaped"), "{pulled}");
    }
    assert!(node.daemon_is_alive());
}

#[test]
fn a_full_disk_fails_the_pull_leaves_nothing_and_what_runs_can_still_be_stopped() {
    if bin::skipped_for_want_of(&[
        "crictl",
        "busybox",
        "docker-registry",
        "skopeo",
        "nft",
        "mkfs.ext4",
    ]) {
        return;
    }
    let disk = SmallDisk::new(24);
    let mut node = Node::start_with(Options {
        state_dir: Some(disk.mount.clone()),
        ..Options::default()
    });
    node.import(&TestImage::busybox(), IMAGE);
    let crictl = node.crictl();
    let config = pod("running", node.dir());
    let pod_id = crictl.run_pod(&config);
    let container = crictl.create_and_start(&pod_id, &shell("main", IMAGE, "sleep 1000"), &config);
    let registry = Registry::start();
    let noise: Vec<u8> = (0..40_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    let big = registry.push(
        &TestImage::busybox().with_files(&[("noise", &noise)]),
        "davit/big:1",
    );
    refused(
        &mut node,
        "a full disk",
        "ResourceExhausted",
        &["no space left on device"],
        |node| node.crictl().run(&["pull", &big]),
    );
    // Fill what is left, then stop and remove.
    let filler = disk.mount.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&noise[..65536]).is_ok() {}
    assert_eq!(
        crictl.ok(&["stop", "--timeout", "0", &container]),
        container
    );
    assert!(crictl.ok(&["rmp", "-f", &pod_id]).contains("Removed"));
    assert_eq!(crictl.ok(&["pods", "-q"]), "");
    std::fs::remove_file(filler).expect("the filler goes");
}

#[test]
fn a_missing_cni_plugin_is_named_with_the_directories_searched() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let mut node = Node::start();
    node.write_network("nosuchplugin");
    node.restart();
    let config = pod("noplugin", node.dir());
    refused(
        &mut node,
        "a missing CNI plugin",
        "Internal",
        &["nosuchplugin"],
        |node| {
            let file = node.crictl().file("noplugin.json", &config);
            node.crictl().run(&["runp", &file])
        },
    );
    // Once the configuration is right the same request works.
    node.write_network("bridge");
    node.restart();
    assert_eq!(node.crictl().run_pod(&config).len(), 64);
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused_with_a_reason() {
    if bin::skipped_for_want_of(&["crictl"]) {
        return;
    }
    let mut node = Node::start();
    let second = command::run(bin::ours("davit-cri"), node.daemon_args());
    let error = second.err();
    assert!(
        error.contains("another process") || error.contains("another davit-cri"),
        "{error}"
    );
    assert!(node.daemon_is_alive());
    assert_eq!(
        node.crictl().ok(&["pods", "-q"]),
        "",
        "the first one still answers"
    );
}

/// A file system too small for a big image.
struct SmallDisk {
    mount: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

// === impl SmallDisk ===

impl SmallDisk {
    fn new(megabytes: u64) -> SmallDisk {
        let dir = tempfile::Builder::new()
            .prefix("davit-disk-")
            .tempdir()
            .expect("a temporary directory");
        let (image, mount) = (dir.path().join("disk"), dir.path().join("mount"));
        std::fs::create_dir(&mount).expect("the mount point");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(megabytes << 20))
            .expect("the disk's file");
        let _made = command::run(
            bin::genuine("mkfs.ext4").expect("mkfs.ext4"),
            ["-q", "-m", "0", &image.to_string_lossy()],
        )
        .ok();
        let mut loop_mount = Command::new("mount");
        loop_mount.args(["-o", "loop"]).arg(&image).arg(&mount);
        let _mounted = command::outcome(&mut loop_mount).ok();
        SmallDisk { mount, _dir: dir }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        wait::until_true(
            "the small disk is unmounted",
            Duration::from_secs(10),
            || nix::mount::umount2(&self.mount, nix::mount::MntFlags::empty()).is_ok(),
        );
    }
}

/// Overwrites one byte in the middle of the registry's biggest blob.
fn damage_biggest_blob(storage: &Path) {
    let mut files = Vec::new();
    collect(storage, &mut files);
    let (_, path) = files.into_iter().max().expect("a blob");
    let mut bytes = std::fs::read(&path).expect("the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(path, bytes).expect("the damaged blob");
}

fn collect(dir: &Path, files: &mut Vec<(u64, std::path::PathBuf)>) {
    for entry in std::fs::read_dir(dir).expect("the storage").flatten() {
        let kind = entry.metadata().expect("its metadata");
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if entry.file_name() == "data" {
            files.push((kind.len(), entry.path()));
        }
    }
}

/// A server that answers every request with one manifest; returns a reference to it.
fn serve_manifest(manifest: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{manifest}",
                manifest.len()
            );
            drop(stream.write_all(head.as_bytes()));
        }
    });
    format!("{address}/davit/broken:1")
}
