//! Attackers that race against the runtime, and what an image or a command line can hold to lead it astray. The table in
//! docs/security.md says which published case each test stands for.
//!
//! The attacker of most tests exchanges a directory and a symbolic link to a directory of the host, thousands of times
//! per second, while the runtime makes containers there.
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::harness::{Container, Runtime, eventually, text};

/// How often a container is made under attack, unless that takes longer than [`PATIENCE`] on a crowded machine.
const RUNS: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(8);

/// Exchanges two names again and again until it is dropped.
struct Flipper {
    stop: Arc<AtomicBool>,
    flips: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flipper {
    fn new(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flips = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&flips));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                if renameat2(AT_FDCWD, &one, AT_FDCWD, &other, flags).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        Self {
            stop,
            flips,
            thread: Some(thread),
        }
    }

    fn flips(&self) -> u64 {
        self.flips.load(Ordering::Relaxed)
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A directory of the host with everything that a runtime could want to mount on, create or cover, and its content.
fn outside(container: &Container) -> PathBuf {
    let dir = container.bundle().join("outside");
    for name in ["pts", "shm", "mqueue", "sys", "self"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("canary"), "of the host").unwrap();
    dir
}

/// Every name below a directory, with its kind, mode and size: what a stray node, link or mount point would change.
fn listing(dir: &Path) -> Vec<(PathBuf, u32, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let found = entry.path().symlink_metadata().unwrap();
        if found.is_dir() {
            all.extend(listing(&entry.path()));
            all.push((entry.path(), found.mode(), 0));
        } else {
            all.push((entry.path(), found.mode(), found.len()));
        }
    }
    all.sort();
    all
}

/// What a container says when it finds the host's directory behind one of its own names.
const LOOK: &str = "for f in / /data /dev /proc /sys /x /ro /made /vol/d /tmp; do [ ! -e $f/canary ] || echo $f leads outside; done";

/// And how many mounts it has: one that went elsewhere would be missing.
const COUNT: &str = "wc -l < /proc/self/mountinfo";

/// Runs the container again and again while `path` of its root filesystem flips between a directory and a link, and
/// returns how many runs were successes. Each of the others must have said what was wrong.
fn attack(container: &Container, path: &str, link: &Path) -> u64 {
    let outside = outside(container);
    let before = listing(&outside);
    // Inside as well: what is mounted on the directory moves with it, and is to be found in the container.
    let other = container.inside("other");
    symlink(link, &other).unwrap();
    let in_peace = container.output();
    let flipper = Flipper::new(container.inside(path), other);
    eventually("it flips", || flipper.flips() > 0);
    let start = flipper.flips();
    let (began, mut runs, mut successes) = (Instant::now(), 0, 0);
    while runs < RUNS && (runs < 5 || began.elapsed() < PATIENCE) {
        let output = container.run();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        match output.status.code() {
            Some(0) => {
                assert_eq!(stdout, in_peace, "{path}: run {runs}: {stderr}");
                successes += 1;
            }
            code => {
                assert_eq!(stdout, "", "{path}: run {runs}: {stderr}");
                assert_eq!(code, Some(1), "{path}: run {runs}: {stderr}");
                let clear = stderr.starts_with("davit-oci: run") && stderr.contains(path);
                assert!(clear, "{path}: run {runs}: {stderr}");
            }
        }
        assert_eq!(listing(&outside), before, "{path}: run {runs}");
        runs += 1;
    }
    let flips = flipper.flips() - start;
    drop(flipper);
    assert!(flips >= runs, "{path}: only {flips} flips in {runs} runs");
    container.assert_nothing_left();
    successes
}

fn mount(container: &mut Container, mount: Value) {
    let mounts = container.config["mounts"].as_array_mut().unwrap();
    mounts.push(mount);
}

