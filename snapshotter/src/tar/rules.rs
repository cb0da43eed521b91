//! What the names in an archive may be.

use std::ffi::CString;

use super::limits::Limits;

/// Attributes that a layer may set. Those of overlayfs are its own language, in which a layer could send lookups to
/// other layers; labels are given by the engine, to match the host's policy.
pub(super) fn keeps(key: &CString) -> bool {
    let key = key.as_bytes();
    !(key.starts_with(b"trusted.overlay.")
        || key.starts_with(b"user.overlay.")
        || key == b"security.selinux")
}

/// The path without empty and `.` components, if it is one that a layer may have.
pub(super) fn normal(path: &[u8], limits: &Limits) -> Result<Vec<u8>, String> {
    let mut clean = Vec::with_capacity(path.len());
    let mut depth = 0;
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("its path climbs with \"..\"".into()),
            _ if part.len() > 255 => {
                return Err("a component of its path is longer than 255 bytes".into());
            }
            _ => {}
        }
        depth += 1;
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    if depth > limits.depth {
        return Err(format!("it is more than {} directories deep", limits.depth));
    }
    if clean.len() > limits.path {
        return Err(format!("its path is longer than {} bytes", limits.path));
    }
    Ok(clean)
}
