//! Registries that lie, break off, stall, redirect and want credentials.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use snapshotter::{
    Auth, Digest, Error, ErrorKind, Image, ProgressSink, PullRequest, Store, one_line,
};
use support::http::{Request, Response, Server};
use support::image::{self, Layer, Pack, Tar, TestImage, image, noise, small};
use support::registry::Content;
use support::{Scratch, assert_clean, hosts_toml, pull, store};

/// An image with one big layer of noise.
fn big() -> TestImage {
    image(vec![Layer::new(
        Tar::new().file("noise", &noise(3 << 20, 1)).finish(),
        Pack::Gzip,
    )])
}

fn content(image: &TestImage) -> Content {
    Content::with(image, "v1")
}

async fn pull_from(server: &Server, store: &Store) -> Result<Image, Error> {
    pull(store, &format!("{}/app:v1", server.name())).await
}

async fn pull_with(server: &Server, store: &Store, auth: Auth) -> Result<Image, Error> {
    let reference = format!("{}/app:v1", server.name());
    store
        .pull(
            PullRequest {
                reference,
                auth: Some(auth),
                platform: None,
            },
            ProgressSink::none(),
        )
        .await
}

fn password(username: &str, password: &str) -> Auth {
    Auth {
        username: username.into(),
        password: password.into(),
        ..Auth::default()
    }
}

fn is_layer(request: &Request, image: &TestImage) -> bool {
    image
        .layers
        .iter()
        .any(|layer| request.path.contains(&layer.digest().hex()))
}

