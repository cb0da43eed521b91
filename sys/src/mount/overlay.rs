//! Overlayfs through the new mount API: one `lowerdir+` per layer, so no option string grows too long.
//! See <https://docs.kernel.org/filesystems/overlayfs.html>.
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;

use super::api::{FsContext, MountAttr};
use crate::error::{Error, Result};

/// A detached overlay mount of `lower` (the topmost layer first), writable where `upper` is
/// `Some((upper directory, work directory))`.
///
/// `options` are further overlay parameters, each `key` or `key=value`, such as `volatile` or `userxattr`.
/// Needs `lowerdir+` (Linux 6.5); older kernels get the joined string, which holds 255 bytes.
///
/// # Errors
/// What overlayfs says about the directories, in its own words where the kernel logs them.
pub fn overlay(
    lower: &[&Path],
    upper: Option<(&Path, &Path)>,
    options: &[&str],
) -> Result<OwnedFd> {
    match mounted(lower, upper, options, set_lower) {
        // Before Linux 6.5 overlayfs takes every key, and refuses those that it does not know when it is mounted.
        Err(refused) if refused.errno == Errno::EINVAL => {
            mounted(lower, upper, options, set_lower_joined).map_err(|_| refused)
        }
        other => other,
    }
}

fn mounted(
    lower: &[&Path],
    upper: Option<(&Path, &Path)>,
    options: &[&str],
    set_lower: fn(&FsContext, &[&Path]) -> Result<()>,
) -> Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set_string("source", "overlay")?;
    set_lower(&context, lower)?;
    if let Some((upper, work)) = upper {
        context.set_string("upperdir", utf8(upper)?)?;
        context.set_string("workdir", utf8(work)?)?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => context.set_string(key, value)?,
            None => context.set_flag(option)?,
        }
    }
    let attrs = if upper.is_some() {
        MountAttr::empty()
    } else {
        MountAttr::MOUNT_ATTR_RDONLY
    };
    context.mount(attrs)
}

fn set_lower(context: &FsContext, lower: &[&Path]) -> Result<()> {
    for layer in lower {
        context.set_string("lowerdir+", utf8(layer)?)?;
    }
    Ok(())
}

/// The form of old kernels: `a:b:c`, with `\`, `:` and `,` escaped.
fn set_lower_joined(context: &FsContext, lower: &[&Path]) -> Result<()> {
    let mut joined = String::new();
    for layer in lower {
        if !joined.is_empty() {
            joined.push(':');
        }
        for c in utf8(layer)?.chars() {
            if matches!(c, '\\' | ':') {
                joined.push('\\');
            }
            joined.push(c);
        }
    }
    context.set_string("lowerdir", &joined)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::new(Errno::EILSEQ, format!("overlay({path:?})")))
}
