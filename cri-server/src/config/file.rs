//! The configuration file: TOML, walked by hand so that every mistake is found in one go, each with its line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use engine::{CgroupDriver, Handler, ImagesConfig};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::streaming::StreamingConfig;
use super::{Problem, reference};
use crate::flags::LogLevel;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) default_runtime: Option<DefaultRuntime>,
    pub(super) runtimes: BTreeMap<String, Handler>,
    pub(super) bridge: Option<String>,
    pub(super) subnet: Option<String>,
    pub(super) subnet6: Option<String>,
    pub(super) cgroup_root: Option<String>,
    pub(super) cgroup_driver: CgroupDriver,
    pub(super) images: ImagesConfig,
    pub(super) log_level: Option<LogLevel>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) streaming: StreamingConfig,
}

/// The name of the default runtime, and the line it stands on.
#[derive(Debug)]
pub(super) struct DefaultRuntime {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Reads `text`; what is wrong goes to `problems`, what is right is returned all the same.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> File {
    let mut reader = Reader {
        path,
        text,
        problems,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.problem(at, error.message().to_owned());
    }
    let table = table.into_inner();
    // After a syntax error the rest is a guess, and so would be what is said about it.
    if reader.problems.is_empty() {
        reader.file(&table)
    } else {
        File::default()
    }
}

/// An address and a prefix length, such as `10.89.0.0/16`.
pub(super) fn check_subnet(subnet: &str) -> Result<(), String> {
    let parts = subnet.split_once('/').and_then(|(address, length)| {
        Some((address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?))
    });
    match parts {
        Some((IpAddr::V4(_), 1..=30)) => Ok(()),
        Some((IpAddr::V4(_), length)) => Err(format!(
            "{subnet:?}: a prefix of {length} bits leaves no room for pods; use 1 to 30"
        )),
        Some((IpAddr::V6(_), _)) => Err(format!("{subnet:?}: an IPv6 subnet is subnet6")),
        None => Err(format!(
            "{subnet:?} is not an IPv4 subnet such as \"10.89.0.0/16\""
        )),
    }
}

/// `auto`, or an IPv6 address and a prefix length.
pub(super) fn check_subnet6(subnet: &str) -> Result<(), String> {
    let parts = subnet.split_once('/').and_then(|(address, length)| {
        Some((
            address.parse::<Ipv6Addr>().ok()?,
            length.parse::<u8>().ok()?,
        ))
    });
    match parts {
        Some((_, 1..=126)) => Ok(()),
        Some((_, length)) => Err(format!(
            "{subnet:?}: a prefix of {length} bits leaves no room for pods; use 1 to 126"
        )),
        None if subnet == "auto" => Ok(()),
        None => Err(format!(
            "{subnet:?} is neither \"auto\" nor an IPv6 subnet such as \"fd00:89::/64\""
        )),
    }
}

/// The kernel takes 15 bytes without slash, colon and white space; see `dev_valid_name()`.
pub(super) fn check_link_name(name: &str) -> Result<(), String> {
    let fits = (1..16).contains(&name.len()) && name != "." && name != "..";
    if fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be the name of a network link (1 to 15 bytes, no slash, colon or space)"
    ))
}

/// Absolute, as cgroup paths of CRI are, and inside the hierarchy.
pub(super) fn check_cgroup(path: &str) -> Result<(), String> {
    if path.starts_with('/') && !path.split('/').any(|part| part == "..") {
        return Ok(());
    }
    Err(format!("{path:?} must be absolute and without \"..\""))
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    LogLevel::from_str(text, false)
        .map_err(|_| format!("{text:?} is none of error, warn, info, debug, trace"))
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as \"127.0.0.1:9325\""))
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

type Key<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

