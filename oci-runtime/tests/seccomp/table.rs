//! `src/seccomp/table.rs` against libseccomp's tables, and how it is made from them:
//! `REGENERATE=1 cargo test -p oci-runtime --test seccomp table`, with the newest libseccomp first in `LD_LIBRARY_PATH`.
use std::collections::BTreeSet;
use std::fmt::Write as _;

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_runtime::seccomp::arch::ARCHS;
use oci_runtime::seccomp::{Multiplexer, Syscall};

/// The columns: an architecture each, and what its numbers have on top of those of the table.
const COLUMNS: [(ScmpArch, &str, i32); 18] = [
    (ScmpArch::X86, "x86", 0),
    (ScmpArch::X8664, "x86_64", 0),
    (ScmpArch::X32, "x32", 0x4000_0000),
    (ScmpArch::Arm, "arm", 0),
    (ScmpArch::Aarch64, "aarch64", 0),
    (ScmpArch::Loongarch64, "loongarch64", 0),
    (ScmpArch::M68k, "m68k", 0),
    (ScmpArch::Mips, "mips", 4000),
    (ScmpArch::Mips64, "mips64", 5000),
    (ScmpArch::Mips64N32, "mips64n32", 6000),
    (ScmpArch::Parisc, "parisc", 0),
    (ScmpArch::Parisc64, "parisc64", 0),
    (ScmpArch::Ppc, "ppc", 0),
    (ScmpArch::Ppc64, "ppc64", 0),
    (ScmpArch::Riscv64, "riscv64", 0),
    (ScmpArch::S390, "s390", 0),
    (ScmpArch::S390X, "s390x", 0),
    (ScmpArch::Sh, "sh", 0),
];

/// Newer than libseccomp 2.6.0, which ends with Linux 6.13; such calls have one number everywhere.
const NEWER: [(&str, i32); 4] = [
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
];

/// The name of a number; not those of an architecture that this libseccomp does not know.
fn name_of(arch: ScmpArch, number: i32) -> Option<String> {
    ScmpSyscall::from_raw_syscall(number)
        .get_name_by_arch(arch)
        .ok()
}

/// Whether this libseccomp knows the architecture: 2.5 lacks three of them.
fn is_known(arch: ScmpArch) -> bool {
    ScmpSyscall::from_name_by_arch("read", arch).is_ok()
}

/// Every name that libseccomp knows, from its numbers and its pseudo numbers.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (arch, _, base) in COLUMNS {
        let numbers = (0..2000)
            .chain(0xf_0000..0xf_0020)
            .map(|number| base + number);
        names.extend(
            numbers
                .chain(-12_000..-1)
                .filter_map(|number| name_of(arch, number)),
        );
    }
    names
}

/// The number without the base, as the kernel has it: `from_name_by_arch` answers with a pseudo number where a call has
/// both a number and a place in `socketcall` or `ipc`.
fn number_of(name: &str, (arch, _, base): (ScmpArch, &str, i32)) -> Option<i32> {
    match ScmpSyscall::from_name_by_arch(name, arch)
        .ok()?
        .as_raw_syscall()
    {
        number if number >= 0 => Some(number - base),
        pseudo if pseudo > -1000 => {
            (0..600).find(|number| name_of(arch, base + number).as_deref() == Some(name))
        }
        _ => None,
    }
}

fn generate() -> String {
    let mut names = names();
    names.extend(NEWER.map(|(name, _)| name.to_owned()));
    let mut rows = String::new();
    for name in &names {
        write!(rows, "    (\"{name}\", [").unwrap();
        for (index, column) in COLUMNS.into_iter().enumerate() {
            let newer = NEWER
                .iter()
                .find(|(one, _)| one == name)
                .map(|(_, number)| *number);
            let separator = if index == 0 { "" } else { ", " };
            match number_of(name, column).or(newer) {
                None => write!(rows, "{separator}X"),
                // The private calls of arm: far above the others, they are marked by their first digit.
                Some(number @ 0xf_0000..) => write!(rows, "{separator}{:#x}", number - 0xe_1000),
                Some(number) => write!(rows, "{separator}{number}"),
            }
            .unwrap();
        }
        rows += "]),\n";
    }
    let columns: Vec<_> = COLUMNS.iter().map(|(_, name, _)| *name).collect();
    format!(
        "//! The numbers of the system calls, made by `tests/seccomp/table.rs`; do not edit.\n\n\
         /// How many calls.\npub(super) const COUNT: usize = {};\n\
         /// How many architectures.\npub(super) const COLUMNS: usize = {};\n\
         /// Not there.\nconst X: u16 = u16::MAX;\n\n\
         /// Sorted by name. Columns: {}.\n\
         #[expect(clippy::large_const_arrays, reason = \"only the compiler reads it\")]\n\
         #[rustfmt::skip]\npub(super) const ROWS: [(&str, [u16; COLUMNS]); COUNT] = [\n{rows}];\n",
        names.len(),
        COLUMNS.len(),
        columns.join(", "),
    )
}

/// Every name and number that the installed libseccomp has is in our table, and the other way round but for what is
/// newer than it.
#[test]
fn the_table_is_that_of_libseccomp() {
    let mut newer = BTreeSet::new();
    for (index, column) in COLUMNS.into_iter().enumerate() {
        if !is_known(column.0) {
            continue;
        }
        let archs = ARCHS.iter().filter(|arch| arch.column == index);
        for arch in archs {
            for name in names() {
                let Some(expected) = number_of(&name, column) else {
                    continue;
                };
                let call = Syscall::find(&name).unwrap_or_else(|| panic!("{name} is missing"));
                let expected = u32::try_from(expected + column.2).unwrap();
                assert_eq!(call.number(arch), Some(expected), "{name} on {}", arch.name);
            }
            for call in Syscall::all().filter(|call| call.number(arch).is_some()) {
                if number_of(call.name(), column).is_none() {
                    newer.insert(call.name());
                }
            }
        }
    }
    assert!(newer.len() < 60, "not in this libseccomp: {newer:?}");
}

#[test]
fn multiplexed_calls_have_the_places_that_libseccomp_gives_them() {
    for call in Syscall::all() {
        let pseudo = ScmpSyscall::from_name_by_arch(call.name(), ScmpArch::X86)
            .unwrap_or(ScmpSyscall::from_raw_syscall(-1));
        let expected = match pseudo.as_raw_syscall() {
            place @ -199..=-101 => {
                Some((Multiplexer::Socketcall, u8::try_from(-place - 100).unwrap()))
            }
            place @ -299..=-201 => Some((Multiplexer::Ipc, u8::try_from(-place - 200).unwrap())),
            _ => None,
        };
        assert_eq!(call.multiplexed(), expected, "{}", call.name());
    }
}

#[test]
fn architectures_are_those_of_libseccomp() {
    for arch in &ARCHS {
        // The name is one that libseccomp has; filters of such an architecture test for this number.
        let scmp = crate::oracle::scmp(arch);
        if !is_known(scmp) || arch.big_endian != cfg!(target_endian = "big") {
            continue;
        }
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch.name],
            "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}],
        });
        let theirs = crate::oracle::Runc::new(&profile).unwrap().program;
        let tested = theirs
            .iter()
            .any(|one| one.code == 0x15 && one.k == arch.audit);
        assert!(tested, "{}: {:#x}", arch.name, arch.audit);
    }
}

/// Not a check but the way to make the file.
#[test]
fn the_table_is_made_again_on_request() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/table.rs");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(path, generate()).unwrap();
    }
}
