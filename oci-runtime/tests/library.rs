//! The crate as a library. One test, so that this process has no second thread at work when it makes a container.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the command line's tests use more of it"
)]
#[path = "black_box/harness.rs"]
mod harness;

use harness::{Container, Runtime};
use oci_runtime::container::{self, Bundle};
use oci_runtime::state::Status;
use serde_json::json;

#[test]
fn a_program_that_links_the_crate_makes_containers_as_the_command_line_does() {
    for runtime in Runtime::ours() {
        a_bundle_runs_from_created_to_deleted(runtime);
        a_bad_field_is_named_and_nothing_is_made(runtime);
        what_would_need_a_second_start_of_this_program_is_refused(runtime);
    }
}

fn a_bundle_runs_from_created_to_deleted(runtime: Runtime) {
    let bundle = Container::new(runtime, "echo inside > /tmp/said; exit 7");
    bundle.write_config();
    let library = container::Runtime::new(bundle.state_root());
    let loaded = Bundle::load(bundle.bundle()).unwrap();
    let plan = library.plan(&bundle.id, &loaded).unwrap();
    let container = library.create(&bundle.id, &plan).unwrap();
    assert_eq!(container.status().unwrap(), Status::Created);
    // The command line knows it.
    assert_eq!(
        (bundle.status().as_str(), bundle.pid()),
        ("created", container.pid())
    );
    let again = library.create(&bundle.id, &plan).err().unwrap();
    assert!(again.message.contains("already exists"), "{again}");
    container.start().unwrap();
    assert_eq!(container.wait().unwrap().code(), 7);
    assert_eq!(container.status().unwrap(), Status::Stopped);
    assert_eq!(
        std::fs::read_to_string(bundle.inside("/tmp/said")).unwrap(),
        "inside\n"
    );
    container.delete().unwrap();
    bundle.assert_nothing_left();
}

fn a_bad_field_is_named_and_nothing_is_made(runtime: Runtime) {
    let bundle = Container::new(runtime, "").with(|config| {
        config["process"]["cwd"] = json!("relative");
    });
    bundle.write_config();
    let library = container::Runtime::new(bundle.state_root());
    let error = library
        .plan("web", &Bundle::load(bundle.bundle()).unwrap())
        .unwrap_err();
    assert!(error.message.contains("process.cwd"), "{error}");
    bundle.assert_nothing_left();
}

fn what_would_need_a_second_start_of_this_program_is_refused(runtime: Runtime) {
    let bundle = Container::new(runtime, "true").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "pid");
    });
    bundle.write_config();
    let library = container::Runtime::new(bundle.state_root());
    let plan = library
        .plan(&bundle.id, &Bundle::load(bundle.bundle()).unwrap())
        .unwrap();
    let error = library.create(&bundle.id, &plan).err().unwrap();
    assert!(error.message.contains("open to be overwritten"), "{error}");
    bundle.assert_nothing_left();
}
