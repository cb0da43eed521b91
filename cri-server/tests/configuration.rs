//! What can change while the daemon runs, `/metrics`, and the commands around the configuration file.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use common::{Daemon, Dirs, eventually, text};
use proto::runtime::v1::StatusRequest;

/// A daemon with a configuration file.
async fn with(configuration: &str) -> Daemon {
    let dirs = Dirs::new();
    let path = dirs.path("config.toml");
    std::fs::write(&path, configuration).expect("written");
    let mut command = dirs.command();
    command.arg("--config").arg(path);
    Daemon::start_with(dirs, command).await
}

async fn handlers(daemon: &Daemon) -> Vec<String> {
    let answer = daemon
        .runtime()
        .await
        .status(StatusRequest::default())
        .await;
    let all = answer.expect("answered").into_inner().runtime_handlers;
    all.into_iter().map(|one| one.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_changes_handlers_and_log_level_and_reports_the_rest() {
    let daemon = with("").await;
    assert_eq!(handlers(&daemon).await, ["", "davit-oci"]);
    let path = daemon.dirs().path("config.toml");
    let new = "log_level = \"debug\"\ncgroup_root = \"/elsewhere\"\n[runtimes.other]\npath = \"/bin/true\"\n";
    // The flag of the test's command line wins over cgroup_root; the address cannot change.
    std::fs::write(
        &path,
        format!("{new}[metrics]\naddress = \"127.0.0.1:1\"\n"),
    )
    .expect("written");
    daemon.signal("HUP");
    eventually("reloaded", || {
        let log = daemon.dirs().log();
        log.contains("this takes effect at the next start")
            .then_some(())
    });
    let log = daemon.dirs().log();
    assert!(log.contains("metrics.address"), "{log}");
    assert!(!log.contains("key=\"cgroup_root\""), "{log}");
    assert_eq!(handlers(&daemon).await, ["", "davit-oci", "other"]);
    // The request just now is logged at debug.
    eventually("the level changed", || {
        daemon.dirs().log().contains("answered").then_some(())
    });
    std::fs::write(&path, "[runtimes.x]\npth = \"/bin/true\"\n").expect("written");
    daemon.signal("HUP");
    eventually("refused", || {
        let log = daemon.dirs().log();
        log.contains("config.toml:2: runtimes.x.pth: unknown key; known are path, root, args")
            .then_some(())
    });
    assert_eq!(handlers(&daemon).await, ["", "davit-oci", "other"]);
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_requests_and_what_there_is() {
    let address = free_address();
    let daemon = with(&format!("[metrics]\naddress = \"{address}\"\n")).await;
    handlers(&daemon).await;
    let answer = get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for line in [
        "davit_cri_requests_total{method=\"Status\",code=\"Ok\"}",
        "davit_cri_request_seconds_bucket{method=\"Status\",le=\"+Inf\"}",
        "davit_cri_pods{state=\"ready\"} 0",
        "davit_cri_containers{state=\"running\"} 0",
        "davit_cri_shims_lost_total 0",
        "process_resident_memory_bytes ",
    ] {
        assert!(
            answer.lines().any(|one| one.starts_with(line)),
            "{line}:\n{answer}"
        );
    }
    let other = get(address, "GET / HTTP/1.1\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    let bad = get(address, "DELETE /metrics HTTP/1.1\r\n\r\n");
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_for_metrics_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let dirs = Dirs::new();
    let path = dirs.path("config.toml");
    std::fs::write(&path, format!("[metrics]\naddress = \"{address}\"\n")).expect("written");
    let output = dirs.run(&["--config", path.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let words = format!("davit-cri: serve metrics at {address}: Address already in use");
    assert!(
        text(&output.stderr).contains(&words),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_default_configuration_is_good_and_mistakes_are_found_without_a_daemon() {
    let dirs = Dirs::new();
    let default = dirs.run(&["config", "default"]);
    assert!(default.status.success());
    let path = dirs.path("config.toml");
    std::fs::write(&path, &default.stdout).expect("written");
    let path = path.to_str().expect("UTF-8");
    let good = dirs.run(&["config", "check", path]);
    assert_eq!(
        text(&good.stdout),
        "the configuration is good\n",
        "{}",
        text(&good.stderr)
    );
    // Without the comment signs it is good as well: every key that it names is one, and every default has its type.
    let lines = text(&default.stdout);
    let lines = lines
        .lines()
        .skip(2)
        .map(|line| line.trim_start_matches("# "));
    std::fs::write(path, lines.collect::<Vec<_>>().join("\n")).expect("written");
    let good = dirs.run(&["config", "check", path]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    std::fs::write(
        path,
        "log_level = \"loud\"\n[metrics]\naddress = \"here\"\n",
    )
    .expect("written");
    let bad = dirs.run(&["config", "check", path]);
    assert_eq!(bad.status.code(), Some(64));
    let want = format!(
        "{path}:1: log_level: \"loud\" is none of error, warn, info, debug, trace\n\
         {path}:3: metrics.address: \"here\" is not an address such as \"127.0.0.1:9325\"\n"
    );
    assert_eq!(text(&bad.stderr), want);
}
