//! `/proc/self/mountinfo`, parsed. See `proc_pid_mountinfo(5)`.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The id of the mount.
    pub id: u64,
    /// The id of the mount that it lies on.
    pub parent: u64,
    /// Device number of the filesystem.
    pub device: (u32, u32),
    /// The directory of the filesystem that is the root of this mount.
    pub root: PathBuf,
    /// Where it is, as seen from the root of the process.
    pub mount_point: PathBuf,
    /// Its attributes, such as `rw`, `nosuid`.
    pub options: Vec<String>,
    /// Propagation: `shared:1`, `master:2`, `propagate_from:1`, `unbindable`.
    pub optional: Vec<String>,
    /// The type of the filesystem.
    pub fs_type: String,
    /// What was mounted, such as a device.
    pub source: OsString,
    /// Options of the filesystem, such as the controllers of a cgroup hierarchy.
    pub super_options: Vec<String>,
}

/// The mounts of this process.
///
/// # Errors
/// `/proc` is not there.
pub fn own() -> Result<Vec<Mount>> {
    read(Path::new("/proc/self/mountinfo"))
}

/// The mounts in a file of this format. Lines that make no sense are left out: a new kernel may only add fields.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Mount>> {
    let text = std::fs::read(path).call(|| format!("read({path:?})"))?;
    Ok(parse(&text))
}

/// The lines of `/proc/thread-self/mountinfo` that the kernel has not been asked for yet. On a host with thousands of
/// mounts most of the cost is the kernel's, of writing lines that nobody wants.
#[derive(Debug)]
pub struct Lines {
    file: std::fs::File,
    text: Vec<u8>,
    start: usize,
}

impl Lines {
    /// Opens the mounts of this thread: it may have a mount namespace of its own, which `/proc/self` does not show.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn open() -> Result<Self> {
        let path = Path::new("/proc/thread-self/mountinfo");
        let file = std::fs::File::open(path).call(|| format!("open({path:?})"))?;
        Ok(Self {
            file,
            text: Vec::new(),
            start: 0,
        })
    }

    /// The next mount whose filesystem has a type that begins with `fs_type`; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub fn next_of(&mut self, fs_type: &str) -> Result<Option<Mount>> {
        let mark = [b" - ", fs_type.as_bytes()].concat();
        while let Some(line) = self.next_line()? {
            // Only lines of interest are taken apart.
            if line.windows(mark.len()).any(|part| part == mark)
                && let Some(mount) = parse_line(line)
                && mount.fs_type.starts_with(fs_type)
            {
                return Ok(Some(mount));
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let rest = self.text.get(self.start..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let from = self.start;
                self.start += length + 1;
                return Ok(self.text.get(from..from + length));
            }
            self.text.drain(..self.start);
            self.start = 0;
            let old = self.text.len();
            self.text.resize(old + 4096, 0);
            let room = self.text.get_mut(old..).unwrap_or_default();
            let count = std::io::Read::read(&mut self.file, room)
                .call(|| "read(\"/proc/thread-self/mountinfo\")".to_owned())?;
            self.text.truncate(old + count);
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

/// Parses the whole text.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = PathBuf::from(unescape(fields.next()?));
    let mount_point = PathBuf::from(unescape(fields.next()?));
    let options = list(fields.next()?);
    let mut optional = Vec::new();
    loop {
        match fields.next()? {
            b"-" => break,
            field => optional.push(String::from_utf8_lossy(field).into_owned()),
        }
    }
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next()?);
    // An empty source leaves the last field where the source should be; the kernel writes "none" since 2.6.
    let super_options = list(fields.next().unwrap_or_default());
    Some(Mount {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        optional,
        fs_type,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn list(field: &[u8]) -> Vec<String> {
    let field = unescape(field);
    field
        .to_string_lossy()
        .split(',')
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Undoes the kernel's octal escapes of space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |byte: u8| {
            (b'0'..=b'7')
                .contains(&byte)
                .then(|| u32::from(byte - b'0'))
        };
        let escaped = match (first, tail) {
            (b'\\', [a, b, c, ..]) => match (octal(*a), octal(*b), octal(*c)) {
                (Some(a), Some(b), Some(c)) => u8::try_from(a * 64 + b * 8 + c).ok(),
                _ => None,
            },
            _ => None,
        };
        match escaped {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 propagate_from:2 - ext3 /dev/r\011t rw,errors=continue";

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_parsed() {
        let mount = parse(LINE).remove(0);
        assert_eq!((mount.id, mount.parent, mount.device), (36, 35, (98, 0)));
        assert_eq!(mount.mount_point, Path::new(r"/a b\c"));
        assert_eq!(mount.optional, ["master:1", "propagate_from:2"]);
        assert_eq!(
            (mount.fs_type.as_str(), mount.source.to_str()),
            ("ext3", Some("/dev/r\tt"))
        );
        assert_eq!(mount.super_options, ["rw", "errors=continue"]);
    }

    #[test]
    fn nonsense_is_left_out_and_never_panics() {
        let text = b"\n1 2\nx y z\n1 2 3:4 / / rw shared:1\n\\ \\ \\\n";
        assert_eq!(parse(text), []);
        for end in 0..LINE.len() {
            parse(&LINE[..end]);
        }
    }

    #[test]
    fn a_backslash_without_three_octal_digits_stays() {
        assert_eq!(unescape(br"a\9\01"), OsString::from(r"a\9\01"));
        assert_eq!(unescape(br"\777"), OsString::from(r"\777"));
    }

    #[test]
    fn lines_are_read_one_by_one_and_only_those_of_a_type() {
        let mut lines = Lines::open().unwrap();
        let mut found = Vec::new();
        while let Some(mount) = lines.next_of("cgroup").unwrap() {
            found.push(mount);
        }
        let mut all = own().unwrap();
        all.retain(|mount| mount.fs_type.starts_with("cgroup"));
        assert_eq!(found, all);
        assert_eq!(lines.next_of("cgroup").unwrap(), None, "and no more");
    }

    #[test]
    fn the_own_mounts_contain_proc() {
        assert!(
            own()
                .unwrap()
                .iter()
                .any(|mount| mount.mount_point == Path::new("/proc") && mount.fs_type == "proc")
        );
    }
}
