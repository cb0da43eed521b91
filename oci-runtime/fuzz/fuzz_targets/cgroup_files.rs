//! Files of cgroups and `/proc/net/dev`.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    oci_runtime::usage::parse_everything(&text);
});
