//! Questions about mount namespaces that `/proc` answers only by listing every mount: how many there are, who
//! owns a namespace, and which is the next one. `ioctl_nsfs(2)`, Linux 6.12.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Result, check};
use crate::fd::FdName;

/// `struct mnt_ns_info` of the kernel.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    size: u32,
    mounts: u32,
    id: u64,
}

const SIZE: u32 = 16;

const fn request(number: u32) -> u32 {
    // _IOR(0xb7, number, struct mnt_ns_info)
    2 << 30 | SIZE << 16 | 0xb7 << 8 | number
}

// _IO(0xb7, 1)
const NS_GET_USERNS: u32 = 0xb7 << 8 | 1;
const NS_MNT_GET_INFO: u32 = request(10);
const NS_MNT_GET_NEXT: u32 = request(11);
const NS_MNT_GET_PREV: u32 = request(12);

/// How many mounts a namespace has.
///
/// # Errors
/// `ENOTTY` before Linux 6.12, `EINVAL` for a namespace of another kind.
pub fn mounts(namespace: impl AsFd) -> Result<u32> {
    let mut info = RawInfo::default();
    ask(
        namespace,
        NS_MNT_GET_INFO,
        "NS_MNT_GET_INFO",
        Some(&mut info),
    )
    .map(|_| info.mounts)
}

/// The user namespace that owns a namespace (`NS_GET_USERNS`).
///
/// # Errors
/// `EPERM` where that is neither the caller's own nor one below.
pub fn owner(namespace: impl AsFd) -> Result<OwnedFd> {
    neighbour(namespace, NS_GET_USERNS, "NS_GET_USERNS")
}

/// The namespace with the next higher id, of those that still exist. The first two ids are given at boot; later ones say
/// little about age, since every processor has a stock of its own from Linux 6.18 on.
///
/// # Errors
/// `ENOENT` where this is the last, `EPERM` without `CAP_SYS_ADMIN` on the host, `ENOTTY` before Linux 6.12.
pub fn next(namespace: impl AsFd) -> Result<OwnedFd> {
    neighbour(namespace, NS_MNT_GET_NEXT, "NS_MNT_GET_NEXT")
}

/// The namespace with the next lower id, of those that still exist.
///
/// # Errors
/// `ENOENT` where this is the first, `EPERM` without `CAP_SYS_ADMIN` on the host, `ENOTTY` before Linux 6.12.
pub fn previous(namespace: impl AsFd) -> Result<OwnedFd> {
    neighbour(namespace, NS_MNT_GET_PREV, "NS_MNT_GET_PREV")
}

fn neighbour(namespace: impl AsFd, number: u32, name: &str) -> Result<OwnedFd> {
    let raw = ask(namespace, number, name, None)?;
    // SAFETY: each of these requests returns a new descriptor, with close-on-exec, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn ask(
    namespace: impl AsFd,
    number: u32,
    name: &str,
    info: Option<&mut RawInfo>,
) -> Result<libc::c_int> {
    let namespace = namespace.as_fd();
    let text = || format!("ioctl({}, {name})", FdName::of(namespace));
    let info: *mut RawInfo = info.map_or(std::ptr::null_mut(), |info| info);
    // SAFETY: the kernel writes at most the 16 bytes that are in the number of the request, which `RawInfo` has; it takes
    // a null pointer for "no answer wanted" and keeps nothing. Its numbers are those of no other file's ioctl.
    let ret = unsafe { libc::ioctl(namespace.as_raw_fd(), number as libc::Ioctl, info) };
    check(libc::c_long::from(ret), text)?;
    Ok(ret)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::errno::Errno;

    use super::*;
    use crate::namespace::{self, NamespaceKind};

    #[test]
    fn the_number_of_mounts_is_that_of_mountinfo() {
        let own = namespace::open(Path::new("/proc/self/ns/mnt"), NamespaceKind::Mnt).unwrap();
        // Other tests mount, too.
        for _ in 0..100 {
            let before = crate::mountinfo::own().unwrap().len();
            let counted = match mounts(&own) {
                Err(error) if error.errno == Errno::ENOTTY => return,
                other => other.unwrap(),
            };
            let after = crate::mountinfo::own().unwrap().len();
            if before == after {
                // The root of all mounts may be hidden below another one.
                let counted = usize::try_from(counted).unwrap();
                assert!(
                    counted == before || counted == before + 1,
                    "{counted} {before}"
                );
                return;
            }
        }
        panic!("the number of mounts does not settle");
    }

    #[test]
    fn the_next_of_the_previous_is_the_namespace_itself() {
        let own = namespace::open(Path::new("/proc/self/ns/mnt"), NamespaceKind::Mnt).unwrap();
        let identity = namespace::identity(&own).unwrap();
        // Other tests make and end namespaces, which may be between.
        for _ in 0..100 {
            let again = match previous(&own).and_then(next) {
                // The first of all, an old kernel, or no rights over the host.
                Err(error) => {
                    let known = [Errno::ENOENT, Errno::ENOTTY, Errno::EPERM];
                    assert!(known.contains(&error.errno), "{error}");
                    return;
                }
                Ok(again) => again,
            };
            if namespace::identity(&again).unwrap() == identity {
                return;
            }
        }
        panic!("never came back");
    }

    #[test]
    fn the_own_namespace_is_owned_by_the_own_user_namespace() {
        let own = namespace::open(Path::new("/proc/self/ns/mnt"), NamespaceKind::Mnt).unwrap();
        let users = namespace::open(Path::new("/proc/self/ns/user"), NamespaceKind::User).unwrap();
        let identity = namespace::identity(owner(own).unwrap()).unwrap();
        assert_eq!(identity, namespace::identity(users).unwrap());
    }

    #[test]
    fn a_namespace_of_another_kind_has_no_mounts() {
        let net = namespace::open(Path::new("/proc/self/ns/net"), NamespaceKind::Net).unwrap();
        assert!(mounts(&net).is_err());
    }
}
