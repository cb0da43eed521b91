//! `/metrics` for Prometheus, on an address of its own; off unless the configuration names one, as with containerd.
//! Numbers of the daemon itself; those of pods come by CRI (`ListPodSandboxMetrics`). All are read when somebody asks.

mod http;
pub(crate) mod requests;
mod text;

use std::net::SocketAddr;

use engine::Counts;
use tokio::net::TcpListener;

use crate::node::Node;
use text::Page;

/// Listens at `address`.
///
/// # Errors
/// What `bind(2)` says.
pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, node: Node) {
    http::serve(listener, move || page(&node)).await;
}

/// Everything, in Prometheus' text format.
fn page(node: &Node) -> String {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.head("davit_cri_build_info", "gauge", "The version; always 1.");
    page.line("davit_cri_build_info", &version, 1);
    requests::write(&mut page);
    // While the daemon recovers nobody knows how many there are: left out, rather than 0.
    if let Ok(engine) = node.engine() {
        counts(&mut page, &engine.counts());
    }
    process(&mut page);
    page.0
}

fn counts(page: &mut Page, counts: &Counts) {
    page.head("davit_cri_pods", "gauge", "Pods by state.");
    let pods = [
        ("ready", counts.pods_ready),
        ("not_ready", counts.pods_not_ready),
    ];
    for (state, count) in pods {
        page.line("davit_cri_pods", &[("state", state)], count);
    }
    page.head("davit_cri_containers", "gauge", "Containers by state.");
    let containers = [
        ("created", counts.containers_created),
        ("running", counts.containers_running),
        ("exited", counts.containers_exited),
        ("unknown", counts.containers_unknown),
    ];
    for (state, count) in containers {
        page.line("davit_cri_containers", &[("state", state)], count);
    }
    let name = "davit_cri_shims_lost_total";
    page.head(
        name,
        "counter",
        "Shims that ended with their pods still there.",
    );
    page.line(name, &[], counts.shims_lost);
}

/// The names that Prometheus' own libraries use.
fn process(page: &mut Page) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kilobytes) = kilobytes {
        let name = "process_resident_memory_bytes";
        page.head(name, "gauge", "Memory of the daemon.");
        page.line(name, &[], kilobytes * 1024);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.head("process_open_fds", "gauge", "Open files of the daemon.");
        page.line("process_open_fds", &[], open.count());
    }
}
