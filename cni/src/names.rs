//! The three names of an attachment and what may be in them, as libcni's `pkg/utils` has it: they end up in
//! file names, kernel link names and environment variables.

/// Longest name of a network interface (`IFNAMSIZ` - 1).
pub(crate) const MAX_IFNAME: usize = 15;

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`: no `/`, so the name cannot leave the directory it is used in.
fn is_cni_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Why `id` cannot be a container id, if it cannot.
pub(crate) fn bad_container_id(id: &str) -> Option<&'static str> {
    bad_cni_name(id)
}

/// Why `name` cannot be a network name, if it cannot.
pub(crate) fn bad_network_name(name: &str) -> Option<&'static str> {
    bad_cni_name(name)
}

fn bad_cni_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        name if !is_cni_name(name) => Some(
            "must start with a letter or digit and hold only letters, digits, `_`, `.` and `-`",
        ),
        _ => None,
    }
}

/// Why `name` cannot be the name of a network interface, if it cannot.
pub(crate) fn bad_ifname(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        "." | ".." => Some("is `.` or `..`"),
        name if name.len() > MAX_IFNAME => Some("is longer than 15 bytes"),
        name if name
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) =>
        {
            Some("contains `/`, `:`, a blank or a control character")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-a", ".a", "a b", "a\n", "ä"] {
            assert!(bad_container_id(bad).is_some(), "{bad:?}");
            assert!(bad_network_name(bad).is_some(), "{bad:?}");
        }
        assert_eq!(bad_container_id("a.b-c_D9"), None);
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "0123456789abcdef",
            "eth\u{7}",
        ] {
            assert!(bad_ifname(bad).is_some(), "{bad:?}");
        }
        assert_eq!(bad_ifname("0123456789abcde"), None);
        assert_eq!(bad_ifname("eth0.100"), None);
    }
}