#[tokio::test]
async fn a_registry_that_lies_is_told_by_kind_and_reason_and_nothing_is_left() {
    type Lie = Box<dyn Fn(&Request, Response) -> Response + Send + Sync>;
    let honest = small(Pack::Gzip);
    let layer = honest.layers[0].clone();
    let config = honest.id().hex();
    let on = |part: String, change: fn(Response) -> Response| -> Lie {
        Box::new(move |request, response| {
            if request.path.contains(&part) {
                change(response)
            } else {
                response
            }
        })
    };
    let flip = |mut response: Response| {
        let middle = response.body.len() / 2;
        response.body[middle] ^= 1;
        response
    };
    let cases: Vec<(Lie, ErrorKind, &str)> = vec![
        (
            on(layer.digest().hex(), flip),
            ErrorKind::Corrupt,
            "the registry has sha256:",
        ),
        (
            on(layer.digest().hex(), |r| r.body("short")),
            ErrorKind::Corrupt,
            "it has 5 bytes, and the manifest says",
        ),
        (
            on(layer.digest().hex(), |r| {
                let mut b = r.body.clone();
                b.push(0);
                r.body(b)
            }),
            ErrorKind::Corrupt,
            "and the manifest says",
        ),
        (
            on(layer.digest().hex(), |_| Response::new(404)),
            ErrorKind::NotFound,
            "not found",
        ),
        (
            on(config.clone(), flip),
            ErrorKind::Corrupt,
            "image config sha256:",
        ),
        (
            on(config.clone(), |r| r.body(vec![b' '; 5 << 20])),
            ErrorKind::Corrupt,
            "larger than 4 MiB",
        ),
        (
            on("manifests".into(), |r| r.body(vec![b' '; 5 << 20])),
            ErrorKind::Corrupt,
            "larger than 4 MiB",
        ),
        (
            on("manifests".into(), |r| r.body("<html>login</html>")),
            ErrorKind::Corrupt,
            "expected value",
        ),
        (
            on("manifests".into(), |r| {
                r.body(r#"{"schemaVersion":1,"fsLayers":[]}"#)
            }),
            ErrorKind::Unsupported,
            "schema 1",
        ),
        (
            on("manifests".into(), |_| {
                Response::new(404)
                    .body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no\nsuch"}]}"#)
            }),
            ErrorKind::NotFound,
            "not found: MANIFEST_UNKNOWN: nosuch",
        ),
        (
            on("manifests".into(), |_| Response::new(403)),
            ErrorKind::Unauthorized,
            "no credentials were given",
        ),
        (
            on("manifests".into(), |_| Response::new(401)),
            ErrorKind::Unauthorized,
            "no credentials were given",
        ),
        (
            on("manifests".into(), |_| Response::new(418)),
            ErrorKind::Corrupt,
            "HTTP status 418",
        ),
        (
            on("manifests".into(), |_| Response::new(500)),
            ErrorKind::Unavailable,
            "HTTP status 500",
        ),
        (
            on("manifests".into(), |_| {
                Response::new(302).header("Location", "/v2/app/manifests/v1")
            }),
            ErrorKind::Corrupt,
            "more than 10 redirects",
        ),
        (
            on("manifests".into(), |_| {
                Response::new(302).header("Location", "gopher://x")
            }),
            ErrorKind::Corrupt,
            "redirect",
        ),
        (
            on(layer.digest().hex(), |r| {
                let cut = r.body.len() / 2;
                r.cut(cut)
            }),
            ErrorKind::Unavailable,
            "connection lost",
        ),
    ];
    for (lie, kind, reason) in cases {
        let scratch = Scratch::new();
        let store = store(&scratch);
        // A registry that always breaks off gives no more with a range either.
        let server = content(&honest).serve_with(lie);
        let error = pull_from(&server, &store).await.unwrap_err();
        let line = one_line(&error);
        assert!(
            line.starts_with(&format!("pull {}/app:v1: ", server.name())) && line.contains(reason),
            "{reason}: {line}"
        );
        assert_eq!(error.kind(), kind, "{line}");
        assert_clean(&scratch, 0);
        assert_eq!(store.images().unwrap(), []);
    }
}

#[tokio::test]
async fn a_layer_whose_archive_is_not_the_promised_one_is_refused() {
    let layer = Layer::new(Tar::new().file("a", b"1").finish(), Pack::Gzip);
    let other = Layer {
        tar: Tar::new().file("b", b"2").finish(),
        ..layer.clone()
    };
    let config = image(vec![other]).config;
    for (image, kind, reason) in [
        (
            image::with_config(vec![layer.clone()], config.clone()),
            ErrorKind::Corrupt,
            "uncompressed layer sha256:",
        ),
        (
            image::with_config(vec![layer.clone(), layer.clone()], config),
            ErrorKind::Corrupt,
            "it names 1 diff ids, and the manifest 2 layers",
        ),
        (
            image(vec![Layer {
                blob: b"\x1f\x8bnonsense".to_vec(),
                ..layer.clone()
            }]),
            ErrorKind::Corrupt,
            "gzip data",
        ),
        (
            image(vec![Layer {
                blob: b"\x28\xb5\x2f\xfdnonsense".to_vec(),
                ..layer.clone()
            }]),
            ErrorKind::Corrupt,
            "zstd data",
        ),
        (
            image(vec![Layer {
                blob: b"\xfd7zXZ\0nonsense".to_vec(),
                ..layer.clone()
            }]),
            ErrorKind::Unsupported,
            "compressed with xz",
        ),
        (
            image(vec![Layer {
                blob: layer.blob[..layer.blob.len() - 9].to_vec(),
                ..layer.clone()
            }]),
            ErrorKind::Corrupt,
            "gzip data",
        ),
        (
            image(vec![Layer::new(b"not a tar archive".to_vec(), Pack::Plain)]),
            ErrorKind::Corrupt,
            "ends in the middle",
        ),
        (
            image(vec![Layer::new(noise(5000, 3), Pack::Gzip)]),
            ErrorKind::Corrupt,
            "tar archive: after entry \"\"",
        ),
    ] {
        let scratch = Scratch::new();
        let store = store(&scratch);
        let server = content(&image).serve();
        let error = pull_from(&server, &store).await.unwrap_err();
        let line = one_line(&error);
        assert!(line.contains(reason), "{reason}: {line}");
        assert_eq!(error.kind(), kind, "{line}");
        assert_clean(&scratch, 0);
    }
}

#[tokio::test]
async fn a_manifest_by_digest_must_be_that_manifest() {
    let (one, two) = (small(Pack::Gzip), big());
    let mut lying = content(&one);
    lying.manifests.insert(
        one.digest().to_string(),
        (two.media_type.into(), two.manifest.clone()),
    );
    let server = lying.serve();
    let scratch = Scratch::new();
    let error = pull(
        &store(&scratch),
        &format!("{}/app@{}", server.name(), one.digest()),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let line = one_line(&error);
    assert!(
        line.contains(&format!(
            "manifest {}: registry {} has {}",
            one.digest(),
            server.name(),
            two.digest()
        )),
        "{line}"
    );
}

#[tokio::test]
async fn an_unreachable_registry_is_named_with_port_and_errno() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let error = pull(&store, &format!("127.0.0.1:{port}/app"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let line = one_line(&error);
    assert!(
        line.contains(&format!("registry 127.0.0.1:{port}: cannot connect: "))
            && line.contains("ECONNREFUSED"),
        "{line}"
    );
    let error = pull(&store, "no-such-host.invalid/app").await.unwrap_err();
    let line = one_line(&error);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{line}");
    assert!(
        line.contains("registry no-such-host.invalid:443: cannot connect"),
        "{line}"
    );
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed_where_it_broke() {
    let image = big();
    let size = image.layers[0].blob.len();
    let of = image.clone();
    let times = AtomicUsize::new(0);
    let server = content(&image).serve_with(move |request, response| {
        // Each of the first connections gives one more megabyte.
        if is_layer(request, &of) && times.fetch_add(1, Ordering::Relaxed) < 2 {
            response.cut(1 << 20)
        } else {
            response
        }
    });
    let scratch = Scratch::new();
    let pulled = pull_from(&server, &store(&scratch)).await.unwrap();
    assert_eq!(pulled.id, image.id());
    let starts: Vec<Option<usize>> = server
        .seen()
        .iter()
        .filter(|request| is_layer(request, &image))
        .map(Request::range_start)
        .collect();
    assert_eq!(starts.len(), 3);
    assert_eq!(starts[0], None);
    assert!(
        starts[1].is_some_and(|start| start > 0 && start <= 1 << 20)
            && starts[2] > starts[1]
            && starts[2] < Some(size),
        "{starts:?}"
    );
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_again_from_the_start() {
    let image = big();
    let (of, blob) = (image.clone(), image.layers[0].blob.clone());
    let times = AtomicUsize::new(0);
    let server =
        content(&image).serve_with(move |request, response| match is_layer(request, &of) {
            true if times.fetch_add(1, Ordering::Relaxed) == 0 => response.cut(1 << 20),
            true => Response::new(200).body(blob.clone()),
            false => response,
        });
    let scratch = Scratch::new();
    assert_eq!(
        pull_from(&server, &store(&scratch)).await.unwrap().id,
        image.id()
    );
}

#[tokio::test]
async fn a_server_that_answers_with_another_range_is_refused() {
    let image = big();
    let of = image.clone();
    let times = AtomicUsize::new(0);
    let server =
        content(&image).serve_with(move |request, response| match is_layer(request, &of) {
            true if times.fetch_add(1, Ordering::Relaxed) == 0 => response.cut(1 << 20),
            true => Response::new(206)
                .header("Content-Range", "bytes 5-9/10")
                .body("xxxxx"),
            false => response,
        });
    let scratch = Scratch::new();
    let error = pull_from(&server, &store(&scratch)).await.unwrap_err();
    assert!(
        one_line(&error).contains("it answers with Some(\"5-9/10\")"),
        "{}",
        one_line(&error)
    );
    assert_clean(&scratch, 0);
}

#[tokio::test]
async fn a_download_that_stands_still_is_resumed_and_in_the_end_given_up() {
    let image = big();
    let of = image.clone();
    let server = content(&image).serve_with(move |request, response| {
        if is_layer(request, &of) && request.range_start().is_none() {
            response.stall(Duration::from_secs(20))
        } else {
            response
        }
    });
    let scratch = Scratch::new();
    let mut options = support::options(&scratch);
    options.progress_timeout = Duration::from_millis(300);
    let store = Store::open(options).unwrap();
    assert_eq!(pull_from(&server, &store).await.unwrap().id, image.id());

    let of = image.clone();
    let dead = content(&image).serve_with(move |request, response| {
        if is_layer(request, &of) {
            response.cut(0).stall(Duration::from_secs(20))
        } else {
            response
        }
    });
    store.remove(&image.id().to_string()).unwrap();
    store.collect_garbage().unwrap();
    let error = pull_from(&dead, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        one_line(&error).contains("no byte arrived for"),
        "{}",
        one_line(&error)
    );
    assert_clean(&scratch, 0);
}

#[tokio::test]
async fn requests_are_repeated_when_the_registry_is_busy_and_not_before_it_says() {
    let image = small(Pack::Gzip);
    let times = AtomicUsize::new(0);
    let server = content(&image).serve_with(move |request, response| {
        match request.path.contains("/manifests/") {
            true => match times.fetch_add(1, Ordering::Relaxed) {
                0 => Response::new(503),
                1 => Response::new(429).header("Retry-After", "1"),
                _ => response,
            },
            false => response,
        }
    });
    let scratch = Scratch::new();
    let before = Instant::now();
    pull_from(&server, &store(&scratch)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.count("/manifests/"), 3);
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials_and_one_to_the_same_host_does() {
    let image = small(Pack::Gzip);
    let storage = content(&image).serve();
    let target = format!("http://{}", storage.name());
    let of = image.clone();
    let server = content(&image).serve_with(move |request, response| {
        if request.header("authorization") != Some("Basic bWU6czNjcmV0") {
            return Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match (is_layer(request, &of), request.path.contains("/elsewhere/")) {
            (true, true) => {
                Response::new(307).header("Location", format!("{target}{}", request.path))
            }
            (true, false) => Response::new(307).header(
                "Location",
                request.path.replace("/v2/app/", "/elsewhere/v2/app/"),
            ),
            _ => response,
        }
    });
    let scratch = Scratch::new();
    let pulled = pull_with(&server, &store(&scratch), password("me", "s3cret"))
        .await
        .unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(storage.seen().len(), 2);
    assert!(
        storage
            .seen()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|r| r.path.starts_with("/elsewhere/") && r.header("authorization").is_some())
            .count(),
        2
    );
}

/// A registry with a token service; `grant` answers requests for tokens.
fn with_tokens(
    image: &TestImage,
    token: impl Fn() -> String + Send + Sync + 'static,
    grant: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> (Server, Server) {
    let service = Server::start(grant);
    let realm = format!("http://{}/token?x=1", service.name());
    let server = content(image).serve_with(move |request, response| {
        if request.header("authorization") == Some(&format!("Bearer {}", token())) {
            return response;
        }
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:app:pull\"");
        Response::new(401).header("WWW-Authenticate", challenge)
    });
    (server, service)
}

#[tokio::test]
async fn a_token_is_fetched_once_and_serves_all_requests() {
    let image = small(Pack::Gzip);
    let (server, service) = with_tokens(
        &image,
        || "t1".into(),
        |_| Response::new(200).body(r#"{"token":"t1","expires_in":300}"#),
    );
    let scratch = Scratch::new();
    let store = store(&scratch);
    pull_from(&server, &store).await.unwrap();
    pull_from(&server, &store).await.unwrap();
    let seen = service.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].path,
        "/token?x=1&scope=repository%3Aapp%3Apull&service=reg"
    );
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn a_token_that_dies_in_the_middle_of_a_pull_is_renewed() {
    let image = big();
    let number = Arc::new(AtomicUsize::new(1));
    let (valid, granted) = (number.clone(), number.clone());
    let (server, service) = with_tokens(
        &image,
        // Good for two requests, then the next one is wanted.
        move || format!("t{}", valid.fetch_add(1, Ordering::Relaxed) / 3),
        move |_| {
            Response::new(200).body(format!(
                r#"{{"access_token":"t{}"}}"#,
                granted.load(Ordering::Relaxed) / 3
            ))
        },
    );
    let scratch = Scratch::new();
    pull_from(&server, &store(&scratch)).await.unwrap();
    assert!(service.seen().len() >= 2, "{}", service.seen().len());
}

#[tokio::test]
async fn credentials_of_each_kind_reach_the_token_service_in_their_own_way() {
    let image = small(Pack::Gzip);
    let grant = |request: &Request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let refresh = body.contains("grant_type=refresh_token")
            && body.contains("refresh_token=r%2Ft")
            && body.contains("service=reg");
        let basic = request.header("authorization") == Some("Basic bWU6czNjcmV0");
        if refresh || basic {
            Response::new(200).body(r#"{"token":"good"}"#)
        } else {
            Response::new(401)
        }
    };
    let (server, service) = with_tokens(&image, || "good".into(), grant);
    for (auth, asked) in [
        (password("me", "s3cret"), 1),
        (
            Auth {
                auth: "bWU6czNjcmV0".into(),
                ..Auth::default()
            },
            2,
        ),
        (
            Auth {
                identity_token: "r/t".into(),
                ..Auth::default()
            },
            3,
        ),
        (
            Auth {
                registry_token: "good".into(),
                ..Auth::default()
            },
            3,
        ),
    ] {
        let scratch = Scratch::new();
        pull_with(&server, &store(&scratch), auth).await.unwrap();
        assert_eq!(service.seen().len(), asked);
    }
    for auth in [
        password("me", "wrong"),
        Auth {
            registry_token: "bad".into(),
            ..Auth::default()
        },
    ] {
        let scratch = Scratch::new();
        let error = pull_with(&server, &store(&scratch), auth)
            .await
            .unwrap_err();
        let line = one_line(&error);
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{line}");
        assert!(!line.contains("wrong") && !line.contains("bad"), "{line}");
    }
}

#[tokio::test]
async fn broken_token_services_are_told_without_their_answers() {
    for (answer, kind, reason) in [
        (
            Response::new(200).body("{\"token\": 17, \"s3cret\": 1}"),
            ErrorKind::Corrupt,
            "is not a token",
        ),
        (
            Response::new(200).body("{}"),
            ErrorKind::Corrupt,
            "has no token",
        ),
        (
            Response::new(200).body(r#"{"token":"a\nb"}"#),
            ErrorKind::Corrupt,
            "control characters",
        ),
        (
            Response::new(403),
            ErrorKind::Unauthorized,
            "answers HTTP status 403",
        ),
        (
            Response::new(500),
            ErrorKind::Unavailable,
            "HTTP status 500",
        ),
        (
            Response::new(200).body(vec![b'x'; 2 << 20]),
            ErrorKind::Unavailable,
            "limit",
        ),
    ] {
        let (server, _service) =
            with_tokens(&small(Pack::Gzip), || "t".into(), move |_| answer.clone());
        let scratch = Scratch::new();
        let error = pull_from(&server, &store(&scratch)).await.unwrap_err();
        let line = one_line(&error);
        assert!(
            line.contains(reason) && !line.contains("s3cret"),
            "{reason}: {line}"
        );
        assert_eq!(error.kind(), kind, "{line}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_its_kind_says_so() {
    let image = small(Pack::Gzip);
    let server = content(&image)
        .serve_with(|_, _| Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let scratch = Scratch::new();
    let error = pull_with(&server, &store(&scratch), password("me", "s3cret"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(
        one_line(&error).contains("the credentials were refused"),
        "{}",
        one_line(&error)
    );
    assert_eq!(server.seen().len(), 2);
    let error = pull_from(&server, &store(&Scratch::new()))
        .await
        .unwrap_err();
    assert!(
        one_line(&error).contains("none were given"),
        "{}",
        one_line(&error)
    );
}

#[tokio::test]
async fn mirrors_are_asked_in_order_without_the_registrys_credentials() {
    let image = small(Pack::Gzip);
    let (empty, half) = (Content::default().serve(), {
        let mut half = content(&image);
        half.blobs.remove(&image.layers[1].digest().to_string());
        half.serve()
    });
    let upstream =
        content(&image).serve_with(|request, response| match request.header("authorization") {
            Some("Basic bWU6czNjcmV0") => response,
            _ => Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        });
    let scratch = Scratch::new();
    hosts_toml(
        &scratch,
        "registry.test",
        &format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"http://{}\"]\n[host.\"http://{}\".header]\nX-Mirror = \"yes\"\n",
            upstream.name(),
            empty.name(),
            half.name(),
            half.name()
        ),
    );
    let reference = "registry.test/app:v1".to_owned();
    let request = PullRequest {
        reference,
        auth: Some(password("me", "s3cret")),
        platform: None,
    };
    let pulled = store(&scratch)
        .pull(request, ProgressSink::none())
        .await
        .unwrap();
    assert_eq!(pulled.repo_tags, ["registry.test/app:v1"]);
    // The manifest, the config and one layer came from the second mirror, the other layer from the registry itself.
    assert_eq!(
        (empty.seen().len(), half.seen().len(), upstream.seen().len()),
        (4, 4, 2)
    );
    assert!(
        empty
            .seen()
            .iter()
            .chain(&half.seen())
            .all(|r| r.header("authorization").is_none() && r.path.ends_with("?ns=registry.test"))
    );
    assert!(
        half.seen()
            .iter()
            .all(|request| request.header("x-mirror") == Some("yes"))
    );
    assert!(
        upstream
            .seen()
            .iter()
            .all(|request| request.header("x-mirror").is_none())
    );
}

#[tokio::test]
async fn a_mirror_without_the_capability_to_resolve_is_not_asked_for_tags() {
    let image = small(Pack::Gzip);
    let (mirror, upstream) = (content(&image).serve(), content(&image).serve());
    let scratch = Scratch::new();
    hosts_toml(
        &scratch,
        "registry.test",
        &format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
            upstream.name(),
            mirror.name()
        ),
    );
    pull(&store(&scratch), "registry.test/app:v1")
        .await
        .unwrap();
    assert_eq!(
        (upstream.count("/manifests/"), mirror.count("/manifests/")),
        (1, 0)
    );
    assert_eq!((upstream.count("/blobs/"), mirror.count("/blobs/")), (0, 3));
}

#[tokio::test]
async fn the_error_of_the_registry_itself_is_told_when_mirrors_fail_as_well() {
    let (mirror, upstream) = (
        Server::start(|_| Response::new(403)),
        Content::default().serve(),
    );
    let scratch = Scratch::new();
    hosts_toml(
        &scratch,
        "_default",
        &format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\n",
            upstream.name(),
            mirror.name()
        ),
    );
    let error = pull(&store(&scratch), "registry.test/app:v1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        one_line(&error).contains(&upstream.name()),
        "{}",
        one_line(&error)
    );
}

#[tokio::test]
async fn a_digest_is_computed_and_not_believed() {
    let image = small(Pack::Gzip);
    let server = content(&image).serve_with(|_, response| {
        response.header("Docker-Content-Digest", Digest::of(b"lie").to_string())
    });
    let scratch = Scratch::new();
    let pulled = pull_from(&server, &store(&scratch)).await.unwrap();
    assert_eq!(
        pulled.repo_digests,
        [format!("{}/app@{}", server.name(), image.digest())]
    );
}
