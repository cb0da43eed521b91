use proptest::prelude::*;

use super::*;

const HEX: &str = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

#[test]
fn short_names_mean_docker_hub_and_latest() {
    for (text, full) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.29-2", "docker.io/library/busybox:1.29-2"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        (
            "index.docker.io/library/busybox",
            "docker.io/library/busybox:latest",
        ),
        ("user/app", "docker.io/user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        (
            "localhost:5000/a/b/c:V1.0_x-y",
            "localhost:5000/a/b/c:V1.0_x-y",
        ),
        (
            "registry.k8s.io/e2e-test-images/busybox:1.29-2",
            "registry.k8s.io/e2e-test-images/busybox:1.29-2",
        ),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t"),
        ("[fe80::1]/x", "[fe80::1]/x:latest"),
        ("Registry/x", "Registry/x:latest"),
        ("a.b/c__d/e---f/g.h", "a.b/c__d/e---f/g.h:latest"),
    ] {
        assert_eq!(
            text.parse::<Reference>().unwrap().to_string(),
            full,
            "{text}"
        );
    }
}

#[test]
fn a_digest_stands_alone_or_beside_a_tag() {
    let alone: Reference = format!("gcr.io/p/app@sha256:{HEX}").parse().unwrap();
    assert_eq!(
        (alone.tag(), alone.digest()),
        (None, Some(Digest::from_hex(HEX).unwrap()))
    );
    assert_eq!(alone.tagged(), None);
    let both: Reference = format!("app:v1@sha256:{HEX}").parse().unwrap();
    assert_eq!(
        (both.tag(), both.registry(), both.repository()),
        (Some("v1"), "docker.io", "library/app")
    );
    assert_eq!(
        both.to_string(),
        format!("docker.io/library/app:v1@sha256:{HEX}")
    );
}

#[test]
fn bad_names_are_refused_with_the_reason() {
    let long = "a".repeat(260);
    let long_tag = format!("a:{}", "t".repeat(129));
    for (text, reason) in [
        ("", "it is empty"),
        (HEX, "an image id, not a name"),
        ("App", "lower case"),
        ("docker.io/App", "lower case"),
        ("app:", "must begin with a letter"),
        ("app:-x", "must begin with a letter"),
        ("app:a b", "contains ' '"),
        ("a//b", "empty part"),
        ("/a", "empty part"),
        ("a/", "empty part"),
        ("a..b", "contains \"..\""),
        ("a___b", "contains \"___\""),
        ("-a", "begin and end"),
        ("a.", "begin and end"),
        ("../../etc/passwd", "not a host name"),
        ("host:port/a", "no valid port"),
        ("host:0/a", "no valid port"),
        ("host:70000/a", "no valid port"),
        ("ho_st.x/a", "not a host name"),
        ("[::zz]/a", "IPv6"),
        ("[::1]x/a", "after its address"),
        ("https://host/a", "no valid port"),
        ("app@sha256:12", "64 digits"),
        ("app@md5:12", "only sha256"),
        ("app@", "a digest reads"),
        ("a b", "contains ' '"),
        ("a\n", "contains '\\n'"),
        ("é", "contains 'é'"),
        (long.as_str(), "longer than 255"),
        (long_tag.as_str(), "longer than 128"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

proptest! {
    #[test]
    fn every_accepted_name_prints_as_one_that_reads_back_the_same(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn every_well_formed_name_is_accepted(
        host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){1,3}(:[1-9][0-9]{0,3})?",
        path in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
    ) {
        let text = format!("{host}/{path}:{tag}");
        let reference: Reference = text.parse().unwrap();
        let docker = host.trim_start_matches("index.") == "docker.io" || host == "registry-1.docker.io";
        prop_assert!(docker || reference.to_string() == text, "{} became {}", text, reference);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
        drop(text.parse::<Reference>());
    }
}
