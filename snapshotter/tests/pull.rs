//! Pulls from registries that behave.

mod support;

use std::os::unix::fs::FileTypeExt;

use snapshotter::{Digest, ErrorKind, Phase, Platform, ProgressSink, PullRequest, Store};
use support::image::{self, Layer, Pack, Tar, index, noise, small};
use support::registry::{Content, DockerRegistry};
use support::{Scratch, assert_clean, names, options, pull, request, store};

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
        assert!(pulled.repo_digests.contains(&format!(
            "{}/test/app@{}",
            registry.address,
            image.digest()
        )));
        assert_eq!(pulled.layers.len(), 2);
        let base = store.layer_path(&pulled.layers[0]);
        assert_eq!(
            std::fs::read_to_string(base.join("etc/os-release")).unwrap(),
            "ID=test\n"
        );
        let gone =
            std::fs::symlink_metadata(store.layer_path(&pulled.layers[1]).join("gone")).unwrap();
        assert!(gone.file_type().is_char_device());
    }
    // The three differ in their packing only.
    assert_eq!(store.images().unwrap().len(), 1);
    assert_clean(&scratch, 2);
}
