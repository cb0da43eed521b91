//! What is known of pods and containers, on tmpfs: versioned JSON, replaced by rename.
//!
//! Nothing here is synced: it cannot outlive the processes that it describes. The record of a pod or
//! container is written *before* its first side effect, so that a daemon that died in between finds on its
//! next start what must be undone.
//!
//! ```text
//! pod:        creating ──▶ ready ──▶ stopped        container: creating ──▶ created ──▶ running ──▶ exited
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{ContainerConfig, ContainerUser, PodConfig, Resources};

/// The version of both records.
pub(crate) const VERSION: u32 = 1;

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PodPhase {
    /// Its resources are being made, or were left half made.
    Creating,
    /// It is there.
    Ready,
    /// Its network, shim and cgroup are gone or going.
    Stopped,
}

/// `pod.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) phase: PodPhase,
    pub(crate) created_at: i64,
    /// The handler as the caller named it.
    pub(crate) handler: String,
    pub(crate) hostname: String,
    /// The cgroup that holds its containers' cgroups.
    pub(crate) cgroup_parent: String,
    /// The cgroup that is the pod's own, with its init below it; removed with the pod. The same as
    /// `cgroup_parent` where the caller named none.
    pub(crate) pod_cgroup: String,
    /// Addresses, the first one first.
    #[serde(default)]
    pub(crate) ips: Vec<String>,
    pub(crate) config: PodConfig,
}

/// How far a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Being made, or left half made.
    Creating,
    /// Its program waits.
    Created,
    /// Its program runs.
    Running {
        /// Since when.
        started_at: i64,
    },
    /// Its program ended.
    Exited(Ended),
}

/// How a container ended. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// 0: its program never started.
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// `container.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) pod_id: String,
    pub(crate) phase: Phase,
    pub(crate) created_at: i64,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    /// The layers that its root file system is mounted from, the lowest first.
    pub(crate) layers: Vec<String>,
    /// The layers of the images that it mounts as volumes.
    #[serde(default)]
    pub(crate) volume_layers: Vec<String>,
    pub(crate) user: Option<ContainerUser>,
    pub(crate) stop_signal: String,
    /// Empty: no log.
    pub(crate) log_path: String,
    pub(crate) cgroup: String,
    pub(crate) pid: Option<u32>,
    /// Limits in force.
    pub(crate) resources: Option<Resources>,
    pub(crate) config: ContainerConfig,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The runtime made it.
    Created,
    /// The runtime started it.
    Started {
        /// When.
        at: i64,
    },
    /// It ended.
    Ended {
        /// When.
        at: i64,
        exit_code: i32,
        reason: &'static str,
        message: String,
    },
}

impl Phase {
    /// The phase after `change`; `None` when that cannot happen in this one.
    ///
    /// An end is final: whatever comes later changes neither code nor time. A start that is reported after
    /// the end (a very short container) only adds when it started.
    pub(crate) fn after(&self, change: &Change) -> Option<Self> {
        match (self, change) {
            (Self::Creating, Change::Created) => Some(Self::Created),
            (Self::Created, Change::Started { at }) => Some(Self::Running { started_at: *at }),
            (Self::Exited(ended), Change::Started { at }) if ended.started_at == 0 => {
                let started_at = (*at).min(ended.finished_at);
                Some(Self::Exited(Ended {
                    started_at,
                    ..ended.clone()
                }))
            }
            (
                Self::Creating | Self::Created | Self::Running { .. },
                Change::Ended {
                    at,
                    exit_code,
                    reason,
                    message,
                },
            ) => {
                let started_at = if let Self::Running { started_at } = self {
                    *started_at
                } else {
                    0
                };
                Some(Self::Exited(Ended {
                    started_at,
                    // The clock may have been set back meanwhile.
                    finished_at: (*at).max(started_at).max(1),
                    exit_code: *exit_code,
                    reason: (*reason).to_owned(),
                    message: message.clone(),
                }))
            }
            _ => None,
        }
    }
}

