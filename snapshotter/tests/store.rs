//! Names, sharing, removal, garbage, locks, full disks: the life of images in the store.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snapshotter::{
    Auth, DiffId, Digest, ErrorKind, Options, ProgressSink, PullRequest, Store, one_line,
};
use support::http::Server;
use support::image::{Layer, Pack, Tar, image, image_for, noise, small};
use support::registry::Content;
use support::{Scratch, assert_clean, eventually, names, options, pull, request, store};

fn one_file(name: &str) -> Layer {
    Layer::new(Tar::new().file(name, name.as_bytes()).finish(), Pack::Gzip)
}

#[tokio::test]
async fn a_tag_that_moves_leaves_the_old_image_with_its_digest_only() {
    let (old, new) = (small(Pack::Gzip), image(vec![one_file("new")]));
    let switch = Arc::new(AtomicBool::new(false));
    let (first, second, moved) = (
        Content::with(&old, "v1"),
        Content::with(&new, "v1"),
        switch.clone(),
    );
    let server = Server::start(move |request| {
        if moved.load(Ordering::Relaxed) {
            second.answer(request)
        } else {
            first.answer(request)
        }
    });
    let name = format!("{}/app", server.name());
    let scratch = Scratch::new();
    let store = store(&scratch);
    pull(&store, &format!("{name}:v1")).await.unwrap();
    switch.store(true, Ordering::Relaxed);
    pull(&store, &format!("{name}:v1")).await.unwrap();
    // The same once more from the disk.
    drop(store);
    let store = support::store(&scratch);
    let old_image = store.image(&old.id().to_string()).unwrap().unwrap();
    assert_eq!(old_image.repo_tags, Vec::<String>::new());
    assert_eq!(old_image.repo_digests, [format!("{name}@{}", old.digest())]);
    let new_image = store.image(&format!("{name}:v1")).unwrap().unwrap();
    assert_eq!(
        (new_image.id, new_image.repo_tags),
        (new.id(), vec![format!("{name}:v1")])
    );
}

#[tokio::test]
async fn an_image_is_found_by_id_beginning_tag_digest_and_short_name() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "latest").serve();
    let scratch = Scratch::new();
    support::hosts_toml(
        &scratch,
        "docker.io",
        &format!("server = \"http://{}\"", server.name()),
    );
    let store = store(&scratch);
    pull(&store, "app").await.unwrap();
    let id = app.id();
    for name in [
        id.to_string(),
        id.hex(),
        id.hex()[..3].to_owned(),
        format!("sha256:{}", &id.hex()[..12]),
        "app".into(),
        "app:latest".into(),
        "library/app".into(),
        "docker.io/library/app:latest".into(),
        format!("app@{}", app.digest()),
        format!("app:other@{}", app.digest()),
    ] {
        assert_eq!(
            store.image(&name).unwrap().map(|image| image.id),
            Some(id),
            "{name}"
        );
    }
    for name in [
        "ab".to_owned(),
        "app:other".into(),
        "other/app".into(),
        format!("app@{id}"),
        "sha256:".into(),
        String::new(),
        "Not A Name".into(),
        "f".repeat(64),
    ] {
        assert_eq!(
            store.image(&name).unwrap().map(|image| image.id),
            None,
            "{name}"
        );
    }
    assert_eq!(
        store.document(app.digest()).unwrap().as_deref(),
        Some(&app.manifest[..])
    );
}

#[tokio::test]
async fn a_shortened_id_that_fits_two_images_is_refused() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let mut content = Content::default();
    let mut seen: Vec<(String, snapshotter::Digest)> = vec![];
    let server_content = {
        // Configs are tried until two ids begin with the same three digits.
        for n in 0.. {
            let app = image_for(vec![one_file("a")], "amd64", &n.to_string());
            let start = app.id().hex()[..3].to_owned();
            if let Some((_, other)) = seen.iter().find(|(known, _)| *known == start) {
                assert_ne!(*other, app.id());
                content.add(&app, "two");
                let other = image_for(
                    vec![one_file("a")],
                    "amd64",
                    &seen
                        .iter()
                        .position(|(known, _)| *known == start)
                        .unwrap()
                        .to_string(),
                );
                content.add(&other, "one");
                seen = vec![(start, other.id())];
                break;
            }
            seen.push((start, app.id()));
        }
        content
    };
    let server = server_content.serve();
    for tag in ["one", "two"] {
        pull(&store, &format!("{}/app:{tag}", server.name()))
            .await
            .unwrap();
    }
    let error = store.image(&seen[0].0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidReference);
    assert!(error.to_string().contains("2 images"), "{error}");
}

