//! The default profiles of containerd, Docker and Podman: the same decision as runc's for every call.
use oci_runtime::seccomp::arch::Arch;
use serde_json::{Value, json};

use crate::oracle::{Runc, archs, keep_known, list, ours, strings};
use oci_runtime::seccomp::simulate::{Call, run};

pub(crate) const PROFILES: [(&str, &str); 3] = [
    ("containerd", include_str!("profiles/containerd.json")),
    ("moby", include_str!("profiles/moby.json")),
    ("podman", include_str!("profiles/podman.json")),
];

/// Numbers that say everything: those of all ABIs, and those at the borders of what is unsigned, signed, x32.
pub(crate) fn numbers() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..700).collect();
    numbers.extend(0x4000_0000..0x4000_0000 + 700);
    numbers.extend(
        [4000, 5000, 6000]
            .into_iter()
            .flat_map(|base| base..base + 600),
    );
    numbers.extend(0xf_0000..0xf_0010);
    numbers.extend([
        0x3fff_fffe,
        0x3fff_ffff,
        0x7fff_fffe,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xbfff_ffff,
        0xc000_0000,
        0xffff_fffe,
        0xffff_ffff,
    ]);
    numbers
}

/// The architectures of a profile, another one, and one that nobody knows.
pub(crate) fn audits(profile: &Value) -> Vec<u32> {
    let mut audits: Vec<u32> = archs(profile).iter().map(|arch| arch.audit).collect();
    audits.push(Arch::find("SCMP_ARCH_S390X").unwrap().audit);
    audits.extend([0, 0xffff_ffff]);
    audits.dedup();
    audits
}

/// For each argument the values around those that the profile compares with, in both halves.
pub(crate) fn interesting(profile: &Value) -> [Vec<u64>; 6] {
    let mut values: [Vec<u64>; 6] = std::array::from_fn(|_| vec![0, 1, u64::MAX]);
    for arg in list(&profile["syscalls"])
        .iter()
        .flat_map(|rule| list(&rule["args"]))
    {
        let index = usize::try_from(arg["index"].as_u64().unwrap()).unwrap();
        for value in ["value", "valueTwo"]
            .iter()
            .filter_map(|name| arg[*name].as_u64())
        {
            let (upper, lower) = (1_u64 << 32, 0xffff_ffff);
            values[index].extend([
                value,
                value.wrapping_sub(1),
                value.wrapping_add(1),
                value.wrapping_sub(upper),
                value.wrapping_add(upper),
                value & lower,
                value | !lower,
                !value,
                value.rotate_left(32),
            ]);
        }
    }
    // Places in multiplexers.
    values[0].extend(1..=25);
    for list in &mut values {
        list.sort_unstable();
        list.dedup();
    }
    values
}

/// Combinations of the values: each of each argument with all zeroes and all ones, and every pair of arguments.
pub(crate) fn arguments(values: &[Vec<u64>; 6]) -> Vec<[u64; 6]> {
    let mut all = Vec::new();
    for first in 0..6 {
        for one in &values[first] {
            for (second, others) in values.iter().enumerate().skip(first + 1) {
                // Neither is compared with anything.
                if values[first].len() == 3 && others.len() == 3 {
                    continue;
                }
                for other in others {
                    let mut args = [0; 6];
                    args[first] = *one;
                    args[second] = *other;
                    all.push(args);
                }
            }
            let mut args = [u64::MAX; 6];
            args[first] = *one;
            all.push(args);
        }
    }
    all
}

/// The numbers whose decision depends on arguments.
pub(crate) fn conditional(profile: &Value) -> Vec<u32> {
    let rules = list(&profile["syscalls"]).iter();
    let rules = rules.filter(|rule| !list(&rule["args"]).is_empty());
    let names: Vec<&str> = rules.flat_map(|rule| strings(&rule["names"])).collect();
    let mut numbers = vec![102, 117, 4102, 4117];
    for arch in archs(profile) {
        let find = |name: &&str| oci_runtime::seccomp::Syscall::find(name)?.number(arch);
        numbers.extend(names.iter().filter_map(find));
    }
    numbers
}

/// Compares every decision; the first difference fails.
fn assert_same(name: &str, profile: &Value) -> usize {
    let runc = Runc::new(profile).unwrap();
    let ours = ours(profile).unwrap().program;
    let conditional = conditional(profile);
    let args = arguments(&interesting(profile));
    let mut count = 0;
    for arch in audits(profile) {
        for number in numbers() {
            let few: &[[u64; 6]] = &[[0; 6], [u64::MAX; 6]];
            let args = if conditional.contains(&number) {
                &args
            } else {
                few
            };
            for args in args {
                let call = Call {
                    number,
                    arch,
                    args: *args,
                };
                let (expected, got) = (runc.decide(&call), run(&ours, &call).unwrap());
                assert_eq!(
                    got, expected,
                    "{name}: {got:#x} is not {expected:#x}: {call:x?}"
                );
                count += 1;
            }
        }
    }
    count
}

#[test]
fn the_default_profiles_decide_as_runc_does() {
    for (name, text) in PROFILES {
        let mut profile: Value = serde_json::from_str(text).unwrap();
        let taken = keep_known(&mut profile);
        let count = assert_same(name, &profile);
        eprintln!("{name}: {count} calls; not in this libseccomp: {taken:?}");
        assert!(taken.len() <= 30, "{taken:?}");
    }
}

#[test]
fn so_they_do_for_every_other_set_of_architectures_and_action() {
    let sets = [
        json!([]),
        json!(["SCMP_ARCH_X86"]),
        json!(["SCMP_ARCH_X32"]),
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        json!(["SCMP_ARCH_RISCV64", "SCMP_ARCH_PPC64LE"]),
        json!([
            "SCMP_ARCH_MIPSEL",
            "SCMP_ARCH_MIPSEL64",
            "SCMP_ARCH_MIPSEL64N32"
        ]),
    ];
    for (index, archs) in sets.into_iter().enumerate() {
        let (name, text) = PROFILES[index % PROFILES.len()];
        let mut profile: Value = serde_json::from_str(text).unwrap();
        profile["architectures"] = archs;
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"] {
            profile["defaultAction"] = action.into();
            keep_known(&mut profile);
            assert_same(name, &profile);
        }
    }
}

#[test]
fn a_program_is_short() {
    let (_, text) = PROFILES[0];
    let profile: Value = serde_json::from_str(text).unwrap();
    let count = ours(&profile).unwrap().program.len();
    assert!(
        count <= 250,
        "{count} instructions for containerd's profile"
    );
}