impl PodRecord {
    /// Where it is, below the pod's directory.
    pub(crate) fn path(pod_dir: &Path) -> PathBuf {
        pod_dir.join("pod.json")
    }

    /// The name that only one pod can have: name, namespace, uid and attempt.
    pub(crate) fn name(config: &PodConfig) -> String {
        let meta = &config.metadata;
        format!(
            "{}_{}_{}_{}",
            meta.name, meta.namespace, meta.uid, meta.attempt
        )
    }
}

impl ContainerRecord {
    /// Where it is, below the container's directory.
    pub(crate) fn path(bundle: &Path) -> PathBuf {
        bundle.join("container.json")
    }

    /// The name that only one container can have.
    pub(crate) fn name(config: &ContainerConfig, pod: &PodConfig) -> String {
        let (meta, pod) = (&config.metadata, &pod.metadata);
        format!(
            "{}_{}_{}_{}_{}",
            meta.name, pod.name, pod.namespace, pod.uid, meta.attempt
        )
    }
}

/// Replaces the record at `path`: a reader sees the old one or the new one.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    let json = serde_json::to_vec(record).map_err(|error| Error::Record {
        path: path.to_owned(),
        source: Box::new(error),
    })?;
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, json).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("rename the new record to", path))
}

/// Reads the record at `path`; a version of another time is an error.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let json = fs::read(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let broken = |error: serde_json::Error| Error::Record {
        path: path.to_owned(),
        source: Box::new(error),
    };
    let Version { version } = serde_json::from_slice(&json).map_err(broken)?;
    if version != VERSION {
        let words = format!("its version is {version}, this daemon knows {VERSION}");
        return Err(Error::Record {
            path: path.to_owned(),
            source: words.into(),
        });
    }
    serde_json::from_slice(&json).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(started_at: i64, finished_at: i64) -> Phase {
        Phase::Exited(Ended {
            started_at,
            finished_at,
            exit_code: 3,
            reason: "Error".into(),
            message: String::new(),
        })
    }

    fn end(at: i64) -> Change {
        Change::Ended {
            at,
            exit_code: 3,
            reason: "Error",
            message: String::new(),
        }
    }

    #[test]
    fn each_phase_takes_only_the_changes_that_can_happen_in_it() {
        let start = Change::Started { at: 5 };
        let table = [
            (Phase::Creating, Change::Created, Some(Phase::Created)),
            (Phase::Creating, start.clone(), None),
            (
                Phase::Created,
                start.clone(),
                Some(Phase::Running { started_at: 5 }),
            ),
            (Phase::Created, end(7), Some(ended(0, 7))),
            (Phase::Running { started_at: 5 }, end(7), Some(ended(5, 7))),
            (Phase::Running { started_at: 5 }, end(2), Some(ended(5, 5))),
            (Phase::Running { started_at: 5 }, start.clone(), None),
            (ended(0, 4), start.clone(), Some(ended(4, 4))),
            (ended(0, 9), start.clone(), Some(ended(5, 9))),
            (ended(1, 9), start, None),
            (ended(1, 9), end(99), None),
        ];
        for (from, change, want) in table {
            assert_eq!(from.after(&change), want, "{from:?} after {change:?}");
        }
    }

    #[test]
    fn a_record_round_trips_and_one_of_another_version_is_refused() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Small {
            version: u32,
            text: String,
        }
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("pod.json");
        let record = Small {
            version: VERSION,
            text: "ä\u{0}".into(),
        };
        write(&path, &record).expect("written");
        assert_eq!(read::<Small>(&path).expect("read"), record);
        write(
            &path,
            &Small {
                version: 99,
                text: String::new(),
            },
        )
        .expect("written");
        let error = read::<Small>(&path).expect_err("refused").report();
        assert!(error.contains("its version is 99"), "{error}");
        fs::write(&path, b"").expect("truncated");
        assert!(read::<Small>(&path).is_err());
    }
}
