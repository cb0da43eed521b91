//! Every key of the configuration file, once: what the reference in `docs/config.md` and `davit-cri config default` say.

use std::fmt::Write;

/// A key.
pub(crate) struct Key {
    /// Its table; empty at the top.
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    /// Its default in TOML, or an example where it has none.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    /// Whether SIGHUP changes it.
    pub(crate) reloads: bool,
}

const fn key(
    table: &'static str,
    name: &'static str,
    value: &'static str,
    reloads: bool,
    help: &'static str,
) -> Key {
    Key {
        table,
        name,
        value,
        help,
        reloads,
    }
}

/// The table of one runtime handler; `NAME` is its name.
pub(crate) const RUNTIME: &str = "runtimes.NAME";

pub(crate) const KEYS: &[Key] = &[
    key(
        "",
        "default_runtime",
        "\"davit-oci\"",
        true,
        "The handler for pods that name none.",
    ),
    key(
        "",
        "cgroup_root",
        "\"/davit\"",
        false,
        "The cgroup for pods that bring none of their own; as --cgroup-root.",
    ),
    key(
        "",
        "cgroup_driver",
        "\"cgroupfs\"",
        false,
        "Who makes cgroups: cgroupfs or systemd, the same as the kubelet's.",
    ),
    key(
        "",
        "log_level",
        "\"info\"",
        true,
        "error, warn, info, debug or trace; --log-level wins.",
    ),
    key(
        RUNTIME,
        "path",
        "\"/usr/sbin/runc\"",
        true,
        "The OCI runtime's binary, an absolute path. The handler davit-oci needs no table.",
    ),
    key(
        RUNTIME,
        "root",
        "\"/run/davit/oci/NAME\"",
        true,
        "Its --root.",
    ),
    key(
        RUNTIME,
        "args",
        "[]",
        true,
        "Further arguments before the verb, such as \"--systemd-cgroup\" or \"--debug\".",
    ),
    key(
        "network",
        "bridge",
        "\"davit0\"",
        false,
        "The bridge of the built-in network; as --bridge.",
    ),
    key(
        "network",
        "subnet",
        "\"10.89.0.0/16\"",
        false,
        "The subnet of the built-in network; as --subnet.",
    ),
    key(
        "network",
        "subnet6",
        "\"auto\"",
        false,
        "The IPv6 subnet of the built-in network, or auto for a unique local one; without it pods have no IPv6.",
    ),
    key(
        "metrics",
        "address",
        "\"127.0.0.1:9325\"",
        false,
        "Where /metrics is served for Prometheus; without it nowhere.",
    ),
    key(
        "images",
        "pinned",
        "[]",
        false,
        "Images that a kubelet does not collect, such as registry.k8s.io/pause:3.10.",
    ),
    key(
        "images",
        "pull_progress_timeout_s",
        "300",
        false,
        "How long a download may stand still, in seconds.",
    ),
    key(
        "streaming",
        "address",
        "\"127.0.0.1\"",
        false,
        "Where exec, attach and port-forward are served.",
    ),
    key(
        "streaming",
        "port",
        "0",
        false,
        "The port for that; 0 lets the kernel choose.",
    ),
    key(
        "streaming",
        "tls_cert",
        "\"/etc/davit/tls.crt\"",
        false,
        "A certificate chain (PEM): with it and tls_key streams go over TLS.",
    ),
    key(
        "streaming",
        "tls_key",
        "\"/etc/davit/tls.key\"",
        false,
        "The private key of tls_cert (PEM).",
    ),
    key(
        "streaming",
        "idle_timeout_s",
        "14400",
        false,
        "How long a stream's connection may be silent, in seconds.",
    ),
    key(
        "streaming",
        "stream_creation_timeout_s",
        "30",
        false,
        "How long a client may take to open streams that belong together, in seconds.",
    ),
];

/// The keys of a table, as an error lists them.
pub(crate) fn known(table: &str) -> String {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.table == table)
        .map(|key| key.name)
        .collect();
    if table.is_empty() {
        for key in KEYS {
            let top = key.table.split('.').next().unwrap_or_default();
            if !top.is_empty() && !names.contains(&top) {
                names.push(top);
            }
        }
    }
    names.join(", ")
}

/// A file that says nothing yet, with every key in a comment.
#[allow(
    clippy::let_underscore_must_use,
    reason = "writing to a String cannot fail"
)]
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of davit-cri: /etc/davit/config.toml. Every default works without it.\n\
         # SIGHUP reads it again; what cannot change while the daemon runs is reported.\n",
    );
    let mut table = "";
    for key in KEYS {
        if key.table != table {
            table = key.table;
            let _ = write!(text, "\n# [{table}]\n");
        }
        let _ = writeln!(text, "# {} = {}  # {}", key.name, key.value, key.help);
    }
    text
}

/// `docs/config.md`.
#[allow(
    clippy::let_underscore_must_use,
    reason = "writing to a String cannot fail"
)]
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Configuration of davit-cri\n\
         `/etc/davit/config.toml` (`--config FILE` names another one) is TOML and optional; an unknown key is an error. A flag\n\
         wins over the file. `davit-cri config default` prints a file to start from, `davit-cri config check [FILE]` finds every\n\
         mistake, with its line. SIGHUP reads the file again: what the last column says changes at once, for the rest a warning\n\
         says that it waits for the next start. A file with mistakes changes nothing. `hosts.toml` files of registries are read\n\
         at each pull.\n\n\
         | table | key | default or example | meaning | on SIGHUP |\n|---|---|---|---|---|\n",
    );
    for key in KEYS {
        let _ = writeln!(
            text,
            "| {} | `{}` | `{}` | {} | {} |",
            if key.table.is_empty() {
                String::new()
            } else {
                format!("`{}`", key.table)
            },
            key.name,
            key.value,
            key.help,
            if key.reloads { "changes" } else { "next start" },
        );
    }
    text.push_str("\nThis page is made from the code (`cri-server/src/config/reference.rs`); a test compares them.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1 cargo test -p cri-server reference` writes it.
    #[test]
    fn the_page_in_docs_says_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).expect("written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page(),
            "docs/config.md is out of date: UPDATE_DOCS=1 cargo test -p cri-server reference"
        );
    }

    #[test]
    fn errors_list_the_keys_and_tables() {
        assert_eq!(known("metrics"), "address");
        assert_eq!(
            known(""),
            "default_runtime, cgroup_root, cgroup_driver, log_level, runtimes, network, metrics, images, streaming"
        );
    }
}
