use proptest::prelude::*;

use super::*;

fn read(registry: &str, text: &str) -> Result<Vec<Host>, String> {
    parse(registry, Path::new("/etc/davit/hosts.d/x/hosts.toml"), text)
        .map_err(|error| error.to_string())
}

fn urls(hosts: &[Host]) -> Vec<String> {
    hosts
        .iter()
        .map(|host| format!("{}://{}{}", host.scheme, host.authority, host.prefix))
        .collect()
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
    let hosts = read(
        "docker.io",
        r#"
        server = "https://registry-1.docker.io"
        [host."https://zzz.test"]
          capabilities = ["pull"]
        [host."http://aaa.test:5000/proxy"]
          capabilities = ["pull", "resolve"]
          skip_verify = true
          dial_timeout = "1m0.5s"
        [host."https://mmm.test/v2/cache"]
          override_path = true
          ca = ["a.crt", "/b.crt"]
          client = [["c.crt", "c.key"], ["d.pem", ""]]
          [host."https://mmm.test/v2/cache".header]
            Authorization = "Basic s3cret"
            X-Many = ["1", "2"]
        "#,
    )
    .unwrap();
    assert_eq!(
        urls(&hosts),
        [
            "https://zzz.test/v2",
            "http://aaa.test:5000/proxy/v2",
            "https://mmm.test/v2/cache",
            "https://registry-1.docker.io/v2"
        ]
    );
    assert_eq!(
        hosts
            .iter()
            .map(|h| (h.resolve, h.upstream))
            .collect::<Vec<_>>(),
        [(false, false), (true, false), (true, false), (true, true)]
    );
    assert!(hosts[1].tls.skip_verify && hosts[1].dial_timeout == Duration::from_millis(60_500));
    let dir = PathBuf::from("/etc/davit/hosts.d/x");
    assert_eq!(
        hosts[2].tls.ca,
        [dir.join("a.crt"), PathBuf::from("/b.crt")]
    );
    assert_eq!(
        hosts[2].tls.client,
        [
            (dir.join("c.crt"), dir.join("c.key")),
            (dir.join("d.pem"), dir.join("d.pem"))
        ]
    );
    assert_eq!(hosts[2].headers.len(), 3);
    assert!(!format!("{hosts:?}").contains("s3cret"));
}

#[test]
fn settings_at_the_top_are_those_of_the_registry_itself() {
    let hosts = read("registry.test:5000", "ca = \"x.crt\"\nskip_verify = true").unwrap();
    assert_eq!(urls(&hosts), ["https://registry.test:5000/v2"]);
    assert!(hosts[0].tls.skip_verify && hosts[0].upstream && hosts[0].tls.ca.len() == 1);
    let hosts = read("localhost:5000", "server = \"https://localhost:5000\"").unwrap();
    assert_eq!(urls(&hosts), ["https://localhost:5000/v2"]);
}

#[test]
fn without_a_file_local_registries_speak_http_and_all_others_https() {
    for (registry, url) in [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("localhost", "http://localhost/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("127.1.2.3", "http://127.1.2.3/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("localhost:443", "https://localhost:443/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ("localhost.test", "https://localhost.test/v2"),
    ] {
        assert_eq!(urls(&hosts(registry, &[]).unwrap()), [url]);
    }
}

#[test]
fn directories_are_found_under_each_of_containerds_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, server: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(
            dir.path().join(name).join("hosts.toml"),
            format!("server = \"https://{server}\""),
        )
        .unwrap();
    };
    write("_default", "default.test");
    write("a.test:5000", "colon.test");
    write("b.test_5000_", "underscore.test");
    write("c.test", "plain.test");
    let dirs = [dir.path().join("absent"), dir.path().to_owned()];
    for (registry, server) in [
        ("a.test:5000", "colon.test"),
        ("b.test:5000", "underscore.test"),
        ("c.test", "plain.test"),
        ("c.test:5000", "default.test"),
        ("[::1]:5000", "default.test"),
    ] {
        assert_eq!(
            hosts(registry, &dirs).unwrap()[0].authority,
            server,
            "{registry}"
        );
    }
}

#[test]
fn broken_files_are_refused_with_the_file_and_the_reason() {
    for (text, reason) in [
        ("server = 3", "invalid type"),
        ("server = [", ""),
        ("server = \"ftp://x\"", "neither http nor https"),
        ("server = \"https://user:pw@x\"", "password in the URL"),
        ("[host.\"https://\"]", "not a URL"),
        ("[host.\"https://x\"]\nca = 3", "host \"https://x\""),
        ("[host.\"https://x\"]\nclient = [[\"a\"]]", "pairs"),
        (
            "[host.\"https://x\"]\ndial_timeout = \"soon\"",
            "not a duration",
        ),
        (
            "[host.\"https://x\".header]\n\"a b\" = \"x\"",
            "not a header's name",
        ),
        ("[host.\"https://x\".header]\na = 3", "not a string"),
    ] {
        let error = read("docker.io", text).unwrap_err();
        assert!(
            error.contains("/etc/davit/hosts.d/x/hosts.toml") && error.contains(reason),
            "{text}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[?[a-z.\"]{0,8}\\]?( = )?(\"[a-z:/.]{0,12}\"|[0-9]|\\[|\\])?\n){0,6}") {
        drop(read("docker.io", &text));
    }

    #[test]
    fn every_duration_of_gos_reads_as_its_sum(h in 0_u32..100, m in 0_u32..60, s in 0_u32..60, ms in 0_u32..1000) {
        let text = format!("{h}h{m}m{s}s{ms}ms");
        let expected = Duration::from_secs(u64::from(h) * 3600 + u64::from(m) * 60 + u64::from(s)) + Duration::from_millis(ms.into());
        let difference = duration(&text).unwrap().abs_diff(expected);
        prop_assert!(difference < Duration::from_micros(1), "{} {:?}", text, difference);
    }
}
