//! Archives that want out, and archives compared with what another extractor makes of them.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use snapshotter::{ErrorKind, Limits, Store, one_line};
use support::image::{Pack, Tar, gzip, image};
use support::mount::{stack, stack_bytes};
use support::{Scratch, assert_clean, options, store};
use tar::{EntryType, Header};

fn header(kind: EntryType) -> Header {
    Tar::header(kind, 0o755, 0)
}

/// A link with a path and a target that the builder would refuse.
fn raw_link(kind: EntryType, path: &[u8], target: &[u8]) -> Tar {
    let mut header = header(kind);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    Tar::new().raw(path, header, b"")
}

fn raw_file(tar: Tar, path: &[u8]) -> Tar {
    tar.raw(path, Tar::header(EntryType::Regular, 0o644, 1), b"x")
}

#[tokio::test]
async fn hostile_entries_are_refused_by_name_and_nothing_appears_outside() {
    let outside = Scratch::new();
    let victim = outside.join("victim");
    std::fs::create_dir(&victim).unwrap();
    let target = victim.to_str().unwrap().to_owned();
    let mut many = Tar::new();
    for n in 0..1001 {
        many = many.file(&format!("f{n}"), b"");
    }
    let deep = format!("{}f", "d/".repeat(300));
    let mut big_uid = header(EntryType::Regular);
    big_uid.set_uid(u64::from(u32::MAX) + 5);
    let mut nobody = header(EntryType::Regular);
    nobody.set_uid(u64::from(u32::MAX));
    let mut device = header(EntryType::Char);
    device.set_device_major(5000).unwrap();
    device.set_device_minor(1).unwrap();
    let cases: Vec<(&str, Tar, ErrorKind, &str)> = vec![
        (
            "dotdot",
            raw_file(Tar::new(), b"../victim/x"),
            ErrorKind::Corrupt,
            "climbs with \"..\"",
        ),
        (
            "inner dotdot",
            raw_file(Tar::new().dir("a"), b"a/../../victim/x"),
            ErrorKind::Corrupt,
            "climbs with \"..\"",
        ),
        (
            "absolute dotdot",
            raw_file(Tar::new(), b"/../victim/x"),
            ErrorKind::Corrupt,
            "climbs with \"..\"",
        ),
        (
            "whiteout of dotdot",
            Tar::new().file("a/.wh...", b""),
            ErrorKind::Corrupt,
            "a name that no file can have",
        ),
        (
            "whiteout of dot",
            Tar::new().file("a/.wh..", b""),
            ErrorKind::Corrupt,
            "a name that no file can have",
        ),
        (
            "whiteout of nothing",
            Tar::new().file("a/.wh.", b""),
            ErrorKind::Corrupt,
            "a name that no file can have",
        ),
        (
            "hard link up",
            raw_link(EntryType::Link, b"l", b"../victim"),
            ErrorKind::Corrupt,
            "its link target: its path climbs",
        ),
        (
            "hard link to itself",
            raw_link(EntryType::Link, b"l", b"l"),
            ErrorKind::Corrupt,
            "hard link to \"l\"",
        ),
        (
            "hard link to nothing",
            raw_link(EntryType::Link, b"l", b""),
            ErrorKind::Corrupt,
            "link without a target",
        ),
        (
            "hard link to the root",
            raw_link(EntryType::Link, b"l", b"/"),
            ErrorKind::Corrupt,
            "hard link to \"\"",
        ),
        (
            "hard link to a directory",
            Tar::new().dir("d").hardlink("l", "d"),
            ErrorKind::Corrupt,
            "hard link to a directory",
        ),
        (
            "hard link to a whiteout",
            Tar::new().file(".wh.d", b"").hardlink("l", "d"),
            ErrorKind::Corrupt,
            "that this layer deletes",
        ),
        (
            "hard link out of the layer",
            Tar::new().hardlink("l", &format!("{target}/x")),
            ErrorKind::Corrupt,
            "neither this layer nor one below it has",
        ),
        (
            "hard link through a link",
            Tar::new().symlink("s", &target).hardlink("l", "s/x"),
            ErrorKind::Corrupt,
            "neither this layer nor one below it has",
        ),
        (
            "file below a file",
            Tar::new().file("a", b"1").file("a/b", b"2"),
            ErrorKind::Corrupt,
            "is not a directory",
        ),
        (
            "links in a loop",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"1"),
            ErrorKind::Corrupt,
            "form a loop",
        ),
        (
            "nul in path",
            Tar::new().pax(&[("path", b"a\0b")]).file("x", b""),
            ErrorKind::Corrupt,
            "contains a NUL",
        ),
        (
            "nul in target",
            Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("x", "y"),
            ErrorKind::Corrupt,
            "contains a NUL",
        ),
        (
            "nul in attribute",
            Tar::new()
                .pax(&[("SCHILY.xattr.user.a\0b", b"1")])
                .file("x", b""),
            ErrorKind::Corrupt,
            "contains a NUL",
        ),
        (
            "long component",
            Tar::new().file(&"n".repeat(256), b""),
            ErrorKind::Corrupt,
            "longer than 255 bytes",
        ),
        (
            "deep path",
            Tar::new().file(&deep, b""),
            ErrorKind::Corrupt,
            "more than 256 directories deep",
        ),
        (
            "long path",
            Tar::new()
                .pax(&[("path", "p/".repeat(2500).as_bytes())])
                .file("x", b""),
            ErrorKind::Corrupt,
            "path exceeds limit",
        ),
        (
            "file at the root",
            raw_file(Tar::new(), b"./"),
            ErrorKind::Corrupt,
            "",
        ),
        (
            "link at the root",
            raw_link(EntryType::Symlink, b"./", target.as_bytes()),
            ErrorKind::Corrupt,
            "only a directory can stand at the root",
        ),
        (
            "huge uid",
            Tar::new().entry("x", big_uid, b""),
            ErrorKind::Corrupt,
            "is not one that Linux has",
        ),
        (
            "uid -1",
            Tar::new().entry("x", nobody, b""),
            ErrorKind::Corrupt,
            "is not one that Linux has",
        ),
        (
            "device out of range",
            Tar::new().entry("x", device, b""),
            ErrorKind::Corrupt,
            "device number is out of range",
        ),
        (
            "unknown type",
            Tar::new().entry("x", header(EntryType::new(b'M')), b""),
            ErrorKind::Unsupported,
            "type 'M' are not supported",
        ),
        (
            "too many entries",
            many,
            ErrorKind::Corrupt,
            "more than 1000 entries",
        ),
        (
            "too many bytes",
            Tar::new().file("x", &vec![0; 11 << 20]),
            ErrorKind::Corrupt,
            "larger than 10485760 bytes",
        ),
    ];
    for (name, archive, kind, reason) in cases {
        let scratch = Scratch::new();
        let mut options = options(&scratch);
        options.limits = Limits {
            entries: 1000,
            bytes: 10 << 20,
            ..Limits::default()
        };
        let store = Store::open(options).unwrap();
        let result = stack(&scratch, &store, vec![archive]).await;
        if reason.is_empty() {
            // Harmless where it is no error.
            drop(result);
        } else {
            let error = result.expect_err(name);
            let line = one_line(&error);
            assert!(line.contains(reason), "{name}: {line}");
            assert_eq!(error.kind(), kind, "{name}: {line}");
            assert_clean(&scratch, 0);
        }
        assert_eq!(support::names(&victim), Vec::<String>::new(), "{name}");
        assert_eq!(support::names(&outside.join(".")), ["victim"], "{name}");
    }
}

