//! `known.txt`: the specs that do not pass on davit-cri, each with the reason.

use integration::known;

use super::suite::Specs;

/// One line.
struct Entry {
    handler: String,
    spec: String,
    may_pass: bool,
    reason: String,
}

/// The list.
pub(crate) struct Known(Vec<Entry>);

// === impl Known ===

impl Known {
    /// Reads `handler | fails or may fail | beginning of the spec's name | reason`; `*` is every handler, `#` begins a
    /// comment.
    ///
    /// # Panics
    /// On a line of another form.
    pub(crate) fn read(text: &str) -> Known {
        let entry = |[handler, kind, spec, reason]: [&str; 4]| Entry {
            handler: handler.to_owned(),
            spec: spec.to_owned(),
            may_pass: match kind {
                "fails" => false,
                "may fail" => true,
                other => panic!("known.txt: {other:?}: {spec}"),
            },
            reason: reason.to_owned(),
        };
        Known(known::rows(text).map(entry).collect())
    }

    /// What is wrong with the list or with the specs: those that do not pass without a line, and those that pass
    /// though a line says that they fail. A spec that skips itself does not pass.
    pub(crate) fn compare(&self, handler: &str, specs: &Specs) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, ended) in specs {
            let passed = ended.state == "passed";
            match (passed, self.of(handler, name)) {
                (true, Some(entry)) if !entry.may_pass => {
                    wrong.push(format!("{name}: passes, its line in known.txt can go"));
                }
                (false, None) => {
                    wrong.push(format!("{name}: {}: {}", ended.state, ended.message));
                }
                (false, Some(entry)) => println!("known: {name}: {}", entry.reason),
                (true, _) => {}
            }
        }
        wrong
    }

    fn of(&self, handler: &str, spec: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| {
            ["*", handler].contains(&entry.handler.as_str()) && spec.starts_with(&entry.spec)
        })
    }
}
