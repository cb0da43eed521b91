//! Pulls from Debian's docker-registry: plain, with a password, and over TLS.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Stdio};

use snapshotter::{Auth, ErrorKind, ProgressSink, PullRequest, one_line};
use support::image::{OCI_INDEX, Pack, image_for, index, small};
use support::registry::DockerRegistry;
use support::{Scratch, assert_clean, hosts_toml, pull, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_of_each_compression_and_form_arrive_from_debians_registry() {
    let registry = DockerRegistry::start("", "");
    let scratch = Scratch::new();
    let store = store(&scratch);
    for (tag, image) in [
        ("gzip", small(Pack::Gzip)),
        ("zstd", small(Pack::Zstd)),
        ("docker", small(Pack::Gzip).docker()),
    ] {
        registry.push("test/app", tag, &image, None);
        let name = format!("{}/test/app:{tag}", registry.address);
        let pulled = pull(&store, &name).await.unwrap();
        assert_eq!(pulled.id, image.id());
        assert!(pulled.repo_tags.contains(&name), "{pulled:?}");
        let by_digest = format!("{}/test/app@{}", registry.address, image.digest());
        assert!(pulled.repo_digests.contains(&by_digest));
        assert_eq!(pulled.layers.len(), 2);
        let base = store.layer_path(&pulled.layers[0]);
        let release = std::fs::read_to_string(base.join("etc/os-release")).unwrap();
        assert_eq!(release, "ID=test\n");
        let gone = store.layer_path(&pulled.layers[1]).join("gone");
        let gone = std::fs::symlink_metadata(gone).unwrap();
        assert!(gone.file_type().is_char_device());
    }
    // The three differ in their packing only.
    assert_eq!(store.images().unwrap().len(), 1);
    assert_clean(&scratch, 2);
}

#[tokio::test]
async fn an_index_is_pulled_by_tag_and_by_digest() {
    let registry = DockerRegistry::start("", "");
    let layers = small(Pack::Gzip).layers;
    let (amd, arm) = (
        image_for(layers.clone(), "amd64", ""),
        image_for(layers, "arm64", ""),
    );
    registry.push("test/multi", "amd", &amd, None);
    registry.push("test/multi", "arm", &arm, None);
    let bytes = index(&[("linux/arm64", &arm), ("linux/amd64", &amd)]);
    registry.push_manifest("test/multi", "all", OCI_INDEX, &bytes, None);
    let scratch = Scratch::new();
    let store = store(&scratch);
    let name = format!("{}/test/multi", registry.address);
    let by_tag = pull(&store, &format!("{name}:all")).await.unwrap();
    let digest = snapshotter::Digest::of(&bytes);
    let by_digest = pull(&store, &format!("{name}@{digest}")).await.unwrap();
    let host = if cfg!(target_arch = "aarch64") {
        arm
    } else {
        amd
    };
    assert_eq!((by_tag.id, by_digest.id), (host.id(), host.id()));
    assert_eq!(by_digest.repo_digests, [format!("{name}@{digest}")]);
}

#[tokio::test]
async fn an_unknown_tag_is_not_found_in_the_registrys_own_words() {
    let registry = DockerRegistry::start("", "");
    registry.push("test/app", "v1", &small(Pack::Gzip), None);
    let store = store(&Scratch::new());
    for name in ["test/app:v2", "test/other:v1"] {
        let reference = format!("{}/{name}", registry.address);
        let error = pull(&store, &reference).await.unwrap_err();
        let line = one_line(&error);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{line}");
        let expected = format!("manifest {name}: not found: MANIFEST_UNKNOWN: manifest unknown");
        assert!(line.contains(&expected), "{line}");
    }
}

/// Runs openssl, which must succeed.
fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "openssl {args:?}: {output:?}");
}

/// `me:secret` as htpasswd writes it with bcrypt, the only form that the registry takes.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a
";

#[tokio::test]
async fn a_password_opens_debians_registry() {
    let scratch = Scratch::new();
    let file = scratch.join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        file.display()
    );
    let registry = DockerRegistry::start("", &auth);
    let image = small(Pack::Gzip);
    registry.push("test/app", "v1", &image, Some("Basic bWU6c2VjcmV0"));
    let store = store(&scratch);
    let reference = format!("{}/test/app:v1", registry.address);
    let with = |auth: Option<Auth>| {
        let request = PullRequest {
            reference: reference.clone(),
            auth,
            platform: None,
        };
        store.pull(request, ProgressSink::none())
    };
    let login = |password: &str| {
        Some(Auth {
            username: "me".into(),
            password: password.into(),
            ..Auth::default()
        })
    };
    let refused = with(None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
    let refused = with(login("wrong")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
    assert_eq!(with(login("secret")).await.unwrap().id, image.id());
}

#[tokio::test]
async fn tls_is_verified_against_the_ca_of_hosts_toml() {
    let scratch = Scratch::new();
    let dir = scratch.path();
    openssl(
        dir,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test ca",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ],
    );
    openssl(
        dir,
        &[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            "tls.key",
            "-out",
            "tls.csr",
        ],
    );
    std::fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        &[
            "x509",
            "-req",
            "-in",
            "tls.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            "tls.crt",
        ],
    );
    let more = format!(
        "  tls:\n    certificate: {0}/tls.crt\n    key: {0}/tls.key\n",
        dir.display()
    );
    let registry = DockerRegistry::start(&more, "");
    let store = store(&scratch);
    let reference = format!("{}/test/app:v1", registry.address);
    let server = format!("server = \"https://{}\"\n", registry.address);

    hosts_toml(&scratch, &registry.address, &server);
    let untrusted = pull(&store, &reference).await.unwrap_err();
    assert_eq!(untrusted.kind(), ErrorKind::Unavailable);
    let line = one_line(&untrusted);
    assert!(
        line.contains("cannot connect: invalid peer certificate"),
        "{line}"
    );

    // Trusted, the registry answers: it has no such image.
    let ca = format!("{server}ca = \"{}/ca.crt\"\n", dir.display());
    for settings in [ca, format!("{server}skip_verify = true\n")] {
        hosts_toml(&scratch, &registry.address, &settings);
        let error = pull(&store, &reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", one_line(&error));
    }

    hosts_toml(
        &scratch,
        &registry.address,
        &format!("{server}ca = \"/absent.crt\"\n"),
    );
    let error = pull(&store, &reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        one_line(&error).contains("/absent.crt"),
        "{}",
        one_line(&error)
    );
}
