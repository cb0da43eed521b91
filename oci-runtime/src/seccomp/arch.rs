//! The architectures that a filter can speak of: how the kernel names them to a filter, how wide their arguments are,
//! and where their system calls are in the table.

/// One architecture, or one of several ABIs of a kernel.
#[derive(Debug)]
pub struct Arch {
    /// As the runtime spec has it.
    pub name: &'static str,
    /// `seccomp_data.arch`: `AUDIT_ARCH_…` of `linux/audit.h`.
    pub audit: u32,
    /// The column of the table.
    pub column: usize,
    /// What is added to the numbers of the table: the ABIs of MIPS, and x32, have ranges of their own.
    pub base: u32,
    /// Whether arguments have 64 bits.
    pub wide: bool,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// The numbers of `socketcall` and `ipc`, where those take the calls of both families.
    pub multiplexers: Option<(u32, u32)>,
}

/// The bit that tells the system calls of x32 from those of x86_64, whose `audit` it shares.
pub const X32_BIT: u32 = 0x4000_0000;

const WIDE: u32 = 0x8000_0000;
const LITTLE: u32 = 0x4000_0000;
/// The third ABI of MIPS is no other machine, but another convention.
const N32: u32 = 0x2000_0000;

/// ELF machine numbers, the low half of `audit`.
mod machine {
    pub(super) const X86: u32 = 3;
    pub(super) const M68K: u32 = 4;
    pub(super) const MIPS: u32 = 8;
    pub(super) const PARISC: u32 = 15;
    pub(super) const PPC: u32 = 20;
    pub(super) const PPC64: u32 = 21;
    pub(super) const S390: u32 = 22;
    pub(super) const ARM: u32 = 40;
    pub(super) const SH: u32 = 42;
    pub(super) const X86_64: u32 = 62;
    pub(super) const AARCH64: u32 = 183;
    pub(super) const RISCV: u32 = 243;
    pub(super) const LOONGARCH: u32 = 258;
}

const fn arch(name: &'static str, audit: u32, column: usize) -> Arch {
    Arch {
        name,
        audit,
        column,
        base: 0,
        wide: audit & WIDE != 0,
        big_endian: audit & LITTLE == 0,
        multiplexers: None,
    }
}

const fn multiplexing(name: &'static str, audit: u32, column: usize) -> Arch {
    Arch {
        multiplexers: Some((102, 117)),
        ..arch(name, audit, column)
    }
}

const fn mips(name: &'static str, audit: u32, column: usize) -> Arch {
    let (base, multiplexers) = match column {
        7 => (4000, Some((4102, 4117))),
        8 => (5000, None),
        _ => (6000, None),
    };
    Arch {
        base,
        multiplexers,
        // Arguments of n32 are those of a 32-bit ABI, whatever its registers hold.
        wide: column == 8,
        ..arch(name, audit, column)
    }
}

/// All of them. The columns are those of `table.rs`.
pub static ARCHS: [Arch; 23] = [
    multiplexing("SCMP_ARCH_X86", machine::X86 | LITTLE, 0),
    arch("SCMP_ARCH_X86_64", machine::X86_64 | WIDE | LITTLE, 1),
    Arch {
        base: X32_BIT,
        wide: false,
        ..arch("SCMP_ARCH_X32", machine::X86_64 | WIDE | LITTLE, 2)
    },
    arch("SCMP_ARCH_ARM", machine::ARM | LITTLE, 3),
    arch("SCMP_ARCH_AARCH64", machine::AARCH64 | WIDE | LITTLE, 4),
    arch(
        "SCMP_ARCH_LOONGARCH64",
        machine::LOONGARCH | WIDE | LITTLE,
        5,
    ),
    multiplexing("SCMP_ARCH_M68K", machine::M68K, 6),
    mips("SCMP_ARCH_MIPS", machine::MIPS, 7),
    mips("SCMP_ARCH_MIPSEL", machine::MIPS | LITTLE, 7),
    mips("SCMP_ARCH_MIPS64", machine::MIPS | WIDE, 8),
    mips("SCMP_ARCH_MIPSEL64", machine::MIPS | WIDE | LITTLE, 8),
    mips("SCMP_ARCH_MIPS64N32", machine::MIPS | WIDE | N32, 9),
    mips(
        "SCMP_ARCH_MIPSEL64N32",
        machine::MIPS | WIDE | LITTLE | N32,
        9,
    ),
    arch("SCMP_ARCH_PARISC", machine::PARISC, 10),
    arch("SCMP_ARCH_PARISC64", machine::PARISC | WIDE, 11),
    multiplexing("SCMP_ARCH_PPC", machine::PPC, 12),
    multiplexing("SCMP_ARCH_PPC64", machine::PPC64 | WIDE, 13),
    multiplexing("SCMP_ARCH_PPC64LE", machine::PPC64 | WIDE | LITTLE, 13),
    arch("SCMP_ARCH_RISCV64", machine::RISCV | WIDE | LITTLE, 14),
    multiplexing("SCMP_ARCH_S390", machine::S390, 15),
    multiplexing("SCMP_ARCH_S390X", machine::S390 | WIDE, 16),
    multiplexing("SCMP_ARCH_SH", machine::SH | LITTLE, 17),
    multiplexing("SCMP_ARCH_SHEB", machine::SH, 17),
];

impl Arch {
    /// The one that this program was built for.
    pub fn native() -> &'static Self {
        let name = match (std::env::consts::ARCH, cfg!(target_pointer_width = "64")) {
            ("x86", _) => "SCMP_ARCH_X86",
            ("x86_64", true) => "SCMP_ARCH_X86_64",
            ("x86_64", false) => "SCMP_ARCH_X32",
            ("arm", _) => "SCMP_ARCH_ARM",
            ("aarch64", _) => "SCMP_ARCH_AARCH64",
            ("loongarch64", _) => "SCMP_ARCH_LOONGARCH64",
            ("m68k", _) => "SCMP_ARCH_M68K",
            ("powerpc", _) => "SCMP_ARCH_PPC",
            ("powerpc64", _) if cfg!(target_endian = "little") => "SCMP_ARCH_PPC64LE",
            ("powerpc64", _) => "SCMP_ARCH_PPC64",
            ("riscv64", _) => "SCMP_ARCH_RISCV64",
            ("s390x", _) => "SCMP_ARCH_S390X",
            ("mips", _) if cfg!(target_endian = "little") => "SCMP_ARCH_MIPSEL",
            ("mips", _) => "SCMP_ARCH_MIPS",
            ("mips64", _) if cfg!(target_endian = "little") => "SCMP_ARCH_MIPSEL64",
            _ => "SCMP_ARCH_MIPS64",
        };
        // Every name above is one of the table, which a test says; the first is only there for the compiler.
        Self::find(name).unwrap_or(&ARCHS[0])
    }

    /// The one with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ARCHS.iter().find(|arch| arch.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_one_of_them() {
        let native = Arch::native();
        assert_eq!(native.big_endian, cfg!(target_endian = "big"));
        assert_eq!(native.wide, cfg!(target_pointer_width = "64"));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(native.audit, 0xc000_003e);
    }
}
