//! Stopping containers: one signal, a deadline that only ever moves closer, then SIGKILL for everything.

use std::time::Duration;

use tokio::time::Instant;

use super::Reply;
use super::task::{Task, is_exited};
use crate::container::signal_number;
use crate::error::{Error, Kind, Result};
use crate::images::blocking;
use crate::record::Phase;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long a container may live after SIGKILL before its callers are told.
const AFTER_KILL: Duration = Duration::from_secs(15);

/// The farthest a deadline can be: a grace of "forever" must not overflow the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A stop in progress.
pub(crate) struct Stopping {
    deadline: Instant,
    killed: bool,
    waiters: Vec<Reply>,
}

impl Stopping {
    /// Tells everyone who waits.
    pub(super) fn answer(self, result: impl Fn() -> Result<()>) {
        for waiter in self.waiters {
            // Who has left misses nothing.
            waiter.send(result()).ok();
        }
    }
}

impl Task {
    /// Asks a container to stop. The answer comes when it is dead.
    pub(super) async fn stop(&mut self, id: &str, grace: Duration, reply: Reply) {
        let deadline = Instant::now() + grace.min(LONGEST);
        let Some(container) = self
            .containers
            .get_mut(id)
            .filter(|one| !is_exited(&one.record))
        else {
            // Unknown or exited: there is nothing to stop.
            reply.send(Ok(())).ok();
            return;
        };
        if let Some(stopping) = &mut container.stopping {
            stopping.waiters.push(reply);
            // After SIGKILL the deadline is when to give up, which no caller shortens.
            if !stopping.killed {
                stopping.deadline = stopping.deadline.min(deadline);
            }
            return;
        }
        let signal = signal_number(&container.record.stop_signal).unwrap_or(SIGTERM);
        // What has not started has nothing to save.
        let (grace, deadline) = match container.record.phase {
            Phase::Running { .. } => (grace, deadline),
            _ => (Duration::ZERO, Instant::now()),
        };
        container.stopping = Some(Stopping {
            deadline,
            killed: false,
            waiters: vec![reply],
        });
        if !grace.is_zero()
            && let Err(error) = self.signal(id, signal, false).await
        {
            // The deadline still kills it.
            tracing::warn!(container.id = id, "{}", error.report());
        }
    }

    /// When the next container must be killed, or given up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.containers
            .values()
            .filter_map(|one| one.stopping.as_ref())
            .map(|stopping| stopping.deadline)
            .min()
    }

    /// Kills the containers whose time is up, and gives up those that were killed long ago.
    pub(super) async fn on_deadline(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, one)| {
                one.stopping
                    .as_ref()
                    .is_some_and(|stopping| stopping.deadline <= now)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(container) = self.containers.get_mut(&id) else {
                continue;
            };
            let Some(mut stopping) = container.stopping.take() else {
                continue;
            };
            if stopping.killed {
                stopping.answer(|| {
                    Err(Error::StillAlive {
                        id: id.clone(),
                        waited: AFTER_KILL,
                    })
                });
                continue;
            }
            stopping.killed = true;
            stopping.deadline = Instant::now() + AFTER_KILL;
            container.stopping = Some(stopping);
            if let Err(error) = self.signal(&id, SIGKILL, true).await {
                tracing::warn!(container.id = id, "{}", error.report());
            }
        }
    }

    /// Kills containers at once and waits until they are dead.
    pub(super) async fn kill_and_wait(&mut self, ids: &[String]) -> Result<()> {
        let alive = |task: &Self| {
            ids.iter()
                .find(|id| {
                    task.containers
                        .get(*id)
                        .is_some_and(|one| !is_exited(&one.record))
                })
                .cloned()
        };
        let mut silent = false;
        for id in ids {
            if self
                .containers
                .get(id)
                .is_some_and(|one| !is_exited(&one.record))
                && let Err(error) = self.signal(id, SIGKILL, true).await
            {
                silent |= error.kind() == Kind::DeadlineExceeded;
                tracing::warn!(container.id = id, "{}", error.report());
            }
        }
        if silent {
            // The caller wants an end; without its shim the containers are killed by their cgroups.
            self.kill_shim().await?;
        }
        let deadline = Instant::now() + AFTER_KILL;
        while let Some(id) = alive(self) {
            match tokio::time::timeout_at(deadline, self.signals.recv()).await {
                Ok(Some(signal)) => self.on_signal(signal).await,
                // Nobody listens to the shim any more: it is gone.
                Ok(None) => self.on_gone().await,
                Err(_) => {
                    return Err(Error::StillAlive {
                        id,
                        waited: AFTER_KILL,
                    });
                }
            }
        }
        Ok(())
    }

    /// Kills a shim that does not answer. That it is gone is heard as of any other.
    async fn kill_shim(&self) -> Result<()> {
        tracing::error!(
            pod.id = self.pod.id,
            "the shim does not answer; it is killed"
        );
        let supervisor = self.supervisor.clone();
        blocking(move || supervisor.kill()).await
    }

    /// Sends a signal to a container's first process, or to all of its processes.
    async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let (supervisor, id) = (self.supervisor.clone(), id.to_owned());
        blocking(move || {
            supervisor
                .ask("signal the container", |client| {
                    client.signal(&id, signal, all)
                })
                .map(drop)
        })
        .await
    }
}
