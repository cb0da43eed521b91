//! `davit down`: every pod stopped and removed through the node itself, then the node, then what a crash left.
//!
//! A daemon that is dead while pods run is started once more for this: it finds its pods again and knows best how to
//! take them down. Only what it cannot take is removed by hand, by its `sweep` module.

use std::fs;
use std::time::Duration;

use proto::runtime::v1::{ListPodSandboxRequest, PodSandbox};

use crate::args::DownOptions;
use crate::client::Client;
use crate::daemon::{self, Settings};
use crate::format::{print, short_id};
use crate::node::Node;
use crate::sweep::Sweep;
use crate::{Error, Result, sample};

/// How long the daemon may take to end once it has no pods.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command. Nothing there to take down is success.
///
/// # Errors
/// What could not be removed, one line each; everything else was removed all the same.
pub async fn run(node: &Node, options: &DownOptions) -> Result<u8> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot { command: "down" });
    }
    // Before anything is stopped: what follows removes what these directories hold.
    node.refuse_foreign_directories()?;
    let mut notes = Vec::new();
    let client = find(node, &mut notes).await?;
    let settings = Settings::of_node(node, client.as_ref().map(|client| client.pid));
    if let Some(mut client) = client {
        let patience = Duration::from_secs(options.timeout);
        match tokio::time::timeout(patience, remove_pods(&mut client, &mut notes)).await {
            Ok(outcome) => outcome?,
            Err(_) => notes.push(format!(
                "pods were still stopping after {} s",
                options.timeout
            )),
        }
        daemon::stop(client.pid, DAEMON_PATIENCE).await?;
        print(&format!("node     stopped (process {})\n", client.pid))?;
    }
    for note in notes {
        // What the node could not do is tried by hand next; only what then is left makes this a failure.
        eprintln!("note: {note}");
    }
    let left = Sweep::new(node, &settings, options.purge).run().await;
    if !left.is_empty() {
        return Err(Error::Left { left });
    }
    print(&farewell(node, options.purge))?;
    Ok(0)
}

/// The running daemon; or a new one, if the old one died and left pods.
async fn find(node: &Node, notes: &mut Vec<String>) -> Result<Option<Client>> {
    match Client::wait_ready(node, DAEMON_PATIENCE).await {
        Ok(client) => {
            refuse_strangers(&client)?;
            Ok(Some(client))
        }
        // It answers, but not as it should: that is for a person to look at.
        Err(error @ Error::Refused { .. }) => Err(error),
        Err(error) => {
            // One that hangs, or whose socket was deleted, would keep a new one from starting.
            for pid in daemon::running(node) {
                notes.push(format!(
                    "process {pid} is the node and does not answer: ended"
                ));
                daemon::stop(pid, DAEMON_PATIENCE).await?;
            }
            if !has_pods(node) {
                return Ok(None);
            }
            notes.push(format!(
                "{error}; starting it once more to take its pods down"
            ));
            let settings = Settings::of_node(node, None);
            match daemon::restart(node, &settings.args, DAEMON_PATIENCE).await {
                Ok(client) => Ok(Some(client)),
                Err(error) => {
                    notes.push(error.to_string());
                    Ok(None)
                }
            }
        }
    }
}

/// containerd or CRI-O at the given socket are not ours to stop.
fn refuse_strangers(client: &Client) -> Result<()> {
    let comm = fs::read_to_string(format!("/proc/{}/comm", client.pid)).unwrap_or_default();
    if comm.trim() == daemon::PROGRAM {
        return Ok(());
    }
    let what = format!(
        "what answers is \"{}\", process {} ({}), not {}",
        client.version.runtime_name,
        client.pid,
        comm.trim(),
        daemon::PROGRAM
    );
    Err(Error::Unfinished {
        what,
        hint: "stop it by its own means; --socket and --run-dir name the node to take down"
            .to_owned(),
    })
}

fn has_pods(node: &Node) -> bool {
    fs::read_dir(node.run_dir.join("pods")).is_ok_and(|mut pods| pods.next().is_some())
}

/// All at once: a pod that takes its grace period holds up no other.
async fn remove_pods(client: &mut Client, notes: &mut Vec<String>) -> Result<()> {
    let list = client
        .runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .map_err(Error::refused("list pods"))?;
    let mut removals = tokio::task::JoinSet::new();
    for pod in list.into_inner().items {
        let mut client = client.clone();
        removals.spawn(async move { (sample::remove(&mut client, &pod.id).await, pod) });
    }
    while let Some(joined) = removals.join_next().await {
        match joined {
            Ok((Ok(()), pod)) => print(&format!("pod      {} removed\n", named(&pod)))?,
            Ok((Err(error), _)) => notes.push(error.to_string()),
            Err(error) => notes.push(format!("removing a pod: {error}")),
        }
    }
    Ok(())
}

fn named(pod: &PodSandbox) -> String {
    let metadata = pod.metadata.clone().unwrap_or_default();
    format!(
        "{} {}/{}",
        short_id(&pod.id),
        metadata.namespace,
        metadata.name
    )
}

fn farewell(node: &Node, purged: bool) -> String {
    if !purged && node.state_dir.exists() {
        let flags = node.flags_to_type();
        return format!(
            "down     nothing runs; images stay in {} (`davit{flags} down --purge` removes them)\n",
            node.state_dir.display()
        );
    }
    "down     nothing is left\n".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeFlags;

    #[test]
    fn the_last_line_says_what_stays_and_how_to_remove_it() {
        let dir = tempfile::tempdir().unwrap();
        let flags = NodeFlags {
            run_dir: Some(dir.path().join("run")),
            state_dir: Some(dir.path().join("state")),
            socket: None,
        };
        let node = flags.resolve().unwrap();
        assert_eq!(farewell(&node, false), "down     nothing is left\n");
        fs::create_dir(&node.state_dir).unwrap();
        assert!(
            farewell(&node, false)
                .contains(&format!("`davit{} down --purge`", node.flags_to_type()))
        );
        assert_eq!(farewell(&node, true), "down     nothing is left\n");
    }

    #[test]
    fn a_node_has_pods_only_if_their_directory_holds_one() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeFlags {
            run_dir: Some(dir.path().to_owned()),
            ..NodeFlags::default()
        }
        .resolve()
        .unwrap();
        assert!(!has_pods(&node));
        fs::create_dir_all(node.run_dir.join("pods")).unwrap();
        assert!(!has_pods(&node));
        fs::create_dir_all(node.run_dir.join("pods/1")).unwrap();
        assert!(has_pods(&node));
    }
}
