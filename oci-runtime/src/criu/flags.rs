//! The flags of `checkpoint` and `restore`, and what of criu's request follows from them.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, ResolveFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use super::rpc::opt;
use super::wire::Message;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::verbs::create::absolute;

/// criu's configuration where the annotation [`CONFIG`] names no other; read by criu, where it exists.
const DEFAULT_CONFIG: &str = "/etc/criu/runc.conf";

/// The annotation that names criu's configuration; with an empty one there is none.
const CONFIG: &str = "org.criu.config";

/// How much criu logs: everything that its developers ask for.
const LOG_LEVEL: i32 = 4;

/// Where the images are, and where criu works.
#[derive(Debug)]
pub struct Directories {
    /// The images.
    pub images: PathBuf,
    images_fd: OwnedFd,
    work: Option<(PathBuf, OwnedFd)>,
}

impl Directories {
    /// Opens them; `make` makes the one for the images as well.
    ///
    /// # Errors
    /// One that is not there and not to be made.
    pub fn open(parsed: &Parsed, make: bool) -> Result<Self> {
        let given = |name| parsed.get(name).filter(|text: &&str| !text.is_empty());
        let images = absolute(given("image-path").unwrap_or("checkpoint"))?;
        let within = || "--image-path".to_owned();
        if make {
            make_dir(&images).within(within)?;
        }
        let images_fd = open_dir(&images).within(within)?;
        let work = match given("work-path") {
            None => None,
            Some(path) => {
                let within = || "--work-path".to_owned();
                let path = absolute(path)?;
                make_dir(&path).within(within)?;
                let fd = open_dir(&path).within(within)?;
                Some((path, fd))
            }
        };
        Ok(Self {
            images,
            images_fd,
            work,
        })
    }

    /// The descriptors that criu opens them by.
    pub fn numbers(&self) -> Vec<RawFd> {
        let work = self.work.iter().map(|(_, fd)| fd);
        work.chain([&self.images_fd])
            .map(AsRawFd::as_raw_fd)
            .collect()
    }

    /// Opens them again under the same numbers, in another mount namespace than before.
    ///
    /// # Errors
    /// They are gone.
    pub fn reopen(&self) -> Result<()> {
        let work = self.work.iter().map(|(path, fd)| (path, fd));
        for (path, fd) in work.chain([(&self.images, &self.images_fd)]) {
            sys::fd::duplicate_onto(open_dir(path)?, fd.as_raw_fd())?;
        }
        Ok(())
    }

    /// Where criu writes this log.
    pub fn log(&self, name: &str) -> PathBuf {
        let work = self.work.as_ref().map(|(path, _)| path);
        work.unwrap_or(&self.images).join(name)
    }

    /// `--parent-path`: the images of an earlier pre-dump, seen from these.
    ///
    /// # Errors
    /// It is absolute, or not there.
    pub fn parent<'a>(&self, parsed: &'a Parsed) -> Result<Option<&'a str>> {
        let Some(parent) = parsed.get("parent-path").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        if Path::new(parent).is_absolute() {
            return Err(Error::new("--parent-path must be relative"));
        }
        open_dir(&self.images.join(parent)).within(|| "invalid --parent-path".to_owned())?;
        Ok(Some(parent))
    }
}

fn make_dir(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path);
    made.map_err(|error| sys::Error::from_io(&error, format!("mkdir({path:?}, 0700)")).into())
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    Ok(sys::path::openat2(
        AT_FDCWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlag::empty(),
    )?)
}