/// Links by which an attacker would reach the host's directory: its real path, and one that climbs first.
fn links(container: &Container) -> [PathBuf; 2] {
    [
        container.bundle().join("outside"),
        PathBuf::from("../outside"),
    ]
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2025-54867, crun's CVE-2019-18837.
#[test]
fn a_mount_destination_that_flips_under_the_runtime_leads_nowhere_outside() {
    for runtime in Runtime::ours() {
        let mut successes = 0;
        for which in [0, 1] {
            let mut container = Container::new(runtime, &format!("{LOOK}; {COUNT}"));
            std::fs::create_dir_all(container.bundle().join("volume")).unwrap();
            std::fs::create_dir_all(container.inside("data/below")).unwrap();
            let bind = json!({"destination": "/data", "type": "bind", "source": "volume", "options": ["rbind"]});
            let tmpfs = json!({"destination": "/data/below", "type": "tmpfs", "source": "tmpfs"});
            let missing =
                json!({"destination": "/data/to/be/made", "type": "tmpfs", "source": "tmpfs"});
            for one in if which == 0 {
                vec![bind]
            } else {
                vec![tmpfs, missing]
            } {
                mount(&mut container, one);
            }
            let link = &links(&container)[which];
            successes += attack(&container, "data", link);
        }
        assert!(successes > 0, "the attack prevented every container");
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: `/proc` and `/sys` are checked and mounted as one directory.
#[test]
fn proc_and_sys_that_flip_under_the_runtime_are_refused_or_mounted_inside() {
    for runtime in Runtime::ours() {
        for name in ["proc", "sys"] {
            let container = Container::new(runtime, LOOK);
            attack(&container, name, &links(&container)[0]);
        }
    }
}

/// CVE-2025-52565, CVE-2026-41579 and crun's CVE-2026-47766, CVE-2026-88264: nodes and links of `/dev`, and the console.
#[test]
fn a_dev_that_flips_under_the_runtime_gets_its_devices_inside() {
    for runtime in Runtime::ours() {
        for own_tmpfs in [true, false] {
            let container = Container::new(runtime, LOOK).with(|config| {
                let mounts = config["mounts"].as_array_mut().unwrap();
                mounts.retain(|one| {
                    let destination = one["destination"].as_str().unwrap();
                    !destination.starts_with("/dev") || (own_tmpfs && destination == "/dev")
                });
            });
            attack(&container, "dev", &links(&container)[0]);
        }
    }
}

/// CVE-2025-31133, CVE-2025-52881 and youki's GHSA-3q8j-pf29-vwv8: what is covered stays covered, and only that.
#[test]
fn a_masked_or_read_only_path_that_flips_under_the_runtime_touches_nothing_outside() {
    for runtime in Runtime::ours() {
        for (path, field) in [("x", "maskedPaths"), ("ro", "readonlyPaths")] {
            let container = Container::new(runtime, LOOK).with(|config| {
                config["linux"][field] = json!([format!("/{path}"), format!("/{path}/canary")]);
            });
            std::fs::create_dir(container.inside(path)).unwrap();
            attack(&container, path, &links(&container)[0]);
        }
    }
}

/// CVE-2024-21626 as a race: the working directory is a link to the host at some moments.
#[test]
fn a_working_directory_that_flips_under_the_runtime_lies_inside() {
    for runtime in Runtime::ours() {
        let script = "[ ! -e canary ] || echo the working directory is outside";
        let container = Container::new(runtime, script)
            .with(|config| config["process"]["cwd"] = "/made/below".into());
        std::fs::create_dir_all(container.inside("made/below")).unwrap();
        attack(&container, "made", &links(&container)[0]);
    }
}

/// CVE-2021-30465 as it was published: two containers share a volume; one of them flips what is the other's destination.
#[test]
fn a_container_that_flips_links_in_a_shared_volume_leads_no_mount_of_another_outside() {
    for runtime in Runtime::ours() {
        let share = |container: &mut Container, volume: &Path| {
            mount(
                container,
                json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}),
            );
        };
        let mut attacker = Container::new(runtime, "");
        let mut victim = Container::new(
            runtime,
            &format!("cat /proc/self/mountinfo > /mounts; {LOOK}"),
        );
        let outside = outside(&victim);
        let before = listing(&outside);
        let volume = attacker.bundle().join("volume");
        std::fs::create_dir_all(volume.join("d")).unwrap();
        symlink(&outside, volume.join("l")).unwrap();
        let script = "cd /vol; while [ ! -e /stop ]; do busybox mv d t; busybox mv l d; busybox mv d l; busybox mv t d; echo >> /rounds; done";
        attacker.config["process"]["args"] = json!(["sh", "-c", script]);
        share(&mut attacker, &volume);
        share(&mut victim, &volume);
        mount(
            &mut victim,
            json!({"destination": "/vol/d", "type": "tmpfs", "source": "tmpfs"}),
        );
        mount(
            &mut victim,
            json!({"destination": "/vol/d/more", "type": "tmpfs", "source": "tmpfs"}),
        );
        attacker.start();
        let rounds = || std::fs::metadata(attacker.inside("rounds")).map_or(0, |found| found.len());
        eventually("the attacker is at it", || rounds() > 2);
        let (began, start, mut runs) = (Instant::now(), rounds(), 0);
        while runs < RUNS && (runs < 5 || began.elapsed() < PATIENCE) {
            let output = victim.run();
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            let clear = if output.status.success() {
                stdout.is_empty()
            } else {
                stdout.is_empty() && stderr.contains("/vol/d")
            };
            assert!(clear, "run {runs}: {stdout} {stderr}");
            assert_eq!(listing(&outside), before, "run {runs}");
            if output.status.success() {
                // The root, what every container here has, and the three of the test: wherever they went, no more. It may be
                // fewer: the kernel unmounts what lies on a directory that is replaced, as by "mv t d" over an empty d.
                let mounts = std::fs::read_to_string(victim.inside("mounts")).unwrap();
                assert!(mounts.lines().count() <= 9, "run {runs}: {mounts}");
            }
            runs += 1;
        }
        assert!(rounds() > start, "the attacker did nothing");
        std::fs::write(attacker.inside("stop"), "").unwrap();
        victim.assert_nothing_left();
    }
}

/// CVE-2025-31133, crun's CVE-2026-88265: the image brings a `/dev/null` that is a link, and something to mask.
#[test]
fn a_null_device_of_the_image_that_is_a_link_neither_masks_nor_is_followed() {
    for runtime in Runtime::ours() {
        for target in ["/x/other", "/proc/sys/kernel/core_pattern", "zero"] {
            let container = Container::new(runtime, "cat /x/secret; true").with(|config| {
                let mounts = config["mounts"].as_array_mut().unwrap();
                mounts.retain(|one| one["destination"] == "/proc");
                config["linux"]["maskedPaths"] = json!(["/x/secret"]);
            });
            std::fs::create_dir(container.inside("x")).unwrap();
            for name in ["secret", "other"] {
                std::fs::write(container.inside("x").join(name), name).unwrap();
            }
            symlink(target, container.inside("dev/null")).unwrap();
            let output = container.run();
            assert_eq!(text(&output.stdout), "", "{target}");
            let stderr = text(&output.stderr);
            assert!(
                stderr.contains("linux.devices \"/dev/null\""),
                "{target}: {stderr}"
            );
            let other = std::fs::read_to_string(container.inside("x/other")).unwrap();
            assert_eq!(other, "other");
            container.assert_nothing_left();
        }
    }
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: a volume in place of `/proc` gets none of the runtime's writes.
#[test]
fn a_volume_over_proc_does_not_swallow_kernel_parameters() {
    for runtime in Runtime::ours() {
        // In place of the procfs, and above it.
        for place in [0, 1] {
            let script = "cat /real/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward";
            let container = Container::new(runtime, script).with(|config| {
                let mounts = config["mounts"].as_array_mut().unwrap();
                let volume = json!({"destination": "/proc", "type": "bind", "source": "fake", "options": ["rbind"]});
                if place == 0 {
                    mounts[0] = volume;
                } else {
                    mounts.insert(1, volume);
                }
                mounts.push(json!({"destination": "/real", "type": "proc", "source": "proc"}));
                config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            });
            let fake = container.bundle().join("fake/sys/net/ipv4");
            std::fs::create_dir_all(&fake).unwrap();
            std::fs::write(fake.join("ip_forward"), "fake\n").unwrap();
            assert_eq!(container.output(), "1\nfake\n", "{place}");
        }
    }
}

/// crun's CVE-2026-30892: a user that is asked for is that user, or an error; never root by mistake.
#[test]
fn the_user_of_an_added_process_is_the_one_asked_for_or_an_error() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let ids = ["1", "01", "1:1", "33:0", "65534", "4294967294"];
        for user in ids {
            let shown = container.must(&["exec", "-u", user, &container.id, "id", "-u"]);
            let expected: u32 = user.split(':').next().unwrap().parse().unwrap();
            assert_eq!(shown, format!("{expected}\n"), "{user}");
        }
        // The last but two is (uid_t)-1: to the kernel it means "as you are", which is root.
        for user in [
            "",
            ":",
            ":1",
            "1:",
            "1x",
            "0x1",
            " 1",
            "+1",
            "-1",
            "1:2:3",
            "root",
            "4294967295",
            "4294967296",
            "1:4294967295",
        ] {
            let (code, stdout, stderr) =
                container.call(&["exec", "-u", user, &container.id, "id", "-u"]);
            assert_eq!((code, stdout.as_str()), (Some(255), ""), "{user:?}");
            assert!(stderr.contains("--user"), "{user:?}: {stderr}");
        }
    }
}

