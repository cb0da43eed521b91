//! `config.json`: whatever it says, there is a plan or a list of bad fields.
#![no_main]
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oci_runtime::plan::Plan;
use oci_runtime::spec::Spec;

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else {
        return;
    };
    if let Ok(plan) = Plan::new("fuzz", Path::new("/bundle"), &spec) {
        assert!(plan.rootfs.starts_with("/"));
        assert!(!plan.process.args.is_empty());
        for mount in &plan.mounts {
            assert!(mount.destination.starts_with("/"), "{mount:?}");
            let up = |part| part == std::path::Component::ParentDir;
            assert!(!mount.destination.components().any(up), "{mount:?}");
        }
    }
});
