//! How little memory a container may have. On cgroup v2 the runtime's own pages in the container count.
use serde_json::json;

use crate::harness::{Container, Runtime};

#[test]
fn a_container_starts_within_one_mebibyte_of_memory() {
    if std::env::var_os("DAVIT_OCI").is_none() {
        eprintln!("skipped: cargo's build for tests is larger than the one that ships (DAVIT_OCI)");
        return;
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "echo started").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 1 << 20, "swap": 1 << 20});
        });
        for _ in 0..5 {
            assert_eq!(container.output(), "started\n");
        }
        container.assert_nothing_left();
    }
}
