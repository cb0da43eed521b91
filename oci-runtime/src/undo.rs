//! What must be taken back when a later step fails.
use crate::error::Result as StepResult;

/// One step back: what it undoes, and how.
type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<(), String> + 'a>);

/// Steps to take back, in reverse order, unless [`Undo::keep`] says that all went well.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// Registers how to take back what was just done.
    pub fn push(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), String> + 'a) {
        self.steps.push((what, Box::new(step)));
    }

    /// All went well: nothing is taken back.
    pub fn keep(mut self) {
        self.steps.clear();
    }

    /// Takes everything back, every step whatever happens to the others, and returns what could not be.
    pub fn run(mut self) -> Vec<String> {
        let mut problems = Vec::new();
        while let Some((what, step)) = self.steps.pop() {
            if let Err(problem) = step() {
                problems.push(format!("undoing {what}: {problem}"));
            }
        }
        problems
    }
}

/// Takes these steps; where one fails, everything that was made is taken back, and what could not be is part of the
/// error.
///
/// # Errors
/// As the steps.
pub fn attempt<'a, T>(steps: impl FnOnce(&mut Undo<'a>) -> StepResult<T>) -> StepResult<T> {
    let mut undo = Undo::default();
    match steps(&mut undo) {
        Ok(made) => {
            undo.keep();
            Ok(made)
        }
        Err(mut error) => {
            for problem in undo.run() {
                error.message = format!("{} ({problem})", error.message);
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn steps_run_in_reverse_and_all_of_them() {
        let seen = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        undo.push("first", || {
            seen.borrow_mut().push(1);
            Ok(())
        });
        undo.push("second", || {
            seen.borrow_mut().push(2);
            Err("stuck".to_owned())
        });
        assert_eq!(undo.run(), ["undoing second: stuck"]);
        assert_eq!(*seen.borrow(), [2, 1]);
    }

    #[test]
    fn nothing_is_undone_when_all_went_well() {
        let mut undo = Undo::default();
        undo.push("step", || panic!("must not run"));
        undo.keep();
    }
}
