//! Deletes layers in the background: taking a big tree apart takes longer than removing an image should.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use super::Inner;
use super::ingest::IngestDir;
use crate::error::Error;

/// What the thread is asked to do.
pub(crate) enum Job {
    /// Delete what left the store.
    Delete(Vec<IngestDir>),
    /// Look whether layers became unused, as a lease ended.
    Collect,
}

/// The thread and its queue.
pub(crate) struct Trash {
    jobs: Mutex<Option<Sender<Job>>>,
    pending: Arc<(Mutex<usize>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Trash {
    /// Starts the thread for a store.
    pub(crate) fn start(store: Weak<Inner>) -> Result<Trash, Error> {
        let (jobs, queue) = channel();
        let pending = Arc::new((Mutex::new(0), Condvar::new()));
        let done = pending.clone();
        let thread = std::thread::Builder::new()
            .name("layer-trash".into())
            .spawn(move || {
                for job in queue {
                    match job {
                        // Dropping deletes.
                        Job::Delete(directories) => drop(directories),
                        Job::Collect => collect(&store),
                    }
                    let (count, idle) = &*done;
                    *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                    idle.notify_all();
                }
            });
        let thread = thread.map_err(|source| Error::Io {
            operation: "start thread for",
            path: "layer-trash".into(),
            source,
        })?;
        Ok(Trash {
            jobs: Mutex::new(Some(jobs)),
            pending,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a job. Without a thread, as when the store closes, it is done here.
    pub(crate) fn add(&self, job: Job) {
        *self
            .pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            *self
                .pending
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner) -= 1;
        }
    }

    /// Waits until all jobs are done.
    pub(crate) fn wait(&self) {
        let (count, idle) = &*self.pending;
        let guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            idle.wait_while(guard, |count| *count > 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Ends the thread after its last job.
    pub(crate) fn stop(&self) {
        drop(
            self.jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The last user of a store may be this very thread, which cannot wait for itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that deletes layers panicked");
        }
    }
}

fn collect(store: &Weak<Inner>) {
    if let Some(store) = store.upgrade()
        && let Err(error) = store.collect()
    {
        tracing::warn!(
            error = crate::one_line(&error),
            "unused layers could not be removed"
        );
    }
}
