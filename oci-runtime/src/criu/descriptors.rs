//! `descriptors.json`: which pipes of whoever started the container its program had as stdio. A restored one gets
//! those of whoever restores it.
use std::path::Path;

use crate::error::{Error, Result, Within};

/// The name of the file among the images, and its form, are runc's.
const NAME: &str = "descriptors.json";

/// What descriptors 0, 1 and 2 are, as `/proc/<pid>/fd` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors(pub Vec<String>);

impl Descriptors {
    /// Those of a running process. A descriptor that is closed is an empty text, a file of the host what criu calls it.
    pub fn of(pid: i32) -> Self {
        let mounts = sys::mountinfo::read(Path::new(&format!("/proc/{pid}/mountinfo")));
        let known: Vec<u64> = mounts.iter().flatten().map(|mount| mount.id).collect();
        let one = |number: i32| {
            let path = format!("/proc/{pid}/fd/{number}");
            let target = std::fs::read_link(&path).unwrap_or_default();
            if target.is_absolute()
                && let Some((mount, inode)) = file(pid, number)
                && !known.contains(&mount)
            {
                return format!("file[{mount:x}:{inode:x}]");
            }
            target.to_string_lossy().into_owned()
        };
        Self((0..3).map(one).collect())
    }

    /// The files of the host among them, by what criu calls them.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .map(String::as_str)
            .filter(|text| text.starts_with("file["))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The directory is full or not writable.
    pub fn save(&self, images: &Path) -> Result<()> {
        let text = serde_json::to_vec(&self.0).map_err(|error| Error::new(error.to_string()))?;
        crate::state::write_atomically(&images.join(NAME), &text)
    }

    /// The pipes and files of the host among them, by what criu knows them as, with the descriptor that takes their place.
    pub fn inherited(&self) -> impl Iterator<Item = (&str, i32)> {
        let numbered = (0..3).zip(&self.0);
        numbered
            .filter(|(_, text)| text.starts_with("pipe:") || text.starts_with("file["))
            .map(|(number, text)| (text.as_str(), number))
    }
}

/// The mount and the inode of a file that a process has open.
fn file(pid: i32, number: i32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(format!("/proc/{pid}/fd/{number}"))
        .ok()?
        .ino();
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some((mount.trim().parse().ok()?, inode))
}

/// Reads the file.
///
/// # Errors
/// It is not there: the directory holds no images of a container.
pub fn read(images: &Path) -> Result<Descriptors> {
    let path = images.join(NAME);
    let text = std::fs::read(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))
        .within(|| "--image-path".to_owned())
        .map_err(|error| error.hint("the directory holds no checkpoint of a container"))?;
    parse(&text).map_err(|error| error.within(path.display()))
}

fn parse(text: &[u8]) -> Result<Descriptors> {
    serde_json::from_slice(text)
        .map(Descriptors)
        .map_err(|error| Error::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pipes_and_files_of_the_host_are_inherited_and_nothing_else() {
        let text = br#"["file[1c:a]","pipe:[12]","/x","pipe:[14]"]"#;
        let read = parse(text).unwrap();
        let pipes: Vec<_> = read.inherited().collect();
        assert_eq!(pipes, [("file[1c:a]", 0), ("pipe:[12]", 1)]);
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let own = Descriptors::of(nix::unistd::getpid().as_raw());
        own.save(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), own);
        assert_eq!(own.0.len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_descriptors_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&text).map(|read| read.inherited().count()));
        }
    }
}
