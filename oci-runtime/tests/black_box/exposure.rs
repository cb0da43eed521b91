//! What a container that waits for `start` shows of the runtime and of the host: nothing.
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::{Container, Runtime};

fn identity(path: &Path) -> (u64, u64) {
    let found = std::fs::metadata(path).unwrap();
    (found.dev(), found.ino())
}

/// A descriptor, a working directory or a root of the host would be a way out of the container (CVE-2024-21626).
#[test]
fn a_waiting_container_has_no_directory_and_no_file_of_the_host_open() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        container.must(&["create", &container.id]);
        let process = Path::new("/proc").join(container.pid().to_string());
        for name in ["cwd", "root"] {
            assert_eq!(
                identity(&process.join(name)),
                identity(&container.inside("/")),
                "{name}"
            );
        }
        let fifo = container.state_root().join(&container.id);
        for entry in std::fs::read_dir(process.join("fd")).unwrap().flatten() {
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = std::fs::read_link(entry.path()).unwrap();
            // The caller's own stdio is passed on.
            let ours = number < 3
                || !target.starts_with("/")
                || target.starts_with(&fifo)
                || target.starts_with("/memfd:");
            assert!(ours, "{number} -> {target:?}");
            let directory = std::fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
            assert!(!directory, "{number} -> {target:?}");
        }
    }
}

/// Neither the runtime's program nor its memory, which holds what the parent read: what waits is a page of
/// instructions in a file that nobody can change.
#[test]
fn what_waits_in_a_container_is_not_the_runtime() {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        container.must(&["create", &container.id]);
        let process = Path::new("/proc").join(container.pid().to_string());
        let program = std::fs::File::open(process.join("exe")).unwrap();
        let size = program.metadata().unwrap().len();
        assert!(size <= 16 << 10, "{size} bytes");
        let seals = SealFlag::from_bits_truncate(fcntl(&program, FcntlArg::F_GET_SEALS).unwrap());
        assert!(seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let memory = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes: u64 = memory
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse().ok())
            .unwrap();
        assert!(kilobytes <= 64, "{kilobytes} kB");
    }
}
