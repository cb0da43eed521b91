//! Proxies on the way to a registry. The environment belongs to a process, so each pull has one of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::process::Command;

use snapshotter::{Store, one_line};
use support::http::{Response, Server};
use support::image::{Pack, small};
use support::registry::Content;
use support::{Scratch, hosts_toml, options, pull};

/// A name that nobody resolves: only a proxy can reach it.
const REGISTRY: &str = "registry.invalid";

/// Pulls in another process with this environment; the answer is what it says.
fn pull_with(scratch: &Scratch, reference: &str, environment: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command
        .args(["--exact", "--ignored", "--nocapture", "child"])
        .env("DAVIT_TEST_ROOT", scratch.path())
        .env("DAVIT_TEST_REFERENCE", reference)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "run by the other tests in a process of its own"]
fn child() {
    let root = std::env::var("DAVIT_TEST_ROOT").expect("set by the other tests");
    let reference = std::env::var("DAVIT_TEST_REFERENCE").unwrap();
    let mut options = options(&Scratch::new());
    options.root = format!("{root}/store").into();
    options.hosts_dirs = vec![format!("{root}/hosts.d").into()];
    let store = Store::open(options).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(pull(&store, &reference)) {
        Ok(image) => println!("pulled {}", image.id),
        Err(error) => println!("failed: {}", one_line(&error)),
    }
}

fn plain_http(scratch: &Scratch) -> String {
    let server = format!("server = \"http://{REGISTRY}\"\n");
    hosts_toml(scratch, REGISTRY, &server);
    format!("{REGISTRY}/app:v1")
}

#[test]
fn a_plain_registry_is_asked_through_the_proxy_with_its_password() {
    let image = small(Pack::Gzip);
    let proxy = Content::with(&image, "v1").serve();
    let scratch = Scratch::new();
    let reference = plain_http(&scratch);
    let url = format!("http://me:secret@{}", proxy.name());
    let said = pull_with(&scratch, &reference, &[("http_proxy", url)]);
    assert!(said.contains(&format!("pulled {}", image.id())), "{said}");
    let seen = proxy.seen();
    assert!(seen.len() >= 4, "manifest, config and layers");
    for request in seen {
        let whole = format!("http://{REGISTRY}/v2/app/");
        assert!(request.path.starts_with(&whole), "{}", request.path);
        let password = request.header("proxy-authorization");
        assert_eq!(password, Some("Basic bWU6c2VjcmV0"));
    }
}

#[test]
fn an_encrypted_registry_is_reached_by_a_tunnel_and_a_refusal_names_the_proxy() {
    let proxy = Server::start(|_| Response::new(403));
    let scratch = Scratch::new();
    let url = format!("http://me:secret@{}", proxy.name());
    let reference = format!("{REGISTRY}/app:v1");
    let said = pull_with(&scratch, &reference, &[("HTTPS_PROXY", url)]);
    let named = format!("through the proxy {}: ", proxy.name());
    assert!(said.contains(&named), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let first = &proxy.seen()[0];
    let asked = (first.method.as_str(), first.path.as_str());
    assert_eq!(asked, ("CONNECT", "registry.invalid:443"));
    let password = first.header("proxy-authorization");
    assert_eq!(password, Some("Basic bWU6c2VjcmV0"));
}

#[test]
fn no_proxy_and_this_machine_are_reached_without() {
    let proxy = Server::start(|_| Response::new(500));
    let scratch = Scratch::new();
    let reference = plain_http(&scratch);
    let url = format!("http://{}", proxy.name());
    let environment = [
        ("ALL_PROXY", url),
        ("NO_PROXY", "example.com, .invalid".to_owned()),
    ];
    let said = pull_with(&scratch, &reference, &environment);
    assert!(said.contains("cannot connect"), "{said}");

    let image = small(Pack::Gzip);
    let registry = Content::with(&image, "v1").serve();
    let local = format!("{}/app:v1", registry.name());
    let said = pull_with(&scratch, &local, &environment[..1]);
    assert!(said.contains("pulled"), "{said}");
    assert_eq!(proxy.seen().len(), 0);
}