#[tokio::test]
async fn links_that_point_out_are_kept_as_text_and_nothing_is_written_through_them() {
    let outside = Scratch::new();
    std::fs::write(outside.join("secret"), "untouched").unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    let climb = format!("../../../../../../../../..{target}");
    let archive = Tar::new()
        .symlink("abs", &target)
        .file("abs/new", b"1")
        .file("abs/secret", b"2")
        .symlink("rel", &climb)
        .file("rel/other", b"3")
        .dir("rel/dir")
        .symlink("rel/dir/again", &target)
        .file("rel/dir/again/x", b"4")
        .symlink("file", &format!("{target}/secret"))
        .file("file", b"5")
        .symlink("hard", &format!("{target}/secret"))
        .hardlink("hard2", "hard")
        .file("hard2", b"6")
        .symlink("magic", "/proc/self/root")
        .file("magic/y", b"7")
        .symlink("cwd", "/proc/self/cwd")
        .dir("cwd/z");
    let scratch = Scratch::new();
    let store = store(&scratch);
    let image = stack(&scratch, &store, vec![archive]).await.unwrap();
    assert_eq!(support::names(outside.path()), ["secret"]);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"untouched");
    let inside = store
        .layer_path(&image.layers[0])
        .join(target.trim_start_matches('/'));
    assert_eq!(
        support::names(&inside),
        ["dir", "new", "other", "secret", "x"]
    );
    assert!(
        store
            .layer_path(&image.layers[0])
            .join("proc/self/root/y")
            .is_file()
    );
}