#[tokio::test]
async fn an_index_gives_each_platform_its_image_and_the_name_the_indexs_digest() {
    let (amd, arm) = (
        image_for(vec![one_file("amd")], "amd64", ""),
        image_for(vec![one_file("arm")], "arm64", ""),
    );
    let index = support::image::index(&[
        ("unknown/unknown", &arm),
        ("linux/arm64/v8", &arm),
        ("linux/amd64", &amd),
    ]);
    for media_type in [support::image::OCI_INDEX, support::image::DOCKER_LIST] {
        let bytes = String::from_utf8(index.clone())
            .unwrap()
            .replace(support::image::OCI_INDEX, media_type)
            .into_bytes();
        let mut content = Content::with(&amd, "amd");
        content.add(&arm, "arm");
        content.add_manifest("v1", media_type, &bytes);
        let server = content.serve();
        let scratch = Scratch::new();
        let store = store(&scratch);
        let reference = format!("{}/app:v1", server.name());
        let platform = |architecture: &str| {
            Some(snapshotter::Platform {
                os: "linux".into(),
                architecture: architecture.into(),
                variant: None,
            })
        };
        let mut wanted = request(&reference);
        wanted.platform = platform("arm64");
        let pulled = store.pull(wanted, ProgressSink::none()).await.unwrap();
        assert_eq!(
            (pulled.id, pulled.config.arch.as_str()),
            (arm.id(), "arm64")
        );
        let mut wanted = request(&reference);
        wanted.platform = platform("amd64");
        let pulled = store.pull(wanted, ProgressSink::none()).await.unwrap();
        assert_eq!(pulled.id, amd.id());
        assert_eq!(
            pulled.repo_digests,
            [format!("{}/app@{}", server.name(), Digest::of(&bytes))]
        );
        let mut wanted = request(&format!("{}/app:arm", server.name()));
        wanted.platform = platform("s390x");
        let error = store.pull(wanted, ProgressSink::none()).await.unwrap_err();
        assert!(
            one_line(&error).contains("no image for linux/s390x; it has linux/arm64"),
            "{}",
            one_line(&error)
        );
    }
}

#[tokio::test]
async fn a_pull_by_digest_has_no_tag_and_a_repeated_pull_moves_no_layer() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let by_digest = format!("{}/app:v1@{}", server.name(), app.digest());
    let pulled = pull(&store, &by_digest).await.unwrap();
    assert_eq!((pulled.repo_tags.len(), pulled.repo_digests.len()), (0, 1));
    let before = server.count("/blobs/");
    let again = pull(&store, &format!("{}/app:v1", server.name()))
        .await
        .unwrap();
    assert_eq!((again.repo_tags.len(), again.repo_digests.len()), (1, 1));
    assert_eq!((server.count("/blobs/"), before), (3, 3));
}

#[tokio::test]
async fn images_with_a_pinned_name_say_so_and_can_be_removed_all_the_same() {
    let registry = Content::with(&small(Pack::Gzip), "v1").serve();
    let name = format!("{}/app:v1", registry.name());
    let scratch = Scratch::new();
    let mut options = options(&scratch);
    options.pinned = vec!["no name at all!".into(), name.clone()];
    let store = Store::open(options.clone()).unwrap();
    assert!(pull(&store, &name).await.unwrap().pinned);
    drop(store);
    let store = Store::open(options).unwrap();
    assert!(store.images().unwrap()[0].pinned, "after a restart");
    assert!(store.remove(&name).unwrap());
    assert_eq!(store.images().unwrap(), []);
}

#[tokio::test]
async fn removing_takes_all_names_of_an_image_and_the_layers_that_nobody_else_has() {
    let shared = one_file("shared");
    let (one, two) = (
        image(vec![shared.clone(), one_file("one")]),
        image(vec![shared.clone(), one_file("two")]),
    );
    let mut content = Content::with(&one, "a");
    content.add(&one, "b");
    content.add(&two, "c");
    let server = content.serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    for name in ["x/app:a", "y/app:b", "x/app:c"] {
        pull(&store, &format!("{}/{name}", server.name()))
            .await
            .unwrap();
    }
    let used = store.usage().unwrap();
    assert!(used.used_bytes > 0 && used.inodes_used >= 6);
    assert!(store.remove(&format!("{}/x/app:a", server.name())).unwrap());
    store.collect_garbage().unwrap();
    assert_eq!(
        store.image(&format!("{}/y/app:b", server.name())).unwrap(),
        None
    );
    assert!(store.image(&two.id().to_string()).unwrap().is_some());
    assert_eq!(store.document(one.digest()).unwrap(), None);
    assert_clean(&scratch, 2);
    assert!(!store.remove(&one.id().to_string()).unwrap());
    assert!(!store.remove("absent:latest").unwrap());
    assert!(store.remove(&two.id().hex()[..8]).unwrap());
    store.collect_garbage().unwrap();
    assert_clean(&scratch, 0);
    let left = store.usage().unwrap();
    assert_eq!((left.used_bytes, left.inodes_used), (0, 0));
}

