//! SIGHUP: the configuration is read again. Handlers and the log level change, what cannot is reported, and a file with
//! mistakes changes nothing.

use std::fmt::Debug;

use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::config::Settings;
use crate::flags::Flags;
use crate::logging;
use crate::node::Node;

/// Waits for SIGHUP, for ever.
pub(super) async fn on_hangup(mut signal: Signal, flags: &Flags, node: &Node, mut now: Settings) {
    while signal.recv().await.is_some() {
        info!("SIGHUP: reading the configuration again");
        match Settings::load(flags) {
            Ok(new) => apply(node, &mut now, new).await,
            Err(problems) => {
                for problem in problems.to_string().lines() {
                    warn!("{problem}");
                }
                warn!("the configuration has mistakes; nothing was changed");
            }
        }
    }
}

async fn apply(node: &Node, now: &mut Settings, new: Settings) {
    let to = engine::Reload {
        handlers: new.engine.handlers.clone(),
        default_handler: new.engine.default_handler.clone(),
    };
    let reloaded = match node.engine() {
        Ok(engine) => engine.reload(to).await.map_err(|error| error.report()),
        Err(status) => Err(status.message().to_owned()),
    };
    match reloaded {
        Ok(()) => {
            now.engine.handlers = new.engine.handlers.clone();
            now.engine
                .default_handler
                .clone_from(&new.engine.default_handler);
            info!(runtimes = ?now.engine.handlers.keys(), default = now.engine.default_handler, "runtime handlers reloaded");
        }
        Err(why) => warn!(why, "the runtime handlers were not changed"),
    }
    if new.log_level != now.log_level {
        logging::set_level(new.log_level);
        now.log_level = new.log_level;
        info!(level = ?now.log_level, "log level changed");
    }
    for key in fixed(now, &new) {
        warn!(
            key,
            "changed in the configuration; this takes effect at the next start"
        );
    }
}

/// What differs and cannot change while the daemon runs.
fn fixed(now: &Settings, new: &Settings) -> Vec<&'static str> {
    let same = |a: &dyn Debug, b: &dyn Debug| format!("{a:?}") == format!("{b:?}");
    let (old, other) = (&now.engine, &new.engine);
    [
        ("socket", same(&now.socket, &new.socket)),
        ("metrics.address", same(&now.metrics, &new.metrics)),
        ("streaming", same(&now.streaming, &new.streaming)),
        ("run_dir", same(&old.run_dir, &other.run_dir)),
        ("state_dir", same(&old.state_dir, &other.state_dir)),
        ("shim", same(&old.shim, &other.shim)),
        ("cgroup_root", same(&old.cgroup_root, &other.cgroup_root)),
        (
            "cgroup_driver",
            same(&old.cgroup_driver, &other.cgroup_driver),
        ),
        ("images", same(&old.images, &other.images)),
        ("hosts_dirs", same(&old.hosts_dirs, &other.hosts_dirs)),
        ("network", same(&old.network, &other.network)),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(key, _)| key)
    .collect()
}
