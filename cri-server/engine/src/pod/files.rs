//! The files that a pod's containers see and nobody else makes: `/etc/hostname`, `/etc/resolv.conf`,
//! `/etc/hosts` and the pod's `/dev/shm`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sys::mount::{FsContext, MountAttr};

use crate::error::{Error, Result};
use crate::model::{DnsConfig, NamespaceMode, PodConfig};
use crate::spec::userns;

/// The size of a pod's `/dev/shm`, as in every other engine.
const SHM_SIZE: &str = "64m";

/// Where the pod's `/dev/shm` is.
pub(crate) fn shm(pod_dir: &Path) -> PathBuf {
    pod_dir.join("shm")
}

/// Writes what needs no network.
pub(crate) fn write_early(pod_dir: &Path, hostname: &str, config: &PodConfig) -> Result<()> {
    write(&pod_dir.join("hostname"), &format!("{hostname}\n"))?;
    let resolv = match &config.dns {
        Some(dns) if dns != &DnsConfig::default() => resolv_conf(dns)?,
        _ => copy_of(Path::new("/etc/resolv.conf"))?,
    };
    write(&pod_dir.join("resolv.conf"), &resolv)
}

/// Writes `/etc/hosts`: the host's own with the host's network, else the pod's addresses.
pub(crate) fn write_hosts(
    pod_dir: &Path,
    hostname: &str,
    config: &PodConfig,
    ips: &[String],
) -> Result<()> {
    let text = match config.security.namespaces.network {
        NamespaceMode::Node => copy_of(Path::new("/etc/hosts"))?,
        _ => hosts(hostname, ips),
    };
    write(&pod_dir.join("hosts"), &text)
}

/// Mounts the pod's `/dev/shm`.
pub(crate) fn mount_shm(pod_dir: &Path) -> Result<()> {
    let target = shm(pod_dir);
    fs::create_dir_all(&target).map_err(|source| Error::Io {
        action: "make directory",
        path: target.clone(),
        source,
    })?;
    let mount = || -> sys::Result<()> {
        let context = FsContext::open("tmpfs")?;
        context.set_string("source", "shm")?;
        context.set_string("size", SHM_SIZE)?;
        context.set_string("mode", "1777")?;
        let attributes = MountAttr::MOUNT_ATTR_NOSUID
            | MountAttr::MOUNT_ATTR_NODEV
            | MountAttr::MOUNT_ATTR_NOEXEC;
        sys::mount::attach(context.mount(attributes)?, &target)
    };
    mount().map_err(|source| Error::Sys {
        action: "mount the pod's /dev/shm".into(),
        source,
    })
}

/// Takes the pod's `/dev/shm` away; one that is not there is fine.
pub(crate) fn unmount_shm(pod_dir: &Path) -> Result<()> {
    sys::mount::unmount_detach(&shm(pod_dir)).map_err(|source| Error::Sys {
        action: "unmount the pod's /dev/shm".into(),
        source,
    })
}

/// Makes root of the pod's own user namespace the owner of its files.
pub(crate) fn give_to_root(pod_dir: &Path, config: &PodConfig) -> Result<()> {
    let options = &config.security.namespaces;
    if userns::ranges(options).is_none() {
        return Ok(());
    }
    let (uid, gid) = userns::root(options);
    for name in ["hosts", "hostname", "resolv.conf", "shm"] {
        let path = pod_dir.join(name);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(|source| Error::Io {
            action: "change the owner of",
            path,
            source,
        })?;
    }
    Ok(())
}

/// The lines of resolv.conf(5).
fn resolv_conf(dns: &DnsConfig) -> Result<String> {
    let all = [&dns.servers, &dns.searches, &dns.options];
    if let Some(bad) = all
        .into_iter()
        .flatten()
        .find(|word| word.contains(['\n', '\r', '\0']))
    {
        return Err(Error::invalid(
            "dns_config",
            format!("{bad:?} does not fit in one line"),
        ));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).ok();
    }
    for server in &dns.servers {
        writeln!(text, "nameserver {server}").ok();
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).ok();
    }
    Ok(text)
}

fn hosts(hostname: &str, ips: &[String]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        writeln!(text, "{ip}\t{hostname}").ok();
    }
    text
}

/// The text of a file of the host; missing is empty.
fn copy_of(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file that every user of a container may read, whatever the daemon's umask.
fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |action| {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    fs::write(path, text).map_err(failed("write"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed("set the mode of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_the_lines_that_resolvers_read() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "8.8.8.8".into()],
            searches: vec!["a.local".into(), "b.local".into()],
            options: vec!["ndots:5".into()],
        };
        let text = resolv_conf(&dns).expect("text");
        assert_eq!(
            text,
            "search a.local b.local\nnameserver 10.0.0.10\nnameserver 8.8.8.8\noptions ndots:5\n"
        );
        let bad = DnsConfig {
            servers: vec!["1.1.1.1\nnameserver 6.6.6.6".into()],
            ..DnsConfig::default()
        };
        assert!(resolv_conf(&bad).is_err());
    }

    #[test]
    fn hosts_names_the_pod_by_each_address() {
        let text = hosts("web", &["10.1.0.2".into(), "fd00::2".into()]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.1.0.2\tweb\nfd00::2\tweb\n"));
    }
}
