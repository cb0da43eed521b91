//! Names that may be used once on a node, and the operations that retries wait for.
//!
//! A reservation always has an owner: the id that got the name. While the owner's operation runs, an
//! identical request waits for it; when it ended but nobody took its answer (the caller had gone), the next
//! identical request takes it. Any other request for the name is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Result};

/// The answer of an operation: the id, or the error that all waiters share.
type Answer = Option<Result<(), Arc<Error>>>;

/// Reserved names; `C` is the request that they are compared by.
#[derive(Debug)]
pub(crate) struct Names<C> {
    table: Mutex<HashMap<String, Reservation<C>>>,
}

#[derive(Debug)]
struct Reservation<C> {
    id: String,
    /// The request while its answer was not taken; `None` afterwards, and for recovered ones.
    request: Option<C>,
    answer: watch::Receiver<Answer>,
}

/// What a request for a name gets.
pub(crate) struct Claim {
    /// To wait with, in [`Names::take`].
    pub(crate) waiter: Waiter,
    /// The name is new: run the operation and call [`Operation::finish`]. `None`: another identical request
    /// runs it already, or its answer waits.
    pub(crate) operation: Option<Operation>,
}

/// The operation's side: dropping it without an answer is an answer, too.
pub(crate) struct Operation {
    pub(crate) id: String,
    answer: watch::Sender<Answer>,
}

/// The caller's side.
pub(crate) struct Waiter {
    id: String,
    name: String,
    answer: watch::Receiver<Answer>,
}

impl<C: PartialEq> Names<C> {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::new(HashMap::new()),
        }
    }

    /// Asks for `name` with `request`; `new_id` is the id if it is free.
    pub(crate) fn claim(&self, name: &str, request: C, new_id: String) -> Result<Claim> {
        let mut table = self.lock();
        if let Some(held) = table.get(name) {
            if held.request.as_ref() == Some(&request) {
                let waiter = Waiter {
                    id: held.id.clone(),
                    name: name.to_owned(),
                    answer: held.answer.clone(),
                };
                return Ok(Claim {
                    waiter,
                    operation: None,
                });
            }
            return Err(Error::NameReserved {
                name: name.to_owned(),
                owner: held.id.clone(),
            });
        }
        let (sender, answer) = watch::channel(None);
        let reservation = Reservation {
            id: new_id.clone(),
            request: Some(request),
            answer: answer.clone(),
        };
        table.insert(name.to_owned(), reservation);
        let waiter = Waiter {
            id: new_id.clone(),
            name: name.to_owned(),
            answer,
        };
        Ok(Claim {
            waiter,
            operation: Some(Operation {
                id: new_id,
                answer: sender,
            }),
        })
    }

    /// Reserves `name` for what was found again at start.
    pub(crate) fn restore(&self, name: &str, id: &str) {
        let (_, answer) = watch::channel(Some(Ok(())));
        self.lock().insert(
            name.to_owned(),
            Reservation {
                id: id.to_owned(),
                request: None,
                answer,
            },
        );
    }

    /// Waits for the answer and takes it: later identical requests are refused.
    pub(crate) async fn take(&self, mut waiter: Waiter) -> Result<String> {
        let answer = match waiter.answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            // The operation's task died: a bug, but its caller must not hang.
            Err(_) => Some(Err(Arc::new(Error::Internal(format!(
                "the operation for {:?} was lost",
                waiter.name
            ))))),
        };
        // No await from here on: the answer is taken exactly when the caller gets it.
        if let Some(held) = self
            .lock()
            .get_mut(&waiter.name)
            .filter(|held| held.id == waiter.id)
        {
            held.request = None;
        }
        match answer {
            Some(Err(error)) => Err(Error::Shared(error)),
            Some(Ok(())) | None => Ok(waiter.id),
        }
    }

    /// Gives `name` back if `id` has it.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut table = self.lock();
        if table.get(name).is_some_and(|held| held.id == id) {
            table.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Reservation<C>>> {
        // Every change is one insert or remove: a panic elsewhere leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    /// Tells every waiter how it ended. On failure release the name before.
    pub(crate) fn finish(self, result: Result<()>) {
        // No receiver: every caller has gone, and the table's own was dropped with the released name.
        self.answer.send(Some(result.map_err(Arc::new))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(claim: Result<Claim>) -> Operation {
        claim
            .expect("claimed")
            .operation
            .expect("the name was free")
    }

    fn running(claim: Result<Claim>) -> Waiter {
        let claim = claim.expect("claimed");
        assert!(claim.operation.is_none(), "the name was taken");
        claim.waiter
    }

    #[tokio::test]
    async fn an_identical_retry_gets_the_running_operations_answer() {
        let names = Names::new();
        let first = new(names.claim("web", "config", "id1".into()));
        let retry = running(names.claim("web", "config", "id2".into()));
        first.finish(Ok(()));
        assert_eq!(names.take(retry).await.expect("answer"), "id1");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_took_waits_for_the_retry_and_is_given_once() {
        let names = Names::new();
        let first = new(names.claim("web", "config", "id1".into()));
        first.finish(Ok(()));
        let retry = running(names.claim("web", "config", "id2".into()));
        assert_eq!(names.take(retry).await.expect("answer"), "id1");
        let third = names.claim("web", "config", "id3".into());
        assert_eq!(
            third.err().expect("taken").report(),
            r#"name "web" is reserved for "id1""#
        );
    }

    #[tokio::test]
    async fn another_request_for_the_name_is_refused() {
        let names = Names::new();
        let _first = new(names.claim("web", "config", "id1".into()));
        assert!(matches!(
            names.claim("web", "other", "id2".into()),
            Err(Error::NameReserved { .. })
        ));
    }

    #[tokio::test]
    async fn a_lost_operation_is_an_error_for_those_who_wait() {
        let names = Names::new();
        let first = new(names.claim("web", "config", "id1".into()));
        let retry = running(names.claim("web", "config", "id2".into()));
        drop(first);
        assert!(names.take(retry).await.is_err());
    }

    #[test]
    fn a_name_is_free_again_only_when_its_owner_gives_it_back() {
        let names = Names::<&str>::new();
        names.restore("web", "id1");
        names.release("web", "id2");
        assert!(names.claim("web", "config", "id3".into()).is_err());
        names.release("web", "id1");
        assert!(names.claim("web", "config", "id3".into()).is_ok());
    }
}
