//! What images look like once their layers are stacked and mounted.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod support;

use std::os::unix::fs::MetadataExt;

use snapshotter::{ErrorKind, unmount_overlay};
use support::image::{Tar, image, write_layout};
use support::mount::{Mounted, stack, stack_bytes};
use support::{Scratch, assert_clean, names, store};
use tar::EntryType;

#[tokio::test]
async fn whiteouts_and_opaque_directories_hide_what_lies_below() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let base = Tar::new()
        .dir("a")
        .file("a/kept", b"1")
        .file("a/hidden", b"2")
        .dir("b")
        .file("b/old", b"3")
        .dir("b/sub")
        .file("b/sub/old", b"4")
        .dir("c")
        .file("c/old", b"5")
        .dir("d")
        .file("d/old", b"6")
        .symlink("e", "a")
        .file("f", b"7");
    let top = Tar::new()
        .dir("a")
        .file("a/.wh.hidden", b"")
        .file("a/new", b"8")
        .dir("b")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"9")
        .file(".wh.c", b"")
        .file("c/new", b"10")
        .dir("d")
        .file("d/new", b"11")
        .file(".wh.d", b"")
        .dir("e")
        .file("e/new", b"12")
        .file(".wh.f", b"")
        .file(".wh..wh.plnk", b"");
    let image = stack(&scratch, &store, vec![base, top]).await.unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    assert_eq!(
        mounted.listing(),
        [
            "a d 755 0:0",
            "a/kept f 644 0:0 1",
            "a/new f 644 0:0 8",
            "b d 755 0:0",
            "b/new f 644 0:0 9",
            "c d 755 0:0",
            "c/new f 644 0:0 10",
            "d d 755 0:0",
            "d/new f 644 0:0 11",
            "e d 755 0:0",
            "e/new f 644 0:0 12",
        ]
    );
}

#[tokio::test]
async fn an_opaque_mark_at_the_root_hides_all_layers_below() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let image = stack(
        &scratch,
        &store,
        vec![
            Tar::new().file("old", b"1"),
            Tar::new().file(".wh..wh..opq", b"").file("new", b"2"),
            Tar::new().file("newer", b"3"),
        ],
    )
    .await
    .unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(
        Mounted::new(&scratch, &store, &image).listing(),
        ["new f 644 0:0 2", "newer f 644 0:0 3"]
    );
}

#[tokio::test]
async fn a_directory_that_a_layer_does_not_describe_stays_as_it_is_below() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let owned = |path: &str, mode: u32, uid: u64| {
        let mut header = Tar::header(EntryType::Directory, mode, 0);
        header.set_uid(uid);
        (path.to_owned(), header)
    };
    let (tmp, var) = (owned("tmp", 0o1777, 0), owned("var", 0o750, 70_000));
    let base = Tar::new()
        .entry(&tmp.0, tmp.1, b"")
        .entry(&var.0, var.1, b"")
        .mode_dir("var/log", 0o700);
    let middle = Tar::new().file("tmp/a", b"1").file("var/log/deep/b", b"2");
    let top = Tar::new()
        .file("tmp/c", b"3")
        .mode_dir("new/described", 0o711)
        .file("new/described/d", b"4");
    let image = stack(&scratch, &store, vec![base, middle, top])
        .await
        .unwrap();
    assert_eq!(
        image.layers.len(),
        5,
        "two of the three layers lean on others"
    );
    let mounted = Mounted::new(&scratch, &store, &image);
    assert_eq!(
        mounted.listing(),
        [
            "new d 755 0:0",
            "new/described d 711 0:0",
            "new/described/d f 644 0:0 4",
            "tmp d 1777 0:0",
            "tmp/a f 644 0:0 1",
            "tmp/c f 644 0:0 3",
            "var d 750 70000:0",
            "var/log d 700 0:0",
            "var/log/deep d 755 0:0",
            "var/log/deep/b f 644 0:0 2",
        ]
    );
    assert_eq!(
        std::fs::metadata(mounted.path("tmp")).unwrap().mtime(),
        1000
    );
}