impl Reader<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> File {
        let mut file = File::default();
        for entry in table.iter() {
            match entry.0.get_ref().as_ref() {
                "default_runtime" => {
                    let line = self.line(entry.1.span().start);
                    file.default_runtime = self
                        .string("", entry)
                        .map(|name| DefaultRuntime { name, line });
                }
                "cgroup_root" => file.cgroup_root = self.checked("", entry, check_cgroup),
                "cgroup_driver" => file.cgroup_driver = self.cgroup_driver(entry),
                "runtimes" => file.runtimes = self.runtimes(entry),
                "network" => self.network(entry, &mut file),
                "images" => file.images = self.images(entry),
                "streaming" => file.streaming = self.streaming(entry),
                "metrics" => self.metrics(entry, &mut file),
                "log_level" => {
                    let text = self.checked("", entry, |text| log_level(text).map(drop));
                    file.log_level = text.and_then(|text| log_level(&text).ok());
                }
                _ => self.unknown("", entry, &reference::known("")),
            }
        }
        file
    }

    fn cgroup_driver(&mut self, entry: Key<'_, '_>) -> CgroupDriver {
        let known = |text: &str| match text {
            "cgroupfs" | "systemd" => Ok(()),
            other => Err(format!("{other:?} is neither \"cgroupfs\" nor \"systemd\"")),
        };
        match self.checked("", entry, known).as_deref() {
            Some("systemd") => CgroupDriver::Systemd,
            _ => CgroupDriver::Cgroupfs,
        }
    }

    fn runtimes(&mut self, entry: Key<'_, '_>) -> BTreeMap<String, Handler> {
        let mut handlers = BTreeMap::new();
        for inner in self
            .table("", entry)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            let name = inner.0.get_ref();
            if name.is_empty() {
                self.problem(
                    inner.0.span().start,
                    "runtimes: a name is empty; the empty name is the default runtime's".into(),
                );
            } else if let Some(handler) = self.runtime(&format!("runtimes.{name}."), inner) {
                handlers.insert(name.to_string(), handler);
            }
        }
        handlers
    }

    fn runtime(&mut self, prefix: &str, entry: Key<'_, '_>) -> Option<Handler> {
        let table = self.table("runtimes.", entry)?;
        let (mut path, mut root, mut args) = (None, None, Vec::new());
        for inner in table.iter() {
            match inner.0.get_ref().as_ref() {
                "path" => path = Some(self.absolute_path(prefix, inner)),
                "root" => root = self.absolute_path(prefix, inner),
                "args" => args = self.strings(prefix, inner),
                _ => self.unknown(prefix, inner, &reference::known(reference::RUNTIME)),
            }
        }
        if path.is_none() {
            self.problem(entry.0.span().start, format!("{prefix}path: is missing"));
        }
        // Without a good path it is never used, but its name is known: one mistake, one complaint.
        let path = path.flatten().unwrap_or_default();
        Some(Handler { path, root, args })
    }

    fn network(&mut self, entry: Key<'_, '_>, file: &mut File) {
        for inner in self
            .table("", entry)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            match inner.0.get_ref().as_ref() {
                "bridge" => file.bridge = self.checked("network.", inner, check_link_name),
                "subnet" => file.subnet = self.checked("network.", inner, check_subnet),
                "subnet6" => file.subnet6 = self.checked("network.", inner, check_subnet6),
                _ => self.unknown("network.", inner, &reference::known("network")),
            }
        }
    }

    fn metrics(&mut self, entry: Key<'_, '_>, file: &mut File) {
        for inner in self
            .table("", entry)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            match inner.0.get_ref().as_ref() {
                "address" => {
                    let text =
                        self.checked("metrics.", inner, |text| socket_address(text).map(drop));
                    file.metrics = text.and_then(|text| socket_address(&text).ok());
                }
                _ => self.unknown("metrics.", inner, &reference::known("metrics")),
            }
        }
    }

    fn images(&mut self, entry: Key<'_, '_>) -> ImagesConfig {
        let mut images = ImagesConfig::default();
        for inner in self
            .table("", entry)
            .into_iter()
            .flat_map(|table| table.iter())
        {
            match inner.0.get_ref().as_ref() {
                "pinned" => images.pinned = self.strings("images.", inner),
                "pull_progress_timeout_s" => {
                    if let Some(seconds) = self.seconds("images.", inner) {
                        images.progress_timeout = seconds;
                    }
                }
                _ => self.unknown("images.", inner, &reference::known("images")),
            }
        }
        images
    }

    /// A time of at least one second.
    fn seconds(&mut self, prefix: &str, entry: Key<'_, '_>) -> Option<Duration> {
        let Some(number) = entry.1.get_ref().as_integer() else {
            return self.wrong_type(prefix, entry, "an integer");
        };
        let seconds: Option<u64> = number.as_str().parse().ok();
        if let Some(seconds) = seconds.filter(|seconds| (1..=86_400).contains(seconds)) {
            return Some(Duration::from_secs(seconds));
        }
        self.problem(
            entry.1.span().start,
            format!(
                "{prefix}{}: {} is not between 1 and 86400 seconds",
                entry.0.get_ref(),
                number.as_str()
            ),
        );
        None
    }

    fn streaming(&mut self, entry: Key<'_, '_>) -> StreamingConfig {
        const TABLE: &str = "streaming.";
        let mut config = StreamingConfig::default();
        let (mut cert, mut key) = (None, None);
        let fields = self.table("", entry).into_iter().flat_map(|one| one.iter());
        for inner in fields {
            match inner.0.get_ref().as_ref() {
                "address" => {
                    let check = |text: &str| match text.parse::<IpAddr>() {
                        Ok(_) => Ok(()),
                        Err(_) => Err(format!("{text:?} is not an IP address")),
                    };
                    if let Some(Ok(address)) =
                        self.checked(TABLE, inner, check).map(|text| text.parse())
                    {
                        config.address = address;
                    }
                }
                "port" => {
                    if let Some(port) = self.number(TABLE, inner, 0..=65535) {
                        config.port = u16::try_from(port).unwrap_or_default();
                    }
                }
                "tls_cert" => cert = self.absolute_path(TABLE, inner),
                "tls_key" => key = self.absolute_path(TABLE, inner),
                "idle_timeout_s" => {
                    if let Some(seconds) = self.number(TABLE, inner, 1..=604_800) {
                        config.idle_timeout = Duration::from_secs(seconds);
                    }
                }
                "stream_creation_timeout_s" => {
                    if let Some(seconds) = self.number(TABLE, inner, 1..=3600) {
                        config.stream_creation_timeout = Duration::from_secs(seconds);
                    }
                }
                _ => self.unknown(TABLE, inner, &reference::known("streaming")),
            }
        }
        let named = |name: &str| {
            let table = entry.1.get_ref().as_table();
            table.is_some_and(|table| table.iter().any(|(key, _)| key.get_ref() == name))
        };
        if named("tls_cert") != named("tls_key") {
            let problem = "streaming: tls_cert and tls_key belong together; one is missing";
            self.problem(entry.0.span().start, problem.into());
        }
        config.tls = cert.zip(key);
        config
    }

    fn number(
        &mut self,
        prefix: &str,
        entry: Key<'_, '_>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let Some(integer) = entry.1.get_ref().as_integer() else {
            return self.wrong_type(prefix, entry, "a number");
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix());
        let value = value.ok().and_then(|value| u64::try_from(value).ok());
        if let Some(value) = value.filter(|value| range.contains(value)) {
            return Some(value);
        }
        let (least, most) = (range.start(), range.end());
        let key = entry.0.get_ref();
        let problem = format!("{prefix}{key}: {integer} is not from {least} to {most}");
        self.problem(entry.1.span().start, problem);
        None
    }

    fn absolute_path(&mut self, prefix: &str, entry: Key<'_, '_>) -> Option<PathBuf> {
        let must = |path: &str| match Path::new(path).is_absolute() {
            true => Ok(()),
            false => Err(format!("{path:?} is not an absolute path")),
        };
        self.checked(prefix, entry, must).map(PathBuf::from)
    }

    fn checked(
        &mut self,
        prefix: &str,
        entry: Key<'_, '_>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        let text = self.string(prefix, entry)?;
        match check(&text) {
            Ok(()) => Some(text),
            Err(why) => {
                self.problem(
                    entry.1.span().start,
                    format!("{prefix}{}: {why}", entry.0.get_ref()),
                );
                None
            }
        }
    }

    fn string(&mut self, prefix: &str, entry: Key<'_, '_>) -> Option<String> {
        let found = entry.1.get_ref().as_str().map(str::to_owned);
        found.or_else(|| self.wrong_type(prefix, entry, "a string"))
    }

    fn strings(&mut self, prefix: &str, entry: Key<'_, '_>) -> Vec<String> {
        let found = entry.1.get_ref().as_array().and_then(|array| {
            array
                .iter()
                .map(|one| one.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        found
            .or_else(|| self.wrong_type(prefix, entry, "an array of strings"))
            .unwrap_or_default()
    }

    fn table<'a, 'i>(&mut self, prefix: &str, entry: Key<'a, 'i>) -> Option<&'a DeTable<'i>> {
        let found = entry.1.get_ref().as_table();
        found.or_else(|| self.wrong_type(prefix, entry, "a table"))
    }

    fn wrong_type<T>(&mut self, prefix: &str, entry: Key<'_, '_>, wanted: &str) -> Option<T> {
        let is = entry.1.get_ref().type_str();
        self.problem(
            entry.1.span().start,
            format!("{prefix}{}: must be {wanted}, is {is}", entry.0.get_ref()),
        );
        None
    }

    fn unknown(&mut self, prefix: &str, entry: Key<'_, '_>, known: &str) {
        self.problem(
            entry.0.span().start,
            format!(
                "{prefix}{}: unknown key; known are {known}",
                entry.0.get_ref()
            ),
        );
    }

    fn problem(&mut self, at: usize, text: String) {
        let (place, line) = (self.path.display().to_string(), self.line(at));
        self.problems.push(Problem { place, line, text });
    }

    /// The line, counted from 1, that holds the byte `at`.
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&b| b == b'\n').count()
    }
}
