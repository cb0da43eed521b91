//! `kill -9` at every step of a pull: what the next start finds, and that the same pull succeeds then.
//!
//! Needs the feature `failpoints`. The pull runs in a process of its own: this very test binary with another argument.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use snapshotter::ErrorKind;
use support::image::{Pack, small};
use support::registry::Content;
use support::{Scratch, assert_clean, pull, store};

/// Every step, and whether the image is there after a crash at it.
const STEPS: [(&str, bool); 7] = [
    ("pull.resolved", false),
    ("pull.manifest", false),
    ("pull.layer.downloaded", false),
    ("pull.layer.unpacked", false),
    ("pull.synced", false),
    ("pull.renamed", false),
    ("pull.recorded", true),
];

/// Pulls in another process with a fail point armed.
fn pull_in_child(scratch: &Scratch, reference: &str, step: &str, action: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "child"])
        .env("DAVIT_FAILPOINTS", format!("{step}={action}"))
        .env("DAVIT_TEST_ROOT", scratch.path())
        .env("DAVIT_TEST_REFERENCE", reference)
        .output()
        .unwrap()
}

#[test]
#[ignore = "run by the other tests in a process of its own"]
fn child() {
    let root = std::env::var("DAVIT_TEST_ROOT").expect("set by the other tests");
    let reference = std::env::var("DAVIT_TEST_REFERENCE").unwrap();
    let options = snapshotter::Options {
        root: format!("{root}/store").into(),
        hosts_dirs: vec![],
        ..snapshotter::Options::default()
    };
    let store = snapshotter::Store::open(options).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(pull(&store, &reference)) {
        Ok(image) => println!("pulled {}", image.id),
        Err(error) => println!(
            "failed {:?}: {}",
            error.kind(),
            snapshotter::one_line(&error)
        ),
    }
}

#[test]
fn a_crash_at_any_step_of_a_pull_leaves_nothing_and_the_next_pull_succeeds() {
    let image = small(Pack::Gzip);
    let server = Content::with(&image, "v1").serve();
    let reference = format!("{}/app:v1", server.name());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (step, there) in STEPS {
        let scratch = Scratch::new();
        let output = pull_in_child(&scratch, &reference, step, "kill");
        assert_eq!(output.status.signal(), Some(9), "{step}: {output:?}");
        {
            let store = store(&scratch);
            assert_eq!(store.images().unwrap().len(), usize::from(there), "{step}");
            assert_clean(&scratch, if there { 2 } else { 0 });
        }
        let store = store(&scratch);
        assert_eq!(
            runtime.block_on(pull(&store, &reference)).unwrap().id,
            image.id(),
            "{step}"
        );
        assert_clean(&scratch, 2);
        assert_eq!(store.images().unwrap()[0].repo_tags, [reference.as_str()]);
    }
}

#[test]
fn a_failure_at_any_step_of_a_pull_leaves_nothing_and_the_next_pull_succeeds() {
    let image = small(Pack::Zstd);
    let server = Content::with(&image, "v1").serve();
    let reference = format!("{}/app:v1", server.name());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (step, there) in STEPS {
        let scratch = Scratch::new();
        let output = pull_in_child(&scratch, &reference, step, "error");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success()
                && text.contains(&format!("failed {:?}: pull ", ErrorKind::Io))
                && text.contains(step),
            "{step}: {text}"
        );
        // Looked at before the next start could clean up.
        assert_clean(&scratch, if there { 2 } else { 0 });
        let store = store(&scratch);
        assert_eq!(
            runtime.block_on(pull(&store, &reference)).unwrap().id,
            image.id(),
            "{step}"
        );
    }
}

#[test]
fn a_crash_in_the_middle_of_replacing_a_tag_keeps_either_the_old_or_the_new_image() {
    let (old, new) = (
        small(Pack::Gzip),
        support::image::image(vec![small(Pack::Gzip).layers[1].clone()]),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (step, moved) in STEPS {
        let scratch = Scratch::new();
        let switch = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (first, second, new_now) = (
            Content::with(&old, "v1"),
            Content::with(&new, "v1"),
            switch.clone(),
        );
        let server = support::http::Server::start(move |request| {
            if new_now.load(std::sync::atomic::Ordering::Relaxed) {
                second.answer(request)
            } else {
                first.answer(request)
            }
        });
        let reference = format!("{}/app:v1", server.name());
        assert_eq!(
            runtime
                .block_on(pull(&store(&scratch), &reference))
                .unwrap()
                .id,
            old.id()
        );
        switch.store(true, std::sync::atomic::Ordering::Relaxed);
        let output = pull_in_child(&scratch, &reference, step, "kill");
        // The only layer of the new image is there already: two steps do not happen.
        let killed = !step.starts_with("pull.layer.");
        assert_eq!(
            output.status.signal() == Some(9),
            killed,
            "{step}: {output:?}"
        );
        let store = store(&scratch);
        let tagged = store.image(&reference).unwrap().unwrap();
        assert_eq!(
            tagged.id,
            if moved || !killed { new.id() } else { old.id() },
            "{step}"
        );
    }
}