#[tokio::test]
async fn a_file_below_a_linked_directory_goes_where_the_link_leads() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let base = Tar::new()
        .dir("usr")
        .mode_dir("usr/lib", 0o751)
        .file("usr/lib/old", b"1")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr");
    let top = Tar::new()
        .file("lib/new", b"2")
        .file("lib/sub/deep", b"3")
        .file("lib/.wh.old", b"")
        .file("abs/x", b"4");
    let image = stack(&scratch, &store, vec![base, top]).await.unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    assert_eq!(
        mounted.listing(),
        [
            "abs l 777 0:0 /usr",
            "lib l 777 0:0 usr/lib",
            "usr d 755 0:0",
            "usr/lib d 751 0:0",
            "usr/lib/new f 644 0:0 2",
            "usr/lib/sub d 755 0:0",
            "usr/lib/sub/deep f 644 0:0 3",
            "usr/x f 644 0:0 4",
        ]
    );
}

#[tokio::test]
async fn a_hard_link_to_a_file_of_a_layer_below_is_that_file() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let base = Tar::new()
        .mode_dir("bin", 0o711)
        .mode_file("bin/tool", 0o4755, b"tool");
    let top = Tar::new()
        .hardlink("bin/alias", "bin/tool")
        .hardlink("gone", "bin/tool")
        .file("gone", b"replaced")
        .hardlink("other/deep", "bin/tool");
    let image = stack(&scratch, &store, vec![base, top]).await.unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    assert_eq!(
        mounted.listing(),
        [
            "bin d 711 0:0",
            "bin/alias f 4755 0:0 tool",
            "bin/tool f 4755 0:0 tool",
            "gone f 644 0:0 replaced",
            "other d 755 0:0",
            "other/deep f 4755 0:0 tool",
        ]
    );
}

#[tokio::test]
async fn a_hard_link_to_a_file_that_no_layer_has_is_refused() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let error = stack(
        &scratch,
        &store,
        vec![
            Tar::new().file("a", b"1"),
            Tar::new().file(".wh.a", b""),
            Tar::new().hardlink("link", "a"),
        ],
    )
    .await
    .unwrap_err();
    let line = snapshotter::one_line(&error);
    assert!(
        line.contains(
            "\"link\": it is a hard link to \"a\", which neither this layer nor one below it has"
        ),
        "{line}"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_clean(&scratch, 0);
}

#[tokio::test]
async fn layers_that_lean_the_same_way_are_shared_and_go_with_the_last_image() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let base = || Tar::new().mode_dir("tmp", 0o1777);
    let top = || Tar::new().file("tmp/a", b"1");
    let one = stack(&scratch, &store, vec![base(), top()]).await.unwrap();
    let two = stack(
        &scratch,
        &store,
        vec![base(), top(), Tar::new().file("x", b"2")],
    )
    .await
    .unwrap();
    assert_eq!(one.layers, two.layers[..3]);
    let plain = stack(&scratch, &store, vec![Tar::new().dir("tmp"), top()])
        .await
        .unwrap();
    assert_eq!(
        plain.layers.len(),
        2,
        "a directory like any other needs nothing"
    );
    for image in [&one, &two, &plain] {
        assert!(store.remove(&image.id.to_string()).unwrap());
    }
    store.collect_garbage().unwrap();
    assert_clean(&scratch, 0);
    assert_eq!(store.usage().unwrap().used_bytes, 0);
}

#[tokio::test]
async fn the_root_directory_is_what_the_topmost_description_says() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let mut header = Tar::header(EntryType::Directory, 0o711, 0);
    header.set_uid(42);
    let base = Tar::new().entry("./", header, b"").file("a", b"1");
    let image = stack(&scratch, &store, vec![base, Tar::new().file("b", b"2")])
        .await
        .unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    let meta = std::fs::metadata(&mounted.target).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o711, 42));
}

