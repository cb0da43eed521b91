//! `linux.seccomp`: a filter that the kernel takes and that ends for every call, or a list of bad fields.
#![no_main]
use libfuzzer_sys::fuzz_target;
use oci_runtime::plan::Problems;
use oci_runtime::seccomp::simulate::{self, Call};

/// The most that the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Ok(section) = serde_json::from_slice(data) else {
        return;
    };
    let mut problems = Problems::default();
    let Some(plan) = oci_runtime::seccomp::plan(Some(&section), &Default::default(), &mut problems)
    else {
        return;
    };
    assert!(plan.program.len() <= MOST);
    for arch in [0xc000_003e_u32, 0x4000_0003, 0] {
        for number in [0_u32, 1, 59, 334, 0x4000_0001, u32::MAX] {
            let call = Call {
                number,
                arch,
                args: [0, 1, u64::MAX, 0x8000_0000, 7, 42],
            };
            assert!(simulate::run(&plan.program, &call).is_some());
        }
    }
});
