//! Imports of layouts and archives.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use snapshotter::{ErrorKind, Image, ProgressSink, Store};
use support::image::{Layer, Pack, Tar, docker_archive, gzip, image, small, write_layout};
use support::{Scratch, assert_clean, store};

async fn import(
    store: &Store,
    path: &std::path::Path,
    name: Option<&str>,
) -> Result<Vec<Image>, snapshotter::Error> {
    store.import(path, name, ProgressSink::none()).await
}

/// A directory as a tar file.
fn tar_of(dir: &std::path::Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn a_layout_is_imported_as_a_directory_and_as_an_archive_of_any_packing() {
    let scratch = Scratch::new();
    let image = small(Pack::Gzip);
    let dir = scratch.join("layout");
    write_layout(&dir, &[(Some("registry.test/app:v1"), &image)]);
    let plain = tar_of(&dir);
    std::fs::write(scratch.join("plain.tar"), &plain).unwrap();
    std::fs::write(scratch.join("packed.tar.gz"), gzip(&plain)).unwrap();
    std::fs::write(
        scratch.join("packed.tar.zst"),
        zstd::encode_all(&plain[..], 1).unwrap(),
    )
    .unwrap();
    for file in ["layout", "plain.tar", "packed.tar.gz", "packed.tar.zst"] {
        let scratch_store = Scratch::new();
        let store = store(&scratch_store);
        let images = import(&store, &scratch.join(file), None).await.unwrap();
        assert_eq!(images.len(), 1, "{file}");
        assert_eq!(images[0].id, image.id());
        assert_eq!(images[0].repo_tags, ["registry.test/app:v1"]);
        assert_eq!(
            images[0].repo_digests,
            [format!("registry.test/app@{}", image.digest())]
        );
        assert!(
            store
                .layer_path(&images[0].layers[1])
                .join("etc/added")
                .exists()
        );
        assert_clean(&scratch_store, 2);
    }
}

#[tokio::test]
async fn a_docker_archive_is_imported_with_all_its_images_and_tags() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let one = small(Pack::Plain);
    let two = image(vec![Layer::new(
        Tar::new().file("two", b"2").finish(),
        Pack::Plain,
    )]);
    let archive = docker_archive(&[(&["app:1", "app:latest"], &one), (&["two:2"], &two)]);
    std::fs::write(scratch.join("saved.tar"), archive).unwrap();
    let images = import(&store, &scratch.join("saved.tar"), None)
        .await
        .unwrap();
    assert_eq!(
        images.iter().map(|image| image.id).collect::<Vec<_>>(),
        [one.id(), two.id()]
    );
    assert_eq!(
        images[0].repo_tags,
        ["docker.io/library/app:1", "docker.io/library/app:latest"]
    );
    assert_eq!(images[0].repo_digests, Vec::<String>::new());
    assert_eq!(store.image("two:2").unwrap().unwrap().id, two.id());
    let refused = import(&store, &scratch.join("saved.tar"), Some("x"))
        .await
        .unwrap_err();
    assert!(
        snapshotter::one_line(&refused).contains("it holds 2 images"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_image_without_a_name_gets_the_given_one_or_none() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let image = small(Pack::Zstd);
    write_layout(&scratch.join("layout"), &[(Some("latest"), &image)]);
    let unnamed = import(&store, &scratch.join("layout"), None).await.unwrap();
    assert_eq!(unnamed[0].repo_tags, Vec::<String>::new());
    let named = import(&store, &scratch.join("layout"), Some("sample:1"))
        .await
        .unwrap();
    assert_eq!(named[0].repo_tags, ["docker.io/library/sample:1"]);
    assert_eq!(store.images().unwrap().len(), 1);
}

#[tokio::test]
async fn broken_archives_are_refused_with_the_file_and_the_reason_and_leave_nothing() {
    let image = small(Pack::Gzip);
    let layer = format!("blobs/sha256/{}", image.layers[0].digest().hex());
    let manifest = format!("blobs/sha256/{}", image.digest().hex());
    let config = format!("blobs/sha256/{}", image.id().hex());
    type Break<'a> = Box<dyn Fn(&std::path::Path) + 'a>;
    let write = |file: &str, bytes: &'static [u8]| -> Break<'_> {
        let file = file.to_owned();
        Box::new(move |dir| std::fs::write(dir.join(&file), bytes).unwrap())
    };
    let remove = |file: &str| -> Break<'_> {
        let file = file.to_owned();
        Box::new(move |dir| std::fs::remove_file(dir.join(&file)).unwrap())
    };
    let cases: Vec<(Break<'_>, &str)> = vec![
        (remove("index.json"), "neither index.json"),
        (write("index.json", b"{"), "EOF while parsing"),
        (
            write("index.json", b"{\"schemaVersion\":2,\"manifests\":[]}"),
            "it names no image",
        ),
        (
            write("oci-layout", b"{\"imageLayoutVersion\":\"2.0\"}"),
            "version \"2.0\" is not known",
        ),
        (remove(&manifest), "it is missing"),
        (write(&manifest, b"{}"), "has sha256:"),
        (write(&config, b"{}"), "has sha256:"),
        (remove(&layer), "it is missing"),
        (write(&layer, b"short"), "of "),
        (
            Box::new(|dir: &std::path::Path| {
                let mut bytes = std::fs::read(dir.join(&layer)).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(dir.join(&layer), bytes).unwrap();
            }),
            "has sha256:",
        ),
    ];
    for (spoil, reason) in cases {
        let scratch = Scratch::new();
        let store = store(&scratch);
        let dir = scratch.join("layout");
        write_layout(&dir, &[(None, &image)]);
        spoil(&dir);
        let error = import(&store, &dir, Some("x")).await.unwrap_err();
        let line = snapshotter::one_line(&error);
        assert!(
            line.starts_with("import /var/tmp/") && line.contains(reason),
            "{reason}: {line}"
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{line}");
        assert_clean(&scratch, 0);
    }
}

#[tokio::test]
async fn files_that_are_no_archive_are_refused() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    std::fs::write(scratch.join("text"), "hello").unwrap();
    std::fs::write(scratch.join("empty.tar"), [0; 1024]).unwrap();
    let truncated = {
        let image = small(Pack::Plain);
        let archive = docker_archive(&[(&["x"], &image)]);
        archive[..archive.len() / 2].to_vec()
    };
    std::fs::write(scratch.join("truncated.tar"), truncated).unwrap();
    for (file, reason) in [
        ("text", "the archive ends early"),
        ("empty.tar", "neither index.json"),
        ("truncated.tar", "ends "),
        ("absent", "No such file"),
    ] {
        let error = import(&store, &scratch.join(file), None).await.unwrap_err();
        let line = snapshotter::one_line(&error);
        assert!(
            line.contains(file) && line.contains(reason),
            "{file}: {line}"
        );
    }
    assert_clean(&scratch, 0);
}
