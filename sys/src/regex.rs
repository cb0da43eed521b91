//! POSIX extended regular expressions of the C library, `regex(3)`: for the rare command that takes a pattern.
#![allow(unsafe_code)]
use std::ffi::CStr;

/// A compiled pattern.
pub struct Regex(libc::regex_t);

impl Regex {
    /// Compiles an extended regular expression.
    ///
    /// # Errors
    /// What is wrong with it, in the C library's words.
    pub fn new(pattern: &CStr) -> Result<Self, String> {
        // SAFETY: all-zero is a valid place for a pattern that `regcomp` is about to fill: integers and pointers.
        let mut raw: libc::regex_t = unsafe { std::mem::zeroed() };
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: both live through the call; on success `raw` is initialised, and freed once, in `drop`.
        let code = unsafe { libc::regcomp(&raw mut raw, pattern.as_ptr(), flags) };
        if code == 0 {
            return Ok(Self(raw));
        }
        let mut text = [0_u8; 128];
        // SAFETY: `raw` is the one that `regcomp` refused; the length is that of the live buffer, which gets a NUL.
        unsafe {
            libc::regerror(code, &raw const raw, text.as_mut_ptr().cast(), text.len());
        }
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Err(text.to_string_lossy().into_owned())
    }

    /// Whether the pattern is found in `text`.
    #[must_use]
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the pattern is compiled (the only way to make a `Regex`), the text NUL-terminated, and no places of
        // matches are asked for (REG_NOSUB).
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled once and not freed before.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_anchored() {
        let regex = Regex::new(c"^web-[0-9]+$|db").unwrap();
        for (text, expected) in [(c"web-12", true), (c"web-", false), (c"old-db-1", true)] {
            assert_eq!(regex.matches(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_broken_pattern_is_refused_with_a_reason() {
        assert!(!Regex::new(c"web-(").err().unwrap().is_empty());
    }
}
