//! `known.txt`: the points that fail under davit-oci, each with the reason.

use integration::known;

/// Whether a point must fail or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Always: passing is as wrong as failing elsewhere.
    Fails,
    /// The test has a race of its own, or looks at memory that changes.
    MayFail,
    /// A peer passes it, and ours does not yet.
    Missing,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) program: String,
    pub(crate) point: String,
    pub(crate) kind: Kind,
    pub(crate) reason: String,
}

/// The list.
pub(crate) struct Known(Vec<Entry>);

// === impl Known ===

impl Known {
    /// Reads `program | point | fails, may fail or missing | reason`; `#` begins a comment.
    ///
    /// # Panics
    /// On a line of another form.
    pub(crate) fn read(text: &str) -> Known {
        let entry = |[program, point, kind, reason]: [&str; 4]| Entry {
            program: program.to_owned(),
            point: point.to_owned(),
            kind: match kind {
                "fails" => Kind::Fails,
                "may fail" => Kind::MayFail,
                "missing" => Kind::Missing,
                other => panic!("known.txt: {other:?}: {point}"),
            },
            reason: reason.to_owned(),
        };
        Known(known::rows(text).map(entry).collect())
    }

    /// What is known of a point. `*` stands for every point of a program.
    pub(crate) fn of(&self, program: &str, point: &str) -> Option<&Entry> {
        self.0
            .iter()
            .find(|entry| entry.program == program && [point, "*"].contains(&entry.point.as_str()))
    }

    /// Every line.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}
