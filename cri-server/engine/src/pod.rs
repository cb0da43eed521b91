//! Pods: the handle that everyone has, the snapshot that everyone reads, and the task that owns the rest.

pub(crate) mod commands;
pub(crate) mod files;
pub(crate) mod resize;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod supervisor;
pub(crate) mod task;
pub(crate) mod teardown;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::exec::Execs;
use crate::model::{ContainerConfig, Resources};
use crate::names::Operation;
use crate::record::{ContainerRecord, PodRecord};
use crate::stats::Samples;

/// Where a command's answer goes.
pub(crate) type Reply = oneshot::Sender<Result<()>>;

/// What a pod's task can be told to do.
pub(crate) enum Command {
    Create {
        operation: Operation,
        config: Box<ContainerConfig>,
    },
    Start {
        id: String,
        reply: Reply,
    },
    Stop {
        id: String,
        grace: Duration,
        reply: Reply,
    },
    Remove {
        id: String,
        reply: Reply,
    },
    Update {
        id: String,
        change: Box<Resources>,
        reply: Reply,
    },
    UpdatePod {
        overhead: Option<Box<Resources>>,
        resources: Option<Box<Resources>>,
        reply: Reply,
    },
    StopPod {
        reply: Reply,
    },
    RemovePod {
        reply: Reply,
    },
}

/// A pod, for everyone. Reading never waits for the task.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) execs: Execs,
    /// What it used when somebody last asked.
    pub(crate) samples: Samples,
    view: RwLock<Arc<View>>,
    inbox: mpsc::UnboundedSender<Command>,
}

/// What is known of a pod at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Its record, or why that does not load.
    pub(crate) record: Result<Arc<PodRecord>, String>,
    /// Why it is not READY; `None` when it is.
    pub(crate) not_ready: Option<String>,
    pub(crate) shim_pid: Option<u32>,
    pub(crate) containers: BTreeMap<String, Entry>,
}

/// What is known of a container.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Known(Arc<ContainerRecord>),
    /// Its record does not load; why.
    Unknown(String),
}

impl Pod {
    pub(crate) fn new(id: &str, view: View) -> (Arc<Self>, mpsc::UnboundedReceiver<Command>) {
        let (inbox, commands) = mpsc::unbounded_channel();
        let pod = Self {
            id: id.to_owned(),
            execs: Execs::default(),
            samples: Samples::default(),
            view: RwLock::new(Arc::new(view)),
            inbox,
        };
        (Arc::new(pod), commands)
    }

    /// What is known now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The task's side of [`Pod::view`].
    pub(crate) fn publish(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// Tells the task, without waiting.
    pub(crate) fn tell(&self, command: Command) -> Result<()> {
        self.inbox.send(command).map_err(|_| self.gone())
    }

    /// Tells the task and waits for its answer. The task goes on when the caller leaves.
    pub(crate) async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply))?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Waits until the task has ended.
    pub(crate) async fn ended(&self) {
        self.inbox.closed().await;
    }

    fn gone(&self) -> Error {
        Error::PodGone {
            id: self.id.clone(),
        }
    }
}
