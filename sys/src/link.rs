//! The one network operation that needs no netlink: bringing an interface up, netdevice(7).
#![allow(unsafe_code)]
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Context, Error, Result, check};

// The C libraries do not agree on the type of a request's number, and each gives these constants another one.
const GET_FLAGS: libc::Ioctl = libc::SIOCGIFFLAGS as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = libc::SIOCSIFFLAGS as libc::Ioctl;

/// Brings `name` up in the network namespace of the caller. A new namespace has `lo`, and it is down.
///
/// # Errors
/// `ENODEV` where no interface has this name, `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn set_up(name: &str) -> Result<()> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .call(|| "socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC)".to_owned())?;
    let mut request = request(name)?;
    // SAFETY: SIOCGIFFLAGS reads the name from and writes the flags to the `ifreq` on this stack.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), GET_FLAGS, &raw mut request) };
    check(ret.into(), || format!("ioctl(SIOCGIFFLAGS, {name:?})"))?;
    // SAFETY: the call above filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: SIOCSIFFLAGS only reads the `ifreq`.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, &raw mut request) };
    check(ret.into(), || {
        format!("ioctl(SIOCSIFFLAGS, {name:?}, IFF_UP)")
    })
    .map(drop)
}

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data for which all zero bytes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.as_bytes().contains(&0) {
        return Err(Error::new(Errno::EINVAL, format!("ifreq({name:?})")));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bringing_up_lo_twice_is_no_error() {
        set_up("lo").unwrap();
        set_up("lo").unwrap();
    }

    #[test]
    fn an_unknown_or_too_long_interface_is_named_in_the_error() {
        let error = set_up("nothere0").unwrap_err();
        assert_eq!(error.errno, Errno::ENODEV);
        assert!(error.call.contains("nothere0"), "{error}");
        assert_eq!(
            set_up("a-name-that-is-too-long").unwrap_err().errno,
            Errno::EINVAL
        );
    }
}
