//! `davit up`: check the host, start the daemon, run the sample, show the way on. A second `up` changes nothing.

use std::time::Duration;

use crate::args::UpOptions;
use crate::client::Client;
use crate::format::{print, short_id};
use crate::node::Node;
use crate::sample::{self, Sample};
use crate::{Error, Result, daemon, doctor};

/// Runs the command.
///
/// # Errors
/// The host cannot run containers, the daemon does not start, or the sample does not serve its page. What was
/// started by then stays to be looked at; `davit down` removes it.
pub async fn run(node: &Node, options: &UpOptions) -> Result<u8> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot { command: "up" });
    }
    let patience = Duration::from_secs(options.timeout);
    let mut client = ensure_daemon(node, options, patience).await?;
    let sample = if options.no_sample {
        None
    } else {
        let sample = sample::ensure(&mut client, node, options.sample_image.as_deref()).await?;
        let again = if sample.was_there {
            "runs already"
        } else {
            "runs"
        };
        print(&format!(
            "sample   pod {} {again} and serves {}\n",
            short_id(&sample.pod),
            sample.url
        ))?;
        let page = sample::fetch(&sample.url, patience).await?;
        print(&quoted(&page))?;
        Some(sample)
    };
    print(&way_on(node, sample.as_ref()))?;
    Ok(0)
}

async fn ensure_daemon(node: &Node, options: &UpOptions, patience: Duration) -> Result<Client> {
    if let Ok(client) = Client::connect(node).await {
        print(&format!(
            "node     already up: {}\n",
            described(&client, node)
        ))?;
        if !options.daemon_args.is_empty() {
            eprintln!(
                "note: it runs with the flags it was started with; `davit down` first to give it others"
            );
        }
        return Ok(client);
    }
    node.refuse_foreign_directories()?;
    let report = doctor::examine(node);
    print(&format!("host     {}\n", report.headline()))?;
    let faults = report.faults();
    if !faults.is_empty() {
        return Err(Error::Host { faults });
    }
    let client = daemon::start(node, &options.daemon_args, patience).await?;
    print(&format!(
        "node     {}, logs to {}\n",
        described(&client, node),
        node.log.display()
    ))?;
    Ok(client)
}

fn described(client: &Client, node: &Node) -> String {
    let version = &client.version;
    format!(
        "{} {} (process {}) answers at {}",
        version.runtime_name,
        version.runtime_version,
        client.pid,
        node.socket.display()
    )
}

fn quoted(page: &str) -> String {
    page.lines()
        .map(|line| format!("         | {line}\n"))
        .collect()
}

/// What to type next.
fn way_on(node: &Node, sample: Option<&Sample>) -> String {
    let flags = node.flags_to_type();
    let crictl = format!("crictl --runtime-endpoint unix://{}", node.socket.display());
    let mut lines = vec!["\nLook at it:".to_owned()];
    if let Some(sample) = sample {
        lines.push(format!("  curl {}", sample.url));
    }
    lines.push(format!("  davit{flags} status"));
    lines.push(format!("  {crictl} pods"));
    if sample.is_some() {
        lines.push(format!("  {crictl} logs $({crictl} ps --quiet --name web)"));
    }
    lines.push(format!("Take it down:\n  davit{flags} down\n"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeFlags;

    #[test]
    fn the_way_on_names_the_flags_of_a_private_node() {
        let node = NodeFlags {
            run_dir: Some("/t/r".into()),
            ..NodeFlags::default()
        }
        .resolve()
        .unwrap();
        let text = way_on(&node, None);
        assert!(text.contains("  davit --run-dir /t/r down\n"), "{text}");
        assert!(
            text.contains("crictl --runtime-endpoint unix:///t/r/davit-cri.sock pods"),
            "{text}"
        );
        assert!(!text.contains("curl"), "{text}");
    }

    #[test]
    fn the_page_is_shown_as_a_quotation() {
        assert_eq!(quoted("a\nb\n"), "         | a\n         | b\n");
    }
}
