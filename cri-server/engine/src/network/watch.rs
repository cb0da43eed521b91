//! The configuration directory and the plugins' own word, watched: a node becomes ready, or ceases to be, without
//! anybody's asking, and people read in the log when and why.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cni::NetworkList;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Source;

/// How often plugins are asked that can say whether they are ready (STATUS).
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often the directory is looked at where it cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Files are written in several steps: the last one counts.
const SETTLE: Duration = Duration::from_millis(20);

/// A thread that watches, until dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    /// Closing it ends the thread.
    _alive: Option<OwnedFd>,
}

/// What was last seen.
#[derive(Default)]
struct Seen {
    network: Option<NetworkList>,
    /// What the plugins of that network said.
    plugins: Option<Result<(), String>>,
    /// What was last written to the log.
    logged: String,
}

impl Watch {
    pub(super) fn start(source: &Arc<Source>) -> Watch {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let alive = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).ok();
        let (end, alive) = alive.map_or((None, None), |(end, alive)| (Some(end), Some(alive)));
        if let Some(end) = end {
            let (source, seen) = (Arc::clone(source), Arc::clone(&seen));
            let watching = move || watch(&source, &seen, &end);
            let started = std::thread::Builder::new()
                .name("network-watch".into())
                .spawn(watching);
            if let Err(error) = started {
                tracing::warn!(%error, "the network configuration is not watched, only read when needed");
            }
        }
        Watch {
            seen,
            _alive: alive,
        }
    }

    /// What the plugins of a network said last; those that cannot be asked are ready.
    pub(super) fn plugins_say(&self, network: &NetworkList) -> Result<(), String> {
        if !can_be_asked(network) {
            return Ok(());
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (&seen.network, &seen.plugins) {
            (Some(asked), Some(said)) if asked == network => said.clone(),
            _ => Err(format!(
                "the plugins of network {:?} have not answered yet",
                network.name()
            )),
        }
    }
}

/// Our own plugins are always ready, and others learnt the question in 1.1.0.
fn can_be_asked(network: &NetworkList) -> bool {
    !network.is_builtin() && network.cni_version() >= cni::Version::V1_1_0
}

fn watch(source: &Source, seen: &Mutex<Seen>, end: &OwnedFd) {
    loop {
        // Before the look: what changes during it is seen by the next one.
        let inotify = watched(&source.conf_dir);
        let asked = look(source, seen);
        let patience = match (&inotify, asked) {
            (None, _) => Some(LOOK_AGAIN),
            (Some(_), true) => Some(ASK_AGAIN),
            (Some(_), false) => None,
        };
        if !wait(inotify.as_ref(), end, patience) {
            return;
        }
        // A watch of its own for each look: whatever was renamed or made anew is found by its path.
        if !wait(None, end, Some(SETTLE)) {
            return;
        }
    }
}

/// Looks at the files and asks the plugins; whether there are any to ask.
fn look(source: &Source, seen: &Mutex<Seen>) -> bool {
    let current = source.current();
    let (network, plugins, state) = match current {
        Ok(network) if can_be_asked(&network) => {
            let said = source
                .executor
                .status(&network)
                .map_err(|error| error.to_string());
            let state = match &said {
                Ok(()) => format!("network {:?} is ready", network.name()),
                Err(why) => format!("network {:?} is not ready: {why}", network.name()),
            };
            (Some(network), Some(said), state)
        }
        Ok(network) => {
            let state = format!("pods get network {:?}", network.name());
            (Some(network), None, state)
        }
        Err(error) => (None, None, error.report()),
    };
    let asked = plugins.is_some();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.logged != state {
        tracing::info!("{state}");
    }
    *seen = Seen {
        network,
        plugins,
        logged: state,
    };
    asked
}

/// A watch on the directory, or on the nearest one above it that exists, for it may be made.
fn watched(dir: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let changes = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    dir.ancestors()
        .any(|path| inotify.add_watch(path, changes).is_ok())
        .then_some(inotify)
}

/// Waits for a change, or for as long as `patience` says; false if the watch has ended.
fn wait(inotify: Option<&Inotify>, end: &OwnedFd, patience: Option<Duration>) -> bool {
    let timeout = patience.map_or(PollTimeout::NONE, |time| {
        PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    fds.extend(inotify.map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)));
    loop {
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            // Without a working poll there is nothing to watch with.
            Err(_) => return false,
            Ok(_) => return fds[0].revents().is_none_or(|events| events.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::super::Network;
    use crate::config::NetworkConfig;
    use crate::model::Condition;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        network: Network,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = tempfile::tempdir().unwrap();
            let config = NetworkConfig {
                conf_dir: dir.path().join("etc/net.d"),
                bin_dirs: vec![dir.path().to_owned()],
                cache_dir: dir.path().join("cache"),
                ..NetworkConfig::default()
            };
            let network = Network::new(&config).unwrap();
            Bench { dir, network }
        }

        /// A plugin of which STATUS does `script`.
        fn plugin(&self, script: &str) {
            let path = self.dir.path().join("fake");
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// As editors and installers do: another name first.
        fn configure(&self, text: &str) {
            let dir = self.dir.path().join("etc/net.d");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("new.tmp"), text).unwrap();
            std::fs::rename(dir.join("new.tmp"), dir.join("10-a.conflist")).unwrap();
        }

        fn becomes(&self, status: bool, message: &str) -> Condition {
            let deadline = Instant::now() + Duration::from_secs(8);
            loop {
                let now = self.network.condition();
                if now.status == status && now.message.contains(message) {
                    return now;
                }
                assert!(
                    Instant::now() < deadline,
                    "{status} {message:?}: still {now:?}"
                );
                std::thread::yield_now();
            }
        }
    }

    const ONE: &str = r#"{"cniVersion": "1.1.0", "name": "one", "plugins": [{"type": "fake"}]}"#;

    #[test]
    fn readiness_follows_the_files_and_the_plugins_without_being_asked() {
        let bench = Bench::new();
        bench.becomes(true, "");
        bench.configure("{");
        let broken = bench.becomes(false, "10-a.conflist");
        assert_eq!(broken.reason, "NetworkConfigInvalid");

        bench.plugin("echo '{\"code\": 50, \"msg\": \"the agent is not there\"}'; exit 1");
        bench.configure(ONE);
        let waiting = bench.becomes(false, "the agent is not there");
        assert_eq!(waiting.reason, "NetworkPluginNotReady");

        bench.plugin("exit 0");
        bench.configure(ONE);
        bench.becomes(true, "");

        // Gone with its directory, and there again under the same name.
        std::fs::remove_dir_all(bench.dir.path().join("etc")).unwrap();
        bench.becomes(true, "");
        assert_eq!(bench.network.name(), "davit");
        bench.plugin("echo '{\"code\": 50, \"msg\": \"not yet again\"}'; exit 1");
        bench.configure(ONE);
        bench.becomes(false, "not yet again");
    }

    #[test]
    fn plugins_of_old_versions_are_not_asked() {
        let bench = Bench::new();
        bench.plugin("exit 1");
        bench.configure(&ONE.replace("1.1.0", "1.0.0"));
        bench.becomes(true, "");
    }
}
