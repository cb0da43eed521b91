use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::*;

/// A directory of the test's own, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> (Scratch, OwnedFd) {
        let path = std::env::temp_dir().join(format!("davit-sys-fs-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let fd = std::fs::File::open(&path).unwrap().into();
        (Scratch(path), fd)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn names_that_are_paths_are_refused_by_every_call() {
    let (_scratch, dir) = Scratch::new("names");
    for bad in ["", ".", "..", "a/b", "/etc"] {
        let bad = name(bad);
        let errors = [
            open_at(&dir, bad, OFlag::O_PATH, Mode::empty()).map(drop),
            mkdir(&dir, bad, Mode::S_IRWXU),
            mknod(&dir, bad, Node::Fifo, Mode::S_IRWXU),
            symlink(name("x"), &dir, bad),
            readlink(&dir, bad).map(drop),
            link(&dir, bad, &dir, name("x")),
            link(&dir, name("x"), &dir, bad),
            unlink(&dir, bad),
            rmdir(&dir, bad),
            remove_tree(&dir, bad),
            stat_at(&dir, bad).map(drop),
            chown_at(&dir, bad, 0, 0),
            chmod_at(&dir, bad, Mode::S_IRWXU),
            set_times_at(
                &dir,
                bad,
                Stamp {
                    seconds: 0,
                    nanoseconds: 0,
                },
            ),
            set_xattr_at(&dir, bad, c"user.x", b""),
            get_xattr_at(&dir, bad, c"user.x").map(drop),
            list_xattr_at(&dir, bad).map(drop),
        ];
        for error in errors {
            assert_eq!(error.unwrap_err().errno, Errno::EINVAL, "{bad:?}");
        }
    }
}

#[test]
fn a_symbolic_link_is_handled_itself_and_its_target_is_left_alone() {
    let (scratch, dir) = Scratch::new("links");
    let target = scratch.0.join("target");
    std::fs::write(&target, "untouched").unwrap();
    let before = std::fs::metadata(&target).unwrap();
    symlink(name("target"), &dir, name("link")).unwrap();
    chown_at(&dir, name("link"), 70_000, 80_000).unwrap();
    set_times_at(
        &dir,
        name("link"),
        Stamp {
            seconds: -5,
            nanoseconds: 7,
        },
    )
    .unwrap();
    set_xattr_at(&dir, name("link"), c"trusted.test", b"of the link").unwrap();
    link(&dir, name("link"), &dir, name("second")).unwrap();
    let chmod = chmod_at(&dir, name("link"), Mode::S_IRWXO).unwrap_err();
    let open = open_at(&dir, name("link"), OFlag::O_RDONLY, Mode::empty()).unwrap_err();

    let link = std::fs::symlink_metadata(scratch.0.join("second")).unwrap();
    assert_eq!((link.uid(), link.gid(), link.nlink()), (70_000, 80_000, 2));
    assert_eq!((link.mtime(), link.mtime_nsec()), (-5, 7));
    let value = get_xattr_at(&dir, name("second"), c"trusted.test").unwrap();
    assert_eq!(value.as_deref(), Some(&b"of the link"[..]));
    assert_eq!((chmod.errno, open.errno), (Errno::EOPNOTSUPP, Errno::ELOOP));
    let after = std::fs::metadata(&target).unwrap();
    assert_eq!(
        (after.mtime(), after.uid(), after.mode()),
        (before.mtime(), before.uid(), before.mode())
    );
    assert_eq!(
        list_xattr_at(&dir, name("target")).unwrap(),
        Vec::<CString>::new()
    );
}

#[test]
fn nodes_are_made_with_their_numbers_and_special_bits() {
    let (scratch, dir) = Scratch::new("nodes");
    mknod(&dir, name("whiteout"), Node::Char(0, 0), Mode::empty()).unwrap();
    mknod(&dir, name("fifo"), Node::Fifo, Mode::empty()).unwrap();
    chmod_at(&dir, name("fifo"), Mode::from_bits_retain(0o6751)).unwrap();
    let whiteout = std::fs::symlink_metadata(scratch.0.join("whiteout")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let fifo = std::fs::symlink_metadata(scratch.0.join("fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.permissions().mode() & 0o7777, 0o6751);
    let error = mknod(&dir, name("fifo"), Node::Fifo, Mode::empty()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"fifo\", Fifo): file exists (EEXIST)"),
        "{error}"
    );
}

#[test]
fn a_rename_never_replaces_anything() {
    let (scratch, dir) = Scratch::new("rename");
    std::fs::write(scratch.0.join("a"), "a").unwrap();
    std::fs::write(scratch.0.join("b"), "b").unwrap();
    let error = rename_new(&dir, name("a"), &dir, name("b")).unwrap_err();
    assert_eq!(error.errno, Errno::EEXIST);
    assert_eq!(std::fs::read(scratch.0.join("b")).unwrap(), b"b");
}

#[test]
fn a_tree_deeper_than_the_descriptor_limit_is_removed_and_what_it_links_to_stays() {
    let (scratch, dir) = Scratch::new("tree");
    std::fs::create_dir(scratch.0.join("kept")).unwrap();
    std::fs::write(scratch.0.join("kept/file"), "kept").unwrap();
    mkdir(&dir, name("tree"), Mode::S_IRWXU).unwrap();
    let mut current = open_dir(&dir, name("tree")).unwrap();
    for _ in 0..3000 {
        symlink(name("../../kept"), &current, name("link")).unwrap();
        mkdir(&current, name("file"), Mode::S_IRWXU).unwrap();
        mkdir(&current, name("d"), Mode::S_IRWXU).unwrap();
        current = open_dir(&current, name("d")).unwrap();
    }
    drop(current);
    remove_tree(&dir, name("tree")).unwrap();
    remove_tree(&dir, name("tree")).unwrap();
    assert!(!scratch.0.join("tree").exists());
    assert_eq!(std::fs::read(scratch.0.join("kept/file")).unwrap(), b"kept");
}

#[test]
fn reserving_makes_a_file_long_and_too_much_is_refused() {
    let (scratch, _dir) = Scratch::new("reserve");
    let file = std::fs::File::create(scratch.0.join("file")).unwrap();
    reserve(&file, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20);
    assert_eq!(reserve(&file, u64::MAX).unwrap_err().errno, Errno::EFBIG);
    let space = space(&file).unwrap();
    assert!(space.bytes > space.bytes_free && space.bytes_free > 0);
}
