//! Pulls an image into a store and says how long it took: `pull <store> <reference>`.

use std::time::Instant;

use snapshotter::{Options, ProgressSink, PullRequest, Store};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(reference)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: pull <store> <reference>");
    };
    let store = Store::open(Options {
        root: root.into(),
        ..Options::default()
    })?;
    let request = PullRequest {
        reference,
        auth: None,
        platform: None,
    };
    let start = Instant::now();
    let image = store.pull(request, ProgressSink::none()).await?;
    println!("{} {:.3} s", image.id, start.elapsed().as_secs_f64());
    Ok(())
}
