use super::*;
use crate::ErrorKind;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn parse(content_type: Option<&str>, json: &str) -> Result<Manifest, Error> {
    Manifest::parse(Digest::of(json.as_bytes()), content_type, json.as_bytes())
}

fn descriptor(of: &str) -> String {
    let digest = Digest::of(of.as_bytes());
    format!(
        r#"{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{},"digest":"{digest}"}}"#,
        of.len()
    )
}

#[test]
fn a_docker_manifest_and_an_oci_one_without_media_type_are_the_same() {
    let body = format!(
        r#""schemaVersion":2,"config":{},"layers":[{},{}]"#,
        descriptor("c"),
        descriptor("one"),
        descriptor("two2")
    );
    let blob = |of: &str| Blob {
        digest: Digest::of(of.as_bytes()),
        size: of.len() as u64,
    };
    let expected = Manifest::Image {
        config: blob("c"),
        layers: vec![blob("one"), blob("two2")],
    };
    let docker =
        format!(r#"{{"mediaType":"application/vnd.docker.distribution.manifest.v2+json",{body}}}"#);
    assert_eq!(
        parse(
            Some("application/vnd.docker.distribution.manifest.v2+json"),
            &docker
        )
        .unwrap(),
        expected
    );
    assert_eq!(
        parse(
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            &format!("{{{body}}}")
        )
        .unwrap(),
        expected
    );
    assert_eq!(
        parse(Some("application/octet-stream"), &format!("{{{body}}}")).unwrap(),
        expected
    );
    assert_eq!(parse(None, &format!("{{{body}}}")).unwrap(), expected);
}

#[test]
fn documents_that_are_no_image_are_refused_with_the_reason_and_kind() {
    let both = format!(
        r#"{{"schemaVersion":2,"config":{0},"layers":[],"manifests":[]}}"#,
        descriptor("c")
    );
    let image = format!(
        r#"{{"schemaVersion":2,"config":{0},"layers":[]}}"#,
        descriptor("c")
    );
    let bad_digest = image.replace("sha256:", "sha512:");
    let bad_size = format!(
        r#"{{"schemaVersion":2,"config":{0},"layers":[]}}"#,
        descriptor("c").replace("\"size\":1", "\"size\":-1")
    );
    let mixed = image.replacen('{', &format!(r#"{{"mediaType":"{INDEX}","#), 1);
    let many = format!(
        r#"{{"schemaVersion":2,"config":{0},"layers":[{1}]}}"#,
        descriptor("c"),
        vec![descriptor("l"); 501].join(",")
    );
    for (content_type, json, kind, reason) in [
        (Some(OCI), "", ErrorKind::Corrupt, "EOF"),
        (Some(OCI), "<html>", ErrorKind::Corrupt, "expected value"),
        (Some(OCI), "{}", ErrorKind::Corrupt, "schemaVersion is None"),
        (
            Some(OCI),
            r#"{"schemaVersion":3}"#,
            ErrorKind::Corrupt,
            "Some(3)",
        ),
        (
            Some(OCI),
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            ErrorKind::Unsupported,
            "schema 1",
        ),
        (
            Some(OCI),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}"#,
            ErrorKind::Unsupported,
            "no image but",
        ),
        (
            Some(OCI),
            &both,
            ErrorKind::Corrupt,
            "both layers and manifests",
        ),
        (
            Some(INDEX),
            &image,
            ErrorKind::Corrupt,
            "its media type says one thing",
        ),
        (
            Some(OCI),
            &mixed,
            ErrorKind::Corrupt,
            "its media type says one thing",
        ),
        (Some(OCI), &bad_digest, ErrorKind::Corrupt, "sha256"),
        (Some(OCI), &bad_size, ErrorKind::Corrupt, "invalid value"),
        (Some(OCI), &many, ErrorKind::Corrupt, "501 layers"),
    ] {
        let error = parse(content_type, json).unwrap_err();
        assert_eq!(error.kind(), kind, "{json}: {error}");
        assert!(error.to_string().contains(reason), "{json}: {error}");
    }
}

#[test]
fn the_entry_that_fits_best_is_chosen_and_attestations_never_are() {
    let entry = |text: &str| {
        let mut parts = text.split('/').map(str::to_owned);
        let platform = Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        };
        IndexEntry {
            digest: Digest::of(text.as_bytes()),
            platform: Some(platform),
            annotations: vec![],
        }
    };
    let entries = [
        "unknown/unknown",
        "linux/arm/v5",
        "linux/arm/v6",
        "linux/amd64",
        "linux/arm64/v8",
        "windows/amd64",
    ]
    .map(entry);
    let host = |architecture: &str, variant: Option<&str>| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: variant.map(Into::into),
    };
    let chosen = |platform: Platform| {
        choose(Digest::of(b"i"), &entries, &platform)
            .map(|entry| entry.platform.clone().unwrap().to_string())
    };
    assert_eq!(chosen(host("amd64", None)).unwrap(), "linux/amd64");
    assert_eq!(chosen(host("arm", Some("v7"))).unwrap(), "linux/arm/v6");
    assert_eq!(chosen(host("arm64", None)).unwrap(), "linux/arm64/v8");
    let error = chosen(host("s390x", None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("linux/s390x")
            && error.to_string().contains("linux/arm/v5, linux/arm/v6"),
        "{error}"
    );
}

#[test]
fn an_index_of_one_image_that_names_no_platform_means_that_image() {
    let json = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor("m"));
    let Manifest::Index(entries) = parse(Some(INDEX), &json).unwrap() else {
        panic!("not an index")
    };
    assert_eq!(
        choose(Digest::of(b"i"), &entries, &Platform::host())
            .unwrap()
            .digest,
        Digest::of(b"m")
    );
    let two = [entries.clone(), entries].concat();
    assert_eq!(
        choose(Digest::of(b"i"), &two, &Platform::host())
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
}
