//! critest, the conformance suite of the container runtime interface: on davit-cri with each handler (`davit.rs`), and
//! on Debian's containerd with runc, and with davit-oci in its place: no spec that passes with runc may fail with ours.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod davit;
mod images;
mod known;
mod suite;

use integration::bin;
use integration::peer::{Containerd, ContainerdOptions};

use suite::{Specs, Suite, count};

/// Specs that no container takes part in, or that nobody can run here, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    (
        "Image Manager|Image Consistency|Image Identifier Consistency|RemoveImage",
        "about the image store: no OCI runtime is called, and one of the images exists nowhere but in its registry",
    ),
    (
        "AppArmor",
        "this kernel has none, they would skip themselves",
    ),
];
/// Most of the time a spec waits for a state.
const AT_ONCE: u32 = 8;

/// Runs critest on a fresh containerd; `None` is its own runtime, runc.
fn critest(runtime: Option<&std::path::Path>, focus: &str) -> Specs {
    let containerd = Containerd::start_with(ContainerdOptions {
        runtime: runtime.map(Into::into),
        host_ports: true,
    });
    images::import(&containerd);
    let suite = Suite {
        focus,
        skip: &LEFT_OUT.map(|(skip, _)| skip),
        at_once: Some(AT_ONCE),
        ..Suite::default()
    };
    suite.run(&containerd.socket(), || containerd.log())
}

/// Runs both and compares.
fn compare(focus: &str) {
    if bin::skipped_for_want_of(&[
        "critest",
        "ginkgo",
        "containerd",
        "runc",
        "ctr",
        "nginx",
        "busybox-dynamic",
        "nft",
    ]) {
        return;
    }
    for (specs, reason) in LEFT_OUT {
        println!("left out: {specs}: {reason}");
    }
    let theirs = critest(None, focus);
    let ours = critest(Some(&bin::ours("davit-oci")), focus);
    for (name, specs) in [("runc", &theirs), ("davit-oci", &ours)] {
        println!(
            "containerd with {name}: {} passed, {} skipped of {}",
            count(specs, "passed"),
            count(specs, "skipped"),
            specs.len()
        );
    }
    for (name, spec) in theirs.iter().filter(|(_, spec)| spec.state == "skipped") {
        println!("skips itself with runc: {name}: {}", spec.message);
    }
    for (name, spec) in theirs.iter().filter(|(_, spec)| spec.state == "failed") {
        let with_ours = ours.get(name).map_or("missing", |spec| &spec.state);
        println!(
            "fails with runc, {with_ours} with davit-oci: {name}: {}",
            spec.message
        );
    }
    let broken: Vec<String> = theirs
        .iter()
        .filter(|(_, spec)| spec.state == "passed")
        .filter_map(|(name, _)| match ours.get(name) {
            Some(spec) if spec.state == "passed" => None,
            Some(spec) => Some(format!("{name}: {}: {}", spec.state, spec.message)),
            None => Some(format!("{name}: did not run")),
        })
        .collect();
    assert!(
        broken.is_empty(),
        "pass with runc, and not with davit-oci:\n{}",
        broken.join("\n")
    );
    let passed = count(&theirs, "passed");
    assert!(
        passed > theirs.len() / 2,
        "only {passed} pass with runc: the test itself is wrong"
    );
}

/// All specs take three minutes for both; `DAVIT_TEST_FOCUS` runs only those that match.
#[test]
fn critest_passes_on_containerd_with_davit_oci_as_with_runc() {
    compare(&focus());
}

/// A regular expression of the specs to run: all of them.
fn focus() -> String {
    std::env::var("DAVIT_TEST_FOCUS").unwrap_or_else(|_| ".".to_owned())
}
