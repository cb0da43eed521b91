//! The id of a container: a directory name, so what it may hold is a matter of security.

/// An id that may be used as a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerId(String);

/// An id that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// No id at all.
    #[error("container id cannot be empty")]
    Empty,
    /// A character that runc refuses too.
    #[error(
        "invalid container ID format: {0:?} (letters, digits, \"_\", \"+\", \"-\" and \".\" are allowed, but not \".\" or \"..\" alone)"
    )]
    Format(String),
    /// Longer than a file name.
    #[error("invalid container ID format: {0} characters are more than the 255 of a file name")]
    Length(usize),
}

impl ContainerId {
    /// Checks an id.
    ///
    /// # Errors
    /// Anything that runc refuses.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if matches!(text, "." | "..") || !text.chars().all(allowed) {
            return Err(InvalidId::Format(text.to_owned()));
        }
        if text.len() > 255 {
            return Err(InvalidId::Length(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_runc_takes_are_taken() {
        for good in ["a", "web-1", "a.b", "..a", "_", "A+9", &"x".repeat(255)] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn ids_that_could_leave_the_directory_are_refused() {
        for bad in [
            ".", "..", "a/b", "../x", "a b", "a\0", "ä", "a\n", "a:b", "%",
        ] {
            assert!(
                matches!(ContainerId::new(bad), Err(InvalidId::Format(_))),
                "{bad:?}"
            );
        }
        assert_eq!(ContainerId::new(""), Err(InvalidId::Empty));
        assert_eq!(
            ContainerId::new(&"x".repeat(256)),
            Err(InvalidId::Length(256))
        );
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_id_is_always_one_normal_path_component(text in ".{0,40}") {
            if let Ok(id) = ContainerId::new(&text) {
                let parts: Vec<_> = std::path::Path::new(id.as_str()).components().collect();
                proptest::prop_assert!(matches!(parts.as_slice(), [std::path::Component::Normal(_)]));
            }
        }
    }
}
