//! The genuine crictl against one server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{Outcome, outcome};
use crate::{bin, wait};

/// crictl with a fixed endpoint.
#[derive(Debug, Clone)]
pub struct Crictl {
    socket: PathBuf,
    dir: PathBuf,
}

// === impl Crictl ===

impl Crictl {
    /// crictl for the server behind `socket`; configurations are written below `dir`.
    #[must_use]
    pub fn new(socket: &Path, dir: &Path) -> Crictl {
        Crictl {
            socket: socket.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// A crictl command, not started yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let program = bin::genuine("crictl").expect("crictl: `cargo xtask tools` builds it");
        let mut command = Command::new(program);
        let endpoint = format!("unix://{}", self.socket.display());
        // An empty configuration of its own: without one crictl warns on standard error and reads the machine's.
        let config = self.dir.join("crictl.yaml");
        if !config.exists() {
            std::fs::write(&config, "{}").expect("crictl's configuration");
        }
        command
            .arg("--config")
            .arg(config)
            .args([
                "--runtime-endpoint",
                &endpoint,
                "--image-endpoint",
                &endpoint,
                "--timeout",
                "60s",
            ])
            .args(args);
        command
    }

    /// Runs crictl to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// Standard output of a successful crictl.
    #[must_use]
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// JSON of a successful crictl.
    #[must_use]
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(args).json()
    }

    /// Writes a configuration file and returns its path.
    #[must_use]
    pub fn file(&self, name: &str, config: &Value) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, config.to_string()).expect("a configuration file");
        path.to_string_lossy().into_owned()
    }

    /// `crictl runp`: starts a pod from `config` and returns its id.
    #[must_use]
    #[track_caller]
    pub fn run_pod(&self, config: &Value) -> String {
        self.run_pod_with(config, &[])
    }

    /// [`Crictl::run_pod`] with more flags, for example `--runtime runc`.
    #[must_use]
    #[track_caller]
    pub fn run_pod_with(&self, config: &Value, flags: &[&str]) -> String {
        let file = self.file(&format!("{}.pod.json", name_of(config)), config);
        self.ok(&[&["runp"], flags, &[file.as_str()]].concat())
    }

    /// `crictl create`: makes a container in `pod` and returns its id.
    #[must_use]
    #[track_caller]
    pub fn create(&self, pod: &str, container: &Value, pod_config: &Value) -> String {
        self.try_create(pod, container, pod_config).ok()
    }

    /// [`Crictl::create`] for a container that may be refused.
    #[track_caller]
    pub fn try_create(&self, pod: &str, container: &Value, pod_config: &Value) -> Outcome {
        let name = format!("{}-{}", name_of(pod_config), name_of(container));
        let container = self.file(&format!("{name}.container.json"), container);
        let pod_file = self.file(&format!("{name}.pod.json"), pod_config);
        self.run(&["create", "--no-pull", pod, &container, &pod_file])
    }

    /// Creates and starts a container.
    #[must_use]
    #[track_caller]
    pub fn create_and_start(&self, pod: &str, container: &Value, pod_config: &Value) -> String {
        let id = self.create(pod, container, pod_config);
        assert_eq!(self.ok(&["start", &id]), id);
        id
    }

    /// The `status` object of `crictl inspect`.
    #[must_use]
    #[track_caller]
    pub fn status(&self, container: &str) -> Value {
        self.json(&["inspect", container])["status"].clone()
    }

    /// The `status` object of `crictl inspectp`.
    #[must_use]
    #[track_caller]
    pub fn pod_status(&self, pod: &str) -> Value {
        self.json(&["inspectp", pod])["status"].clone()
    }

    /// The pod's first address.
    #[must_use]
    #[track_caller]
    pub fn pod_ip(&self, pod: &str) -> String {
        self.pod_status(pod)["network"]["ip"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until a container has ended and returns its status.
    #[must_use]
    #[track_caller]
    pub fn wait_for_exit(&self, container: &str) -> Value {
        wait::until(
            &format!("container {container} exits"),
            Duration::from_secs(60),
            || {
                let status = self.status(container);
                (status["state"] == "CONTAINER_EXITED").then_some(status)
            },
        )
    }

    /// Removes every pod by force, as a person cleaning up would.
    pub fn remove_all(&self) -> Outcome {
        self.run(&["rmp", "--all", "--force"])
    }
}

/// A pod configuration as crictl reads it, with a log directory below `dir`.
#[must_use]
pub fn pod(name: &str, dir: &Path) -> Value {
    let logs = dir.join("logs").join(name);
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "attempt": 0},
        "hostname": name,
        "log_directory": logs,
        "labels": {"app": name},
        "annotations": {"example.org/note": "kept byte for byte ✓"},
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    })
}

/// A container configuration that runs `script` with busybox's shell.
#[must_use]
pub fn shell(name: &str, image: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": image},
        "command": ["/bin/sh", "-c", script],
        "log_path": format!("{name}.log"),
        "linux": {},
    })
}

fn name_of(config: &Value) -> &str {
    config["metadata"]["name"].as_str().unwrap_or("unnamed")
}