#[tokio::test]
async fn owners_bits_links_devices_and_attributes_arrive_as_they_were_packed() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let owned = |kind, mode, uid: u64, gid: u64, size| {
        let mut header = Tar::header(kind, mode, size);
        header.set_uid(uid);
        header.set_gid(gid);
        header
    };
    let mut device = owned(EntryType::Char, 0o666, 0, 0, 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let capability: &[u8] =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let archive = Tar::new()
        .entry(
            "setuid",
            owned(EntryType::Regular, 0o6755, 1_000_000, 2_000_000, 1),
            b"x",
        )
        .hardlink("same", "setuid")
        .entry("fifo", owned(EntryType::Fifo, 0o620, 1, 2, 0), b"")
        .entry("null", device, b"")
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\0b"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"-10.5"),
        ])
        .mode_file("ping", 0o755, b"ping")
        .symlink("dangling", "/no/such/file")
        .dir("stamped")
        .file(&long, b"long");
    let image = stack(&scratch, &store, vec![archive]).await.unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    let meta = |name: &str| std::fs::symlink_metadata(mounted.path(name)).unwrap();
    let setuid = meta("setuid");
    assert_eq!(
        (
            setuid.mode() & 0o7777,
            setuid.uid(),
            setuid.gid(),
            setuid.nlink()
        ),
        (0o6755, 1_000_000, 2_000_000, 2)
    );
    assert_eq!(meta("same").ino(), setuid.ino());
    assert_eq!((meta("fifo").mode(), meta("fifo").gid()), (0o10_620, 2));
    assert_eq!(
        (meta("null").mode(), meta("null").rdev()),
        (0o20_666, 0x103)
    );
    assert_eq!(
        (meta("ping").mtime(), meta("ping").mtime_nsec()),
        (-11, 500_000_000)
    );
    assert_eq!(
        (
            meta("setuid").mtime(),
            meta("stamped").mtime(),
            meta("dangling").mtime()
        ),
        (1000, 1000, 1000)
    );
    assert_eq!(std::fs::read(mounted.path(&long)).unwrap(), b"long");
    let dir = std::fs::File::open(store.layer_path(&image.layers[0])).unwrap();
    let xattr = |key: &std::ffi::CStr| sys::fs::get_xattr_at(&dir, "ping".as_ref(), key).unwrap();
    assert_eq!(xattr(c"user.note").as_deref(), Some(&b"a\0b"[..]));
    assert_eq!(xattr(c"security.capability").as_deref(), Some(capability));
    assert_eq!(xattr(c"trusted.overlay.redirect"), None);
}

#[tokio::test]
async fn a_file_with_holes_has_them() {
    let scratch = Scratch::new();
    let dir = scratch.join("made");
    std::fs::create_dir(&dir).unwrap();
    let file = std::fs::File::create(dir.join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 3 << 20).unwrap();
    file.set_len(4 << 20).unwrap();
    for format in [
        "--format=gnu",
        "--format=pax",
        "--sparse-version=0.0",
        "--sparse-version=0.1",
        "--sparse-version=1.0",
    ] {
        let tar = std::process::Command::new("tar")
            .args(["-cS", format])
            .args(if format.starts_with("--sparse") {
                &["--format=pax"][..]
            } else {
                &[]
            })
            .arg("-C")
            .arg(&dir)
            .arg("holes")
            .output()
            .unwrap();
        assert!(
            tar.status.success() && tar.stdout.len() < 100_000,
            "{format}"
        );
        let own = Scratch::new();
        let store = store(&own);
        let image = stack_bytes(&own, &store, vec![tar.stdout]).await.unwrap();
        let path = store.layer_path(&image.layers[0]).join("holes");
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(dir.join("holes")).unwrap(),
            "{format}"
        );
        assert!(
            meta.len() == 4 << 20 && meta.blocks() * 512 < 1 << 20,
            "{format}: {} blocks",
            meta.blocks()
        );
    }
}

