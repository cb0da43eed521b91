//! `/proc/<pid>/mountinfo`: a container that mounts can name its mounts as it likes.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mounts = sys::mountinfo::parse(data);
    assert!(mounts.len() <= data.iter().filter(|byte| **byte == b'\n').count() + 1);
});