/// The options that both commands have; `log` is the name of criu's log, `annotations` are the container's.
///
/// # Errors
/// A value that makes no sense.
pub fn common(
    parsed: &Parsed,
    directories: &Directories,
    log: &str,
    annotations: &std::collections::BTreeMap<String, String>,
) -> Result<Message> {
    let mut options = Message::default();
    options
        .int(opt::IMAGES_DIR_FD, directories.images_fd.as_raw_fd())
        .int(opt::LOG_LEVEL, LOG_LEVEL)
        .bytes(opt::LOG_FILE, log)
        .bool(opt::MANAGE_CGROUPS, true)
        .int(opt::MANAGE_CGROUPS_MODE, cgroups_mode(parsed)?)
        .bool(opt::NOTIFY_SCRIPTS, true)
        .bool(opt::ORPHAN_PTS_MASTER, true)
        .int(opt::EMPTY_NS, empty_namespaces(parsed)?);
    if let Some((_, fd)) = &directories.work {
        options.int(opt::WORK_DIR_FD, fd.as_raw_fd());
    }
    let switches = [
        ("shell-job", opt::SHELL_JOB),
        ("ext-unix-sk", opt::EXT_UNIX_SK),
        ("tcp-established", opt::TCP_ESTABLISHED),
        ("tcp-skip-in-flight", opt::TCP_SKIP_IN_FLIGHT),
        ("tcp-close", opt::TCP_CLOSE),
        ("file-locks", opt::FILE_LOCKS),
        ("link-remap", opt::LINK_REMAP),
        ("leave-running", opt::LEAVE_RUNNING),
        ("auto-dedup", opt::AUTO_DEDUP),
        ("lazy-pages", opt::LAZY_PAGES),
    ];
    for (flag, field) in switches {
        if parsed.is_on(flag) {
            options.bool(field, true);
        }
    }
    if let Some(address) = parsed.get("page-server").filter(|text| !text.is_empty()) {
        options.message(opt::PS, &page_server(address)?);
    }
    if let Some(method) = network_lock(parsed)? {
        options.int(opt::NETWORK_LOCK, method);
    }
    let config = annotations
        .get(CONFIG)
        .map_or(DEFAULT_CONFIG, String::as_str);
    if !config.is_empty() {
        options.bytes(opt::CONFIG_FILE, config);
    }
    Ok(options)
}

fn cgroups_mode(parsed: &Parsed) -> Result<i32> {
    match parsed.get("manage-cgroups-mode").unwrap_or_default() {
        "ignore" => Ok(0),
        "soft" => Ok(3),
        "full" => Ok(4),
        "strict" => Ok(5),
        "" => Ok(6),
        other => Err(
            Error::new(format!("invalid manage-cgroups-mode value: {other:?}"))
                .hint("it is soft (the default), full, strict or ignore"),
        ),
    }
}

/// The network namespace is made and left empty in any case: who made the container also sets up its network.
fn empty_namespaces(parsed: &Parsed) -> Result<i32> {
    match parsed.all("empty-ns").find(|name| *name != "network") {
        Some(other) => Err(Error::new(format!("namespace {other:?} is not supported"))
            .hint("--empty-ns takes network only")),
        None => Ok(CloneFlags::CLONE_NEWNET.bits()),
    }
}

fn page_server(text: &str) -> Result<Message> {
    let usage = || Error::new("use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let address = match address.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(usage)?,
        None if address.contains(':') => return Err(usage()),
        None => address,
    };
    if address.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let port: u16 = port
        .parse()
        .map_err(|_| Error::new(format!("invalid port number {port:?}")).within("--page-server"))?;
    let mut server = Message::default();
    server.bytes(1, address).int(2, port);
    Ok(server)
}

fn network_lock(parsed: &Parsed) -> Result<Option<i32>> {
    match parsed.get("network-lock") {
        None => Ok(None),
        Some("iptables") => Ok(Some(1)),
        Some("nftables") => Ok(Some(2)),
        Some("skip") => Ok(Some(3)),
        Some(other) => Err(Error::new(format!(
            "--network-lock: {other:?} is neither iptables, nftables nor skip"
        ))),
    }
}

/// `--status-fd`: who waits there is told once the pages can be fetched.
#[derive(Debug)]
pub struct StatusFd(Option<OwnedFd>);