#[tokio::test]
async fn archives_cut_anywhere_or_with_a_flipped_byte_never_pass() {
    let whole = Tar::new()
        .dir("d")
        .file("d/a", &[b'a'; 700])
        .symlink("l", "d")
        .pax(&[("mtime", b"1.5")])
        .file("b", b"b")
        .finish();
    let expected = image(vec![support::image::Layer::new(whole.clone(), Pack::Plain)]);
    let scratch = Scratch::new();
    let store = store(&scratch);
    for spoil in 0..whole.len() / 64 {
        let mut blob = whole.clone();
        if spoil % 2 == 0 {
            blob.truncate(spoil * 64 + 1)
        } else {
            blob[spoil * 64] ^= 0x55
        }
        // The manifest agrees with the spoilt bytes, the config does not.
        let layer = support::image::Layer {
            tar: whole.clone(),
            blob: gzip(&blob),
            pack: Pack::Gzip,
        };
        let spoilt = support::image::with_config(vec![layer], expected.config.clone());
        let dir = scratch.join(&format!("layout-{spoil}"));
        support::image::write_layout(&dir, &[(None, &spoilt)]);
        let error = store
            .import(&dir, Some("x"), snapshotter::ProgressSink::none())
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
            "{spoil}: {}",
            one_line(&error)
        );
        assert_clean(&scratch, 0);
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_by_its_ratio_before_it_fills_the_disk() {
    // 2 GiB of zeros in 200 KiB, which no gzip could do.
    let mut encoder = zstd::Encoder::new(vec![], 3).unwrap();
    let mut head = Tar::header(EntryType::Regular, 0o644, 2 << 30);
    head.set_path("zeros").unwrap();
    head.set_cksum();
    std::io::Write::write_all(&mut encoder, head.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..2048 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let layer = support::image::Layer {
        tar: vec![],
        blob,
        pack: Pack::Zstd,
    };
    let scratch = Scratch::new();
    let dir = scratch.join("layout");
    support::image::write_layout(&dir, &[(None, &image(vec![layer]))]);
    let error = store(&scratch)
        .import(&dir, Some("x"), snapshotter::ProgressSink::none())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        one_line(&error).contains("no honest layer has this ratio"),
        "{}",
        one_line(&error)
    );
    assert_clean(&scratch, 0);
}

// === another extractor as the judge ===

/// What an entry of a generated archive is.
#[derive(Clone, Debug)]
enum Made {
    File(Vec<u8>),
    Dir,
    Symlink(String),
    Hardlink(prop::sample::Index),
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..2000).prop_map(Made::File),
        2 => Just(Made::Dir),
        1 => "[a-z./]{1,150}".prop_map(Made::Symlink),
        1 => any::<prop::sample::Index>().prop_map(Made::Hardlink),
    ]
}