/// The image's user database may be anything: nothing that blocks, never ends, or lies elsewhere is read.
#[test]
fn a_user_database_that_is_no_ordinary_file_keeps_nobody_waiting() {
    for runtime in Runtime::ours() {
        for kind in ["fifo", "directory", "endless", "loop", "magic", "huge"] {
            let container = Container::new(runtime, "echo $HOME; sleep 1000");
            let passwd = container.inside("etc/passwd");
            std::fs::remove_file(&passwd).unwrap();
            match kind {
                "fifo" => nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                "directory" => std::fs::create_dir(&passwd).unwrap(),
                "endless" => symlink("/dev/zero", &passwd).unwrap(),
                "loop" => symlink("passwd", &passwd).unwrap(),
                "magic" => symlink("/proc/self/root/etc/passwd", &passwd).unwrap(),
                _ => std::fs::File::create(&passwd)
                    .unwrap()
                    .set_len(1 << 40)
                    .unwrap(),
            }
            container.start();
            let args = ["exec", &container.id, "sh", "-c", "echo $HOME"];
            assert_eq!(container.must(&args), "/\n", "{kind}");
        }
    }
}

/// CVE-2024-21626 for added processes: what the caller of the runtime left open is no way out.
#[test]
fn an_added_process_reaches_nothing_that_its_caller_left_open() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let call = |args: &[&str]| {
            let command = container.command(args);
            // `>&-` would close; this one leaves directories of the host open behind every number.
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "exec 3</ 4</ 5</ 6</ 7</ 8</ 9</; exec \"$@\"", "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            shell.current_dir(container.bundle()).output().unwrap()
        };
        let shown = call(&["exec", &container.id, "sh", "-c", "echo /proc/self/fd/*"]);
        let shown = text(&shown.stdout);
        assert!(
            shown.starts_with("/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"),
            "{shown}"
        );
        for number in 3..24 {
            // The shell's own directory of descriptors may still be in the list.
            let listed = shown.contains(&format!("fd/{number}"));
            assert!(!listed || number == 3, "{shown}");
            for cwd in [
                format!("/proc/self/fd/{number}"),
                format!("/proc/1/fd/{number}"),
                format!("/proc/self/fd/{number}/../../.."),
            ] {
                let output = call(&["exec", "--cwd", &cwd, &container.id, "cat", "etc/hostname"]);
                assert_eq!(text(&output.stdout), "", "{cwd}");
                let stderr = text(&output.stderr);
                assert_eq!(output.status.code(), Some(255), "{cwd}: {stderr}");
                assert!(stderr.contains("process.cwd"), "{cwd}: {stderr}");
            }
        }
    }
}

/// CVE-2021-43784: what is longer than 16 bits can count arrives whole, on every way into a container.
#[test]
fn values_longer_than_sixteen_bits_arrive_whole() {
    for runtime in Runtime::ours() {
        let long = "x".repeat(100_000);
        let script = "echo ${#LONG} ${#1}; sleep 1000";
        let container = Container::new(runtime, "").with(|config| {
            config["process"]["args"] = json!(["sh", "-c", script, "sh", long]);
            config["process"]["env"] = json!(["PATH=/bin", format!("LONG={long}")]);
            config["annotations"] = json!({"long": long});
        });
        container.write_config();
        let log = std::fs::File::create(container.bundle().join("log")).unwrap();
        let status = container
            .command(&["run", "--detach", &container.id])
            .stdout(log)
            .status()
            .unwrap();
        assert!(status.success());
        let shown = || std::fs::read_to_string(container.bundle().join("log")).unwrap();
        eventually("it says so", || shown() == "100000 100000\n");
        let args = [
            "exec",
            "-e",
            &format!("LONG={long}"),
            &container.id,
            "sh",
            "-c",
            "echo ${#LONG} ${#1}",
            "sh",
            &long,
        ];
        assert_eq!(container.must(&args), "100000 100000\n");
    }
}
