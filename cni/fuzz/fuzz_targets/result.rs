//! Results of plugins: read or refused, and what was read is the same after it was written in any version and read again.
#![no_main]
use cni::{AddResult, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let versions = cni::SUPPORTED_VERSIONS;
    let version = versions[usize::from(*choice) % versions.len()];
    let version = Version::parse(version).expect("a version of ours");
    let Ok(result) = AddResult::read(text, version) else {
        return;
    };
    let written = result.raw.to_string();
    let again = AddResult::read(written.as_bytes(), version).expect("our own words");
    assert_eq!(again.ips, result.ips);
    assert_eq!(again.dns, result.dns);
    assert_eq!(again.interfaces.len(), result.interfaces.len());
});