impl StatusFd {
    /// Takes the descriptor.
    ///
    /// # Errors
    /// It is not open, or not for writing.
    pub fn take(parsed: &Parsed) -> Result<Self> {
        let number = parsed.number::<i32>("status-fd").map_err(Error::new)?;
        let Some(number) = number.filter(|number| *number != -1) else {
            return Ok(Self(None));
        };
        let within = || format!("invalid --status-fd argument {number}");
        if number < 3 {
            return Err(Error::new("it is stdin, stdout or stderr").within(within()));
        }
        let fd = sys::fd::take_inherited(number).within(within)?;
        let flags = fcntl(&fd, FcntlArg::F_GETFL)
            .map_err(|errno| sys::Error::new(errno, "fcntl(F_GETFL)"))
            .within(within)?;
        let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        if mode == OFlag::O_RDONLY {
            return Err(Error::new("not writable").within(within()));
        }
        Ok(Self(Some(fd)))
    }

    /// Its number, for a criu that does not say when it is ready but tells itself.
    pub fn number(&self) -> Option<i32> {
        self.0.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Tells, once.
    pub fn tell(&mut self) {
        if let Some(fd) = self.0.take() {
            // Whoever waited may have given up; that is no reason to fail the dump.
            drop(sys::fd::write_all(&fd, b"\0"));
        }
    }

    /// Lets go of it: criu has its own by now.
    pub fn close(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::COMMANDS;
    use crate::criu::wire::{Fields, Value};
    use std::collections::BTreeMap;

    fn parsed(command: &str, args: &[&str]) -> Parsed {
        let command = COMMANDS.iter().find(|one| one.name == command).unwrap();
        let args: Vec<String> = args.iter().map(|one| (*one).to_owned()).collect();
        Parsed::new(command.flags, &args).unwrap()
    }

    /// The options that these flags make, without the directory.
    fn options(command: &str, args: &[&str]) -> Result<Vec<(u32, Vec<u8>)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images");
        let args = [&["--image-path", path.to_str().unwrap()], args].concat();
        let parsed = parsed(command, &args);
        let directories = Directories::open(&parsed, true)?;
        let annotations = BTreeMap::from([(CONFIG.to_owned(), String::new())]);
        let message = common(&parsed, &directories, "dump.log", &annotations)?;
        let field = |field: std::result::Result<(u32, Value<'_>), _>| match field.unwrap() {
            (number, Value::Number(value)) => (number, value.to_string().into_bytes()),
            (number, value) => (number, value.bytes().unwrap_or_default().to_vec()),
        };
        let all: Vec<_> = Fields::new(message.as_bytes()).map(field).collect();
        Ok(all
            .into_iter()
            .filter(|(number, _)| *number != opt::IMAGES_DIR_FD)
            .collect())
    }

    #[test]
    fn every_switch_is_one_option() {
        let none = options("checkpoint", &[]).unwrap();
        for (flag, field) in [
            ("--shell-job", opt::SHELL_JOB),
            ("--ext-unix-sk", opt::EXT_UNIX_SK),
            ("--tcp-established", opt::TCP_ESTABLISHED),
            ("--tcp-skip-in-flight", opt::TCP_SKIP_IN_FLIGHT),
            ("--file-locks", opt::FILE_LOCKS),
            ("--link-remap", opt::LINK_REMAP),
            ("--leave-running", opt::LEAVE_RUNNING),
            ("--auto-dedup", opt::AUTO_DEDUP),
            ("--lazy-pages", opt::LAZY_PAGES),
        ] {
            let with = options("checkpoint", &[flag]).unwrap();
            let new: Vec<_> = with.into_iter().filter(|one| !none.contains(one)).collect();
            assert_eq!(new, [(field, b"1".to_vec())], "{flag}");
        }
        let with = options("restore", &["--tcp-close"]).unwrap();
        assert!(with.contains(&(opt::TCP_CLOSE, b"1".to_vec())));
    }

    #[test]
    fn values_are_numbers_of_criu_or_errors() {
        for (mode, number) in [
            ("", "6"),
            ("soft", "3"),
            ("full", "4"),
            ("strict", "5"),
            ("ignore", "0"),
        ] {
            let with = options("restore", &["--manage-cgroups-mode", mode]).unwrap();
            assert!(
                with.contains(&(opt::MANAGE_CGROUPS_MODE, number.as_bytes().to_vec())),
                "{mode}"
            );
        }
        for (lock, number) in [("iptables", "1"), ("nftables", "2"), ("skip", "3")] {
            let with = options("checkpoint", &["--network-lock", lock]).unwrap();
            assert!(
                with.contains(&(opt::NETWORK_LOCK, number.as_bytes().to_vec())),
                "{lock}"
            );
        }
        for (args, text) in [
            (
                ["--manage-cgroups-mode", "hard"],
                "invalid manage-cgroups-mode value: \"hard\"",
            ),
            (
                ["--network-lock", "x"],
                "--network-lock: \"x\" is neither iptables, nftables nor skip",
            ),
            (["--empty-ns", "pid"], "namespace \"pid\" is not supported"),
            (
                ["--page-server", "here"],
                "use --page-server ADDRESS:PORT to specify page server",
            ),
            (
                ["--page-server", ":1"],
                "use --page-server ADDRESS:PORT to specify page server",
            ),
            (
                ["--page-server", "::1:1"],
                "use --page-server ADDRESS:PORT to specify page server",
            ),
            (
                ["--page-server", "a:b"],
                "--page-server: invalid port number \"b\"",
            ),
        ] {
            assert_eq!(options("checkpoint", &args).unwrap_err().message, text);
        }
    }

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        for (text, address) in [
            ("127.0.0.1:99", "127.0.0.1"),
            ("[::1]:99", "::1"),
            ("host:99", "host"),
        ] {
            let mut wanted = Message::default();
            wanted.bytes(1, address).int(2, 99);
            assert_eq!(page_server(text).unwrap(), wanted);
        }
    }