#[tokio::test]
async fn leased_layers_outlive_their_image_and_go_with_the_last_lease() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let layers = pull(&store, &format!("{}/app:v1", server.name()))
        .await
        .unwrap()
        .layers;
    let (first, second) = (
        store.lease(&layers).unwrap(),
        store.lease(&layers[..1]).unwrap(),
    );
    assert!(store.remove(&app.id().to_string()).unwrap());
    assert_eq!(store.collect_garbage().unwrap().layers, 0);
    assert_clean(&scratch, 2);
    drop(first);
    eventually("the end of the layer without a lease", || {
        names(&scratch.join("store/layers")).len() == 1
    });
    drop(second);
    eventually("the end of the last layer", || {
        names(&scratch.join("store/layers")).is_empty()
    });
    let error = store.lease(&layers).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn leases_that_end_as_the_store_closes_end_nothing() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let layers = pull(&store, &format!("{}/app:v1", server.name()))
        .await
        .unwrap()
        .layers;
    let lease = store.lease(&layers).unwrap();
    assert!(store.remove(&app.id().to_string()).unwrap());
    store.keep_leases();
    drop(lease);
    assert_eq!(store.collect_garbage().unwrap().layers, 0);
    assert_clean(&scratch, 2);
}

#[tokio::test]
async fn layers_without_image_or_lease_stay_over_a_restart_until_they_are_collected() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let first = store(&scratch);
    let layers = pull(&first, &format!("{}/app:v1", server.name()))
        .await
        .unwrap()
        .layers;
    let lease = first.lease(&layers).unwrap();
    first.remove(&app.id().to_string()).unwrap();
    // As if the process had died with its containers running.
    std::mem::forget(lease);
    let root = scratch.join("store");
    let copy = scratch.join("copy");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(&root)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    let second = Store::open(Options {
        root: copy.clone(),
        ..options(&scratch)
    })
    .unwrap();
    let again = second.lease(&layers[..1]).unwrap();
    let report = second.collect_garbage().unwrap();
    assert_eq!(report.layers, 1);
    assert!(second.layer_path(&layers[0]).is_dir() && !second.layer_path(&layers[1]).exists());
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identical_pulls_at_the_same_time_ask_the_registry_once() {
    let app = image(vec![
        Layer::new(
            Tar::new().file("noise", &noise(4 << 20, 5)).finish(),
            Pack::Gzip,
        ),
        one_file("b"),
    ]);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let reference = format!("{}/app:v1", server.name());
    let pulls: Vec<_> = (0..20)
        .map(|_| {
            let (store, reference) = (store.clone(), reference.clone());
            tokio::spawn(async move { pull(&store, &reference).await })
        })
        .collect();
    for one in pulls {
        assert_eq!(one.await.unwrap().unwrap().id, app.id());
    }
    assert_eq!(server.count(&app.layers[0].digest().hex()), 1);
    assert_clean(&scratch, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_images_with_a_layer_in_common_fetch_it_once_but_not_across_credentials() {
    let common = Layer::new(
        Tar::new().file("noise", &noise(4 << 20, 6)).finish(),
        Pack::Gzip,
    );
    let mut content = Content::default();
    let images: Vec<_> = (0..6)
        .map(|n| image(vec![common.clone(), one_file(&format!("f{n}"))]))
        .collect();
    for (n, one) in images.iter().enumerate() {
        content.add(one, &format!("v{n}"));
    }
    // The common layer comes slowly, so that all pulls meet there.
    let hex = common.digest().hex();
    let server = content.serve_with(move |request, response| {
        if request.path.contains(&hex) {
            response.stall(Duration::from_millis(500))
        } else {
            response
        }
    });
    let scratch = Scratch::new();
    let store = store(&scratch);
    let pulls: Vec<_> = (0..6)
        .map(|n| {
            let (store, reference) = (store.clone(), format!("{}/app:v{n}", server.name()));
            let auth = (n >= 3).then(|| Auth {
                username: "me".into(),
                password: "x".into(),
                ..Auth::default()
            });
            tokio::spawn(async move {
                store
                    .pull(
                        PullRequest {
                            reference,
                            auth,
                            platform: None,
                        },
                        ProgressSink::none(),
                    )
                    .await
            })
        })
        .collect();
    for (one, expected) in pulls.into_iter().zip(&images) {
        assert_eq!(one.await.unwrap().unwrap().id, expected.id());
    }
    assert_eq!(server.count(&common.digest().hex()), 2);
    assert_clean(&scratch, 7);
}

#[tokio::test]
async fn a_pull_goes_on_when_its_caller_goes_away_and_the_next_one_adopts_it() {
    let app = image(vec![Layer::new(
        Tar::new().file("noise", &noise(1 << 20, 7)).finish(),
        Pack::Gzip,
    )]);
    let hex = app.layers[0].digest().hex();
    let server = Content::with(&app, "v1").serve_with(move |request, response| {
        if request.path.contains(&hex) {
            response.stall(Duration::from_millis(400))
        } else {
            response
        }
    });
    let scratch = Scratch::new();
    let store = store(&scratch);
    let reference = format!("{}/app:v1", server.name());
    let cancelled =
        tokio::time::timeout(Duration::from_millis(100), pull(&store, &reference)).await;
    assert!(cancelled.is_err());
    assert_eq!(pull(&store, &reference).await.unwrap().id, app.id());
    assert_eq!(
        (
            server.count("/manifests/"),
            server.count(&app.layers[0].digest().hex())
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pulls_removals_and_garbage_collections_at_the_same_time_keep_the_store_whole() {
    let shared = one_file("shared");
    let images: Vec<_> = (0..4)
        .map(|n| image(vec![shared.clone(), one_file(&format!("f{n}"))]))
        .collect();
    let mut content = Content::default();
    for (n, one) in images.iter().enumerate() {
        content.add(one, &format!("v{n}"));
    }
    let server = content.serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    let mut tasks = vec![];
    for n in 0..4 {
        let (store, reference) = (store.clone(), format!("{}/app:v{n}", server.name()));
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let pulled = pull(&store, &reference).await.unwrap();
                let lease = store.lease(&pulled.layers);
                if lease.is_ok() {
                    assert!(
                        pulled
                            .layers
                            .iter()
                            .all(|layer| store.layer_path(layer).is_dir())
                    );
                }
                let removed = store.clone();
                tokio::task::spawn_blocking(move || {
                    removed.remove(&reference_of(&pulled)).unwrap();
                    removed.collect_garbage().unwrap();
                })
                .await
                .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    store.collect_garbage().unwrap();
    assert_clean(&scratch, 0);
    assert_eq!(store.usage().unwrap().used_bytes, 0);
}

fn reference_of(image: &snapshotter::Image) -> String {
    image.id.to_string()
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let scratch = Scratch::new();
    let first = store(&scratch);
    let error = Store::open(options(&scratch)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(
        text.contains(&format!("in use by process {} (", std::process::id()))
            && text.contains("/store"),
        "{text}"
    );
    drop(first);
    drop(store(&scratch));
}

#[tokio::test]
async fn an_image_whose_layer_was_lost_is_dropped_at_the_next_start_and_can_be_pulled_again() {
    let app = small(Pack::Gzip);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let reference = format!("{}/app:v1", server.name());
    let first = store(&scratch);
    let layers = pull(&first, &reference).await.unwrap().layers;
    let lost = first.layer_path(&layers[0]);
    drop(first);
    std::fs::remove_dir_all(lost.parent().unwrap()).unwrap();
    std::fs::create_dir_all(scratch.join("store/ingest/new-7/fs")).unwrap();
    let second = store(&scratch);
    assert_eq!(second.images().unwrap(), []);
    assert_eq!(second.image(&reference).unwrap(), None);
    assert_clean(&scratch, 1);
    assert_eq!(pull(&second, &reference).await.unwrap().id, app.id());
    assert_clean(&scratch, 2);
}

#[tokio::test]
async fn progress_of_every_layer_ends_with_done_or_exists() {
    let app = image(vec![
        Layer::new(
            Tar::new().file("noise", &noise(3 << 20, 8)).finish(),
            Pack::Gzip,
        ),
        one_file("b"),
    ]);
    let server = Content::with(&app, "v1").serve();
    let scratch = Scratch::new();
    let store = store(&scratch);
    for last in [snapshotter::Phase::Done, snapshotter::Phase::Exists] {
        let events = Arc::new(std::sync::Mutex::new(vec![]));
        let sink = {
            let events = events.clone();
            ProgressSink::new(move |event| events.lock().unwrap().push(event))
        };
        store
            .pull(request(&format!("{}/app:v1", server.name())), sink)
            .await
            .unwrap();
        let events = events.lock().unwrap();
        for layer in &app.layers {
            let own: Vec<_> = events
                .iter()
                .filter(|event| event.layer == layer.digest())
                .collect();
            assert_eq!(own.last().unwrap().phase, last);
            assert!(own.windows(2).all(|two| two[0].current <= two[1].current));
            assert!(
                own.iter()
                    .all(|event| event.total == layer.blob.len() as u64)
            );
        }
        if last == snapshotter::Phase::Done {
            let moving = |event: &&snapshotter::Progress| {
                matches!(
                    event.phase,
                    snapshotter::Phase::Downloading | snapshotter::Phase::Unpacking
                )
            };
            let steps = events.iter().filter(moving).count();
            assert!(steps >= 4, "{steps}");
        }
    }
}

/// A small ext4 file system in a file, mounted in a directory; both go with the value.
struct SmallDisk {
    mount: PathBuf,
    _scratch: Scratch,
}

impl SmallDisk {
    fn new(megabytes: u64) -> SmallDisk {
        let scratch = Scratch::new();
        let (file, mount) = (scratch.join("disk"), scratch.join("mnt"));
        std::fs::File::create(&file)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        std::fs::create_dir(&mount).unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        run(
            "mkfs.ext4",
            &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), file.as_os_str()],
        );
        run(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                file.as_os_str(),
                mount.as_os_str(),
            ],
        );
        SmallDisk {
            mount,
            _scratch: scratch,
        }
    }

    /// Uses up all space.
    fn fill(&self) -> PathBuf {
        let path = self.mount.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096, 512] {
            while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
        }
        file.sync_all().ok();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.mount).status().unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_pull_by_its_kind_leaves_nothing_and_removal_still_works() {
    let disk = SmallDisk::new(24);
    let little = small(Pack::Gzip);
    let big = image(vec![
        Layer::new(
            Tar::new().file("noise", &noise(40 << 20, 9)).finish(),
            Pack::Gzip,
        ),
        one_file("x"),
    ]);
    let mut content = Content::with(&little, "little");
    content.add(&big, "big");
    let server = content.serve();
    let scratch = Scratch::new();
    let root = disk.mount.join("store");
    let store = Store::open(Options {
        root: root.clone(),
        ..options(&scratch)
    })
    .unwrap();
    let reference = |tag: &str| format!("{}/app:{tag}", server.name());
    pull(&store, &reference("little")).await.unwrap();
    let free = |path: &Path| {
        sys::fs::space(std::fs::File::open(path).unwrap())
            .unwrap()
            .bytes_free
    };
    let before = free(&disk.mount);
    let error = pull(&store, &reference("big")).await.unwrap_err();
    let line = one_line(&error);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{line}");
    assert!(
        line.contains("ENOSPC") && line.contains("\"noise\""),
        "{line}"
    );
    assert_eq!(names(&root.join("ingest")), Vec::<String>::new());
    assert_eq!(names(&root.join("layers")).len(), 2);
    eventually("the space's return", || {
        before.abs_diff(free(&disk.mount)) < 1 << 20
    });

    let filler = disk.fill();
    let error = pull(&store, &reference("big")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", one_line(&error));
    assert!(store.remove(&reference("little")).unwrap());
    store.collect_garbage().unwrap();
    assert_eq!(
        (store.images().unwrap(), names(&root.join("layers"))),
        (vec![], vec![])
    );
    std::fs::remove_file(filler).unwrap();
    pull(&store, &reference("little")).await.unwrap();
    drop(store);
    assert_eq!(
        Store::open(Options {
            root,
            ..options(&scratch)
        })
        .unwrap()
        .images()
        .unwrap()
        .len(),
        1
    );
}

#[test]
fn layer_paths_are_below_the_root_by_digest() {
    let scratch = Scratch::new();
    let layer = DiffId(Digest::of(b"x"));
    let expected = scratch
        .join("store/layers")
        .join(Digest::of(b"x").hex())
        .join("fs");
    assert_eq!(store(&scratch).layer_path(&layer), expected);
}
