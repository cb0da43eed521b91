//! A measurement, not a test: ADD and DEL of the bridge plugin, ours against the reference, alternating in one run.
//! `DAVIT_CNI=<static binary> cargo test -p cni --test latency -- --ignored --nocapture`
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use cni::{Attachment, Executor, NetworkList};
use serde_json::json;
use support::*;

const ROUNDS: usize = 40;

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

struct Side {
    name: &'static str,
    executor: Executor,
    network: NetworkList,
    netns_dies: bool,
    add: Vec<Duration>,
    del: Vec<Duration>,
}

#[test]
#[ignore = "a measurement"]
fn add_and_del_take_this_long() {
    let Some(reference) = reference_dir().filter(|_| is_root()) else {
        return;
    };
    let world = World::new();
    let binary = std::env::var("DAVIT_CNI").unwrap_or_else(|_| davit_cni().to_owned());
    let ours = world.path("ours");
    std::fs::create_dir(&ours).unwrap();
    for name in cni::plugin::NAMES {
        std::os::unix::fs::symlink(&binary, ours.join(name)).unwrap();
    }
    let side = |name: &'static str, dir: &Path, subnet: &str, dies: bool| Side {
        name,
        executor: world.executor_of(vec![dir.to_owned()]),
        network: world.network(name, subnet, json!({"capabilities": {"netnsDies": true}})),
        netns_dies: dies,
        add: Vec::new(),
        del: Vec::new(),
    };
    let mut sides = [
        side("reference", &reference, "10.203.1.0/24", false),
        side("ours", &ours, "10.203.2.0/24", false),
        side("ours-dying", &ours, "10.203.3.0/24", true),
    ];
    for round in 0..ROUNDS {
        for side in &mut sides {
            let pod = Namespace::new("lat");
            let mut attachment = Attachment::new(format!("pod-{round}")).in_netns(&pod.path);
            if side.netns_dies {
                attachment = attachment.with_capability("netnsDies", json!(true));
            }
            let (executor, network) = (&side.executor, &side.network);
            let (add, del) = world.host.run(|| {
                let add = timed(|| drop(executor.add(network, &attachment).unwrap()));
                (add, timed(|| executor.del(network, &attachment).unwrap()))
            });
            side.add.push(add);
            side.del.push(del);
        }
    }
    for side in sides {
        println!(
            "{:>12}: ADD {:6.2} ms, DEL {:6.2} ms (medians of {ROUNDS})",
            side.name,
            median(side.add),
            median(side.del)
        );
    }
}
