//! Steps that take back what an operation did, run in reverse when it fails.

use crate::error::{Error, Result};

type Step = Box<dyn FnOnce() -> Result<()> + Send>;

/// The undo of an operation in progress. Each step is idempotent and brings its own deadline.
#[derive(Default)]
pub(crate) struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// Registers what takes a step back. Call it *before* the step: half of it may have happened.
    pub(crate) fn push(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<()> + Send + 'static,
    ) {
        self.steps.push((name, Box::new(step)));
    }

    /// Runs every step in reverse order, whatever the others answer; the failures in words.
    fn run(self) -> Vec<String> {
        let mut failures = Vec::new();
        for (name, step) in self.steps.into_iter().rev() {
            if let Err(error) = step() {
                failures.push(format!("{name}: {}", error.report()));
            }
        }
        failures
    }
}

/// Runs `operation`; when it fails, takes back all that it registered.
///
/// # Errors
/// The operation's own, wrapped in [`Error::Cleanup`] where a step of the undo failed, too.
pub(crate) fn on_error<T>(operation: impl FnOnce(&mut Undo) -> Result<T>) -> Result<T> {
    let mut undo = Undo::default();
    operation(&mut undo).map_err(|error| {
        let failures = undo.run();
        if failures.is_empty() {
            return error;
        }
        Error::Cleanup {
            cause: Box::new(error),
            cleanup: failures.join("; "),
        }
    })
}

/// Runs every step of a teardown, whatever the others answer.
///
/// # Errors
/// The first failure; the others are its clean-up failures.
pub(crate) fn every(steps: &mut [(&'static str, &mut dyn FnMut() -> Result<()>)]) -> Result<()> {
    let mut first = None;
    let mut others = Vec::new();
    for (name, step) in steps {
        match step() {
            Ok(()) => {}
            Err(error) if first.is_none() => first = Some(error),
            Err(error) => others.push(format!("{name}: {}", error.report())),
        }
    }
    match first {
        None => Ok(()),
        Some(error) if others.is_empty() => Err(error),
        Some(error) => Err(Error::Cleanup {
            cause: Box::new(error),
            cleanup: others.join("; "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_failure_undoes_every_step_in_reverse_and_tells_which_undo_failed() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let result: Result<()> = on_error(|undo| {
            for name in ["first", "second", "third"] {
                let order = Arc::clone(&order);
                undo.push(name, move || {
                    order.lock().expect("lock").push(name);
                    if name == "second" {
                        Err(Error::Internal("stuck".into()))
                    } else {
                        Ok(())
                    }
                });
            }
            Err(Error::Internal("no more".into()))
        });
        assert_eq!(*order.lock().expect("lock"), ["third", "second", "first"]);
        let text = result.expect_err("failed").report();
        assert_eq!(text, "no more; then the clean-up failed: second: stuck");
    }

    #[test]
    fn success_undoes_nothing() {
        let result = on_error(|undo| {
            undo.push("never", || Err(Error::Internal("undone".into())));
            Ok(7)
        });
        assert_eq!(result.expect("fine"), 7);
    }

    #[test]
    fn a_teardown_goes_on_after_a_failure() {
        let mut ran = 0;
        let mut fail = || Err(Error::Internal("one".into()));
        let mut count = || {
            ran += 1;
            Ok(())
        };
        let result = every(&mut [("a", &mut fail), ("b", &mut count)]);
        assert!(result.is_err());
        assert_eq!(ran, 1);
    }
}