    #[test]
    fn the_annotation_names_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let parsed = parsed(
            "checkpoint",
            &["--image-path", dir.path().to_str().unwrap()],
        );
        let directories = Directories::open(&parsed, true).unwrap();
        let config = |annotations| {
            let message = common(&parsed, &directories, "dump.log", &annotations).unwrap();
            let mut fields = Fields::new(message.as_bytes()).map(std::result::Result::unwrap);
            fields
                .find(|(number, _)| *number == opt::CONFIG_FILE)
                .and_then(|(_, value)| value.text())
        };
        assert_eq!(config(BTreeMap::new()).as_deref(), Some(DEFAULT_CONFIG));
        let with = |value: &str| BTreeMap::from([(CONFIG.to_owned(), value.to_owned())]);
        assert_eq!(config(with("/x.conf")).as_deref(), Some("/x.conf"));
        assert_eq!(config(with("")), None);
    }

    #[test]
    fn a_parent_is_relative_and_there() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        std::fs::create_dir(dir.path().join("parent")).unwrap();
        let parent = |path: &str| {
            let parsed = parsed(
                "checkpoint",
                &[
                    "--image-path",
                    images.to_str().unwrap(),
                    "--parent-path",
                    path,
                ],
            );
            let directories = Directories::open(&parsed, true).unwrap();
            directories
                .parent(&parsed)
                .map(|parent| parent.map(str::to_owned))
        };
        assert_eq!(parent("../parent").unwrap().as_deref(), Some("../parent"));
        assert_eq!(parent("").unwrap(), None);
        assert_eq!(
            parent("/x").unwrap_err().message,
            "--parent-path must be relative"
        );
        assert!(
            parent("../none")
                .unwrap_err()
                .message
                .starts_with("invalid --parent-path: ")
        );
    }
}