#[tokio::test]
async fn the_last_entry_of_a_name_wins_whatever_the_first_one_was() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let archive = Tar::new()
        .file("a", b"file")
        .dir("a")
        .file("a/in", b"1")
        .dir("b")
        .file("b/in", b"2")
        .file("b", b"file")
        .symlink("c", "/etc/passwd")
        .file("c", b"3")
        .file("d", b"4")
        .hardlink("e", "d")
        .file("d", b"5")
        .dir("g")
        .mode_dir("g", 0o700)
        .symlink("h", "g")
        .dir("h")
        .file("h/in", b"6")
        .file("i", b"7")
        .hardlink("i", "i2")
        .file("i2", b"8")
        .hardlink("i", "i2");
    let image = stack(&scratch, &store, vec![archive]).await.unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    assert_eq!(
        mounted.listing(),
        [
            "a d 755 0:0",
            "a/in f 644 0:0 1",
            "b f 644 0:0 file",
            "c f 644 0:0 3",
            "d f 644 0:0 5",
            "e f 644 0:0 4",
            "g d 700 0:0",
            "h d 755 0:0",
            "h/in f 644 0:0 6",
            "i f 644 0:0 8",
            "i2 f 644 0:0 8",
        ]
    );
}

#[tokio::test]
async fn links_inside_a_layer_lead_within_it_however_they_are_written() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let archive = Tar::new()
        .dir("real")
        .symlink("abs", "/real")
        .file("abs/a", b"1")
        .symlink("up", "../../../../real")
        .file("up/b", b"2")
        .symlink("dangling", "made/later")
        .file("dangling/c", b"3")
        .dir("x")
        .symlink("x/back", "..")
        .file("x/back/d", b"4");
    let image = stack(&scratch, &store, vec![archive]).await.unwrap();
    let layer = store.layer_path(&image.layers[0]);
    assert_eq!(names(&layer.join("real")), ["a", "b"]);
    assert_eq!(names(&layer.join("made/later")), ["c"]);
    assert_eq!(std::fs::read(layer.join("d")).unwrap(), b"4");
}

#[tokio::test]
async fn two_hundred_layers_equal_layers_and_no_layers_at_all_can_be_mounted() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let archives = (0..200)
        .map(|n| Tar::new().file(&format!("f{n}"), b"x"))
        .collect();
    let many = stack(&scratch, &store, archives).await.unwrap();
    assert_eq!(Mounted::new(&scratch, &store, &many).listing().len(), 200);

    let a = || Tar::new().file("a", b"1");
    let twice = stack(
        &scratch,
        &store,
        vec![a(), Tar::new().file(".wh.a", b"").file("b", b"2"), a()],
    )
    .await
    .unwrap();
    assert_eq!(
        Mounted::new(&scratch, &store, &twice).listing(),
        ["a f 644 0:0 1", "b f 644 0:0 2"]
    );

    let none = image(vec![]);
    write_layout(&scratch.join("none"), &[(None, &none)]);
    let none = store
        .import(
            &scratch.join("none"),
            Some("none"),
            snapshotter::ProgressSink::none(),
        )
        .await
        .unwrap();
    assert!(none[0].size > 0);
    let mounted = Mounted::new(&scratch, &store, &none[0]);
    std::fs::write(mounted.path("written"), "x").unwrap();
    assert_eq!(mounted.listing(), ["written f 644 0:0 x"]);
}

#[tokio::test]
async fn unmounting_takes_away_what_was_written_and_may_be_repeated() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let image = stack(&scratch, &store, vec![Tar::new().file("a", b"1")])
        .await
        .unwrap();
    let mounted = Mounted::new(&scratch, &store, &image);
    std::fs::remove_file(mounted.path("a")).unwrap();
    std::fs::create_dir_all(mounted.path("deep/er")).unwrap();
    drop(mounted);
    assert_eq!(names(&scratch.join("writable")), Vec::<String>::new());
    unmount_overlay(&scratch.join("merged"), &scratch.join("writable")).unwrap();
    unmount_overlay(&scratch.join("absent"), &scratch.join("absent")).unwrap();
    let again = Mounted::new(&scratch, &store, &image);
    assert_eq!(again.listing(), ["a f 644 0:0 1"]);
}

#[tokio::test]
async fn mounting_layers_that_are_not_there_is_an_error_and_leaves_no_mount() {
    let scratch = Scratch::new();
    let store = store(&scratch);
    let missing = snapshotter::DiffId(snapshotter::Digest::of(b"missing"));
    std::fs::create_dir(scratch.join("merged")).unwrap();
    let error = snapshotter::mount_overlay(
        &store,
        &[missing],
        &scratch.join("writable"),
        &scratch.join("merged"),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
