//! Images as volumes: what a container sees of them, how they fail, and that their layers stay while somebody looks.

mod common;

use std::fs;

use common::{Bench, IMAGE, image, shell};
use engine::Kind;
use engine::model::{ContainerConfig, Mount, PodConfig};

const DATA: &str = "davit.test/data:1";
const FOREVER: &str = "while :; do sleep 1; done";

async fn bench(handler: &str) -> (Bench, String) {
    let bench = Bench::new(handler).await;
    let layout = bench.path().join("data");
    image::write_data_layout(&layout);
    bench.import(&layout, DATA).await;
    let pod = bench.host_pod("volumes");
    let pod = bench.engine().run_pod(pod, "").await.expect("a pod");
    (bench, pod)
}

fn volume(image: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: "/data".into(),
        image: image.into(),
        image_sub_path: sub_path.into(),
        ..Mount::default()
    }
}

fn with(volume: Mount) -> ContainerConfig {
    let mut config = shell("main", FOREVER);
    config.mounts = vec![volume];
    config
}

async fn start(bench: &Bench, pod: &str, volume: Mount) -> String {
    let id = bench.create(pod, with(volume)).await;
    bench.engine().start_container(&id).await.expect("started");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_a_read_only_volume_without_programs_and_devices() {
    for handler in ["runc", "davit-oci"] {
        let (mut bench, pod) = bench(handler).await;
        let id = start(&bench, &pod, volume(DATA, "")).await;
        assert_eq!(
            bench.sh(&id, "cat /data/models/small/weights").await,
            "1 2 3"
        );
        assert_eq!(
            bench
                .sh(&id, "/data/models/run 2>/dev/null || echo refused")
                .await,
            "refused",
            "{handler}"
        );
        assert_eq!(
            bench
                .sh(&id, "touch /data/x 2>/dev/null || echo refused")
                .await,
            "refused"
        );
        let options = bench.sh(&id, "mount").await;
        let line = options.lines().find(|line| line.contains(" /data "));
        let line = line.unwrap_or_else(|| panic!("{options}"));
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(line.contains(option), "{handler}: {line}");
        }
        let status = bench.engine().container_status(&id).expect("known");
        assert_eq!(status.mounts, [volume(DATA, "")], "as it was asked for");
        bench.expect_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_the_image_is_shown_alone_and_links_in_it_do_not_lead_out() {
    let (mut bench, pod) = bench("runc").await;
    let id = start(&bench, &pod, volume(DATA, "models/small")).await;
    assert_eq!(bench.sh(&id, "ls /data").await, "weights");
    bench.engine().remove_container(&id).await.expect("removed");
    let id = start(&bench, &pod, volume(DATA, "models/small/weights")).await;
    assert_eq!(bench.sh(&id, "cat /data").await, "1 2 3", "a file");
    bench.engine().remove_container(&id).await.expect("removed");
    // The image has no /etc, whatever the host has.
    for link in ["models/out", "models/up", "../etc"] {
        let result = bench.engine();
        let result = result.create_container(&pod, with(volume(DATA, link)), PodConfig::default());
        let error = result.await.expect_err(link).report();
        assert!(
            error.contains("the image has no such path"),
            "{link}: {error}"
        );
    }
    bench.expect_clean().await;
}

/// cri-api, `pkg/errors`: a kubelet shows this name as the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_mounted_is_named_and_leaves_nothing() {
    let (mut bench, pod) = bench("runc").await;
    let before = bench.leftovers();
    for (volume, expected) in [
        (
            volume(DATA, "no/such"),
            "ImageVolumeMountFailed: mount image \"davit.test/data:1\" at \"/data\": path \"no/such\": the image has no such path",
        ),
        (
            volume("davit.test/none:1", ""),
            "ImageVolumeMountFailed: mount image \"davit.test/none:1\" at \"/data\": it is not on this node: pull it first",
        ),
    ] {
        let engine = bench.engine();
        let result = engine.create_container(&pod, with(volume), PodConfig::default());
        let error = result.await.expect_err("refused");
        assert_eq!(
            (error.kind(), error.report().as_str()),
            (Kind::Named, expected)
        );
        assert_eq!(bench.leftovers(), before);
    }
    let both = Mount {
        host_path: "/tmp".into(),
        ..volume(DATA, "")
    };
    let engine = bench.engine();
    let result = engine.create_container(&pod, with(both), PodConfig::default());
    assert_eq!(
        result.await.expect_err("both").kind(),
        Kind::InvalidArgument
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_image_stays_readable_for_its_containers_over_a_restart_and_goes_with_them() {
    let (mut bench, pod) = bench("runc").await;
    let id = start(&bench, &pod, volume(DATA, "")).await;
    let layers = || {
        fs::read_dir(bench.config.state_dir.join("layers"))
            .expect("layers")
            .count()
    };
    assert_eq!(layers(), 2);
    for image in [DATA, IMAGE] {
        bench.engine().remove_image(image).await.expect("removed");
    }
    assert_eq!(bench.engine().list_images(None).await.expect("a list"), []);
    bench.restart().await;
    let weights = "cat /data/models/small/weights";
    assert_eq!(bench.sh(&id, weights).await, "1 2 3");
    bench.engine().remove_container(&id).await.expect("removed");
    bench.restart().await;
    let layers = fs::read_dir(bench.config.state_dir.join("layers")).expect("layers");
    assert_eq!(layers.count(), 0, "nobody needs them any more");
    bench.expect_clean().await;
}

/// The record says which layers a container needs. Without it the kernel still knows.
#[tokio::test(flavor = "multi_thread")]
async fn layers_of_a_container_whose_record_does_not_load_stay_until_it_is_removed() {
    let (mut bench, pod) = bench("runc").await;
    let id = start(&bench, &pod, volume(DATA, "")).await;
    for image in [DATA, IMAGE] {
        bench.engine().remove_image(image).await.expect("removed");
    }
    bench.close().await;
    let record = bench.config.run_dir.join("pods").join(&pod).join(&id);
    fs::write(record.join("container.json"), "{").expect("broken");
    bench.open().await;
    let layers = |bench: &Bench| {
        let names = fs::read_dir(bench.config.state_dir.join("layers")).expect("layers");
        names.count()
    };
    assert_eq!(layers(&bench), 2, "both are mounted");
    let root = bench.config.run_dir.join("pods").join(&pod).join(&id);
    assert!(root.join("rootfs/bin/busybox").is_file());
    assert!(root.join("volumes/0/models/small/weights").is_file());
    bench.engine().remove_container(&id).await.expect("removed");
    bench.restart().await;
    assert_eq!(layers(&bench), 0);
    bench.expect_clean().await;
}
