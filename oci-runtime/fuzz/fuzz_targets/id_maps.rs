//! Options of mounts, with their maps of ids.
#![no_main]
use libfuzzer_sys::fuzz_target;
use oci_runtime::plan::MountOptions;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let options: Vec<String> = text.split(',').map(str::to_owned).collect();
    // Either way, but always an answer.
    drop(MountOptions::parse(&options));
});