/// Entries with different paths, parents first.
fn archive() -> impl Strategy<Value = Vec<(String, Made, u32, u64, u64)>> {
    let path =
        prop::collection::vec("[a-d]{1,3}|[x-z]{90,120}", 1..4).prop_map(|parts| parts.join("/"));
    let entry = (made(), 0_u32..0o10000, 0_u64..100_000, 0_u64..4_000_000_000);
    prop::collection::btree_map(path, entry, 1..25).prop_map(|entries: BTreeMap<_, _>| {
        let mut kept: Vec<(String, Made, u32, u64, u64)> = vec![];
        for (path, (made, mode, uid, mtime)) in entries {
            // Only directories have something below them.
            let above = kept
                .iter()
                .find(|(other, ..)| path.starts_with(&format!("{other}/")));
            if above.is_none_or(|(_, made, ..)| matches!(made, Made::Dir)) {
                kept.push((path, made, mode, uid, mtime));
            }
        }
        kept
    })
}

fn build(entries: &[(String, Made, u32, u64, u64)]) -> Vec<u8> {
    let files: Vec<&String> = entries
        .iter()
        .filter(|(_, made, ..)| matches!(made, Made::File(_)))
        .map(|(path, ..)| path)
        .collect();
    let mut tar = Tar::new();
    let mut written: Vec<&String> = vec![];
    for (path, made, mode, uid, mtime) in entries {
        let header = |kind, size| {
            let mut header = Tar::header(kind, *mode, size);
            header.set_uid(*uid);
            header.set_gid(uid / 2);
            header.set_mtime(*mtime);
            header
        };
        tar = match made {
            Made::File(data) => tar.entry(path, header(EntryType::Regular, data.len()), data),
            Made::Dir => tar.entry(path, header(EntryType::Directory, 0), b""),
            Made::Symlink(target) => tar.symlink(path, target),
            Made::Hardlink(index) => {
                let earlier: Vec<&&String> = files
                    .iter()
                    .filter(|file| written.contains(*file))
                    .collect();
                match earlier.is_empty() {
                    true => continue,
                    false => tar.hardlink(path, earlier[index.index(earlier.len())]),
                }
            }
        };
        written.push(path);
    }
    tar.finish()
}

/// Everything about a tree that an archive says.
fn describe(root: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                todo.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else {
                format!("{:?} {}", std::fs::read(&path).unwrap(), meta.nlink())
            };
            let owner = format!("{}:{}", meta.uid(), meta.gid());
            let text = format!("{:o} {owner} {content}", meta.mode());
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), text);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn archives_come_out_as_gnu_tar_has_them(entries in archive()) {
        let bytes = build(&entries);
        let scratch = Scratch::new();
        let theirs = scratch.join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(scratch.join("archive.tar"), &bytes).unwrap();
        let tar = std::process::Command::new("tar").args(["-xp", "--same-owner", "--numeric-owner", "-C"]).arg(&theirs).arg("-f").arg(scratch.join("archive.tar")).output().unwrap();
        prop_assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = store(&scratch);
        let image = runtime.block_on(stack_bytes(&scratch, &store, vec![bytes])).unwrap();
        let mut ours = describe(&store.layer_path(&image.layers[0]));
        let mut theirs = describe(&theirs);
        // Directories that no entry describes get the umask of whoever unpacks.
        for (path, text) in &mut theirs {
            if let Some(our) = ours.get_mut(path) && !entries.iter().any(|(known, ..)| known == path) {
                text.clone_from(our);
            }
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn no_bytes_make_the_extractor_panic_or_leave_its_directory(bytes in prop::collection::vec(any::<u8>(), 0..4096), keep in 0_usize..3) {
        let mut archive = Tar::new().dir("a").file("a/b", b"x").symlink("c", "a").finish();
        for (index, byte) in bytes.iter().enumerate() {
            if index % (keep + 1) == 0 && index < archive.len() {
                archive[index] ^= byte & 0x1f;
            }
        }
        let scratch = Scratch::new();
        let store = store(&scratch);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        drop(runtime.block_on(stack_bytes(&scratch, &store, vec![archive])));
        prop_assert_eq!(support::names(&scratch.join("store/ingest")), Vec::<String>::new());
    }
}
