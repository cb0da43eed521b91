//! System calls by name.
//!
//! The rows of `table.rs` are turned round at compile time: all names in one text, then the numbers of each
//! architecture side by side. A filter touches the pages of the names and of its own architectures, a run without a
//! filter none of them.
use super::arch::Arch;
use super::table::{COLUMNS, COUNT, ROWS};

/// Numbers from here on are private calls of arm, which start at `PRIVATE_BASE`.
const PRIVATE: u16 = 0xf000;
const PRIVATE_BASE: u32 = 0xf_0000;
const ABSENT: u16 = u16::MAX;

const LENGTH: usize = {
    let (mut sum, mut index) = (0, 0);
    while index < COUNT {
        sum += ROWS[index].0.len();
        index += 1;
    }
    sum
};

/// The names, one after the other, and where each starts and ends.
struct Names {
    bytes: [u8; LENGTH],
    starts: [u16; COUNT + 1],
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion keeps LENGTH below 65536, and this runs in the compiler"
)]
static NAMES: Names = {
    assert!(LENGTH <= u16::MAX as usize);
    let mut names = Names {
        bytes: [0; LENGTH],
        starts: [0; COUNT + 1],
    };
    let (mut index, mut at) = (0, 0);
    while index < COUNT {
        let name = ROWS[index].0.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            names.bytes[at] = name[byte];
            byte += 1;
            at += 1;
        }
        index += 1;
        names.starts[index] = at as u16;
    }
    names
};

static NUMBERS: [[u16; COUNT]; COLUMNS] = {
    let mut numbers = [[0; COUNT]; COLUMNS];
    let mut index = 0;
    while index < COUNT {
        let mut column = 0;
        while column < COLUMNS {
            numbers[column][index] = ROWS[index].1[column];
            column += 1;
        }
        index += 1;
    }
    numbers
};

/// A system call that some architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Syscall(u16);

impl Syscall {
    /// The call with this name.
    pub fn find(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, COUNT);
        while low < high {
            let middle = usize::midpoint(low, high);
            match name_at(middle).cmp(name.as_bytes()) {
                std::cmp::Ordering::Equal => return u16::try_from(middle).ok().map(Self),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All of them, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).filter_map(|index| u16::try_from(index).ok().map(Self))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        // The names are text; cut where they were joined, they still are.
        std::str::from_utf8(name_at(self.0.into())).unwrap_or_default()
    }

    /// Its number, if the architecture has it.
    pub fn number(self, arch: &Arch) -> Option<u32> {
        match NUMBERS[arch.column][usize::from(self.0)] {
            ABSENT => None,
            private @ PRIVATE.. => Some(PRIVATE_BASE + u32::from(private - PRIVATE)),
            number => Some(arch.base + u32::from(number)),
        }
    }

    /// Its place in `socketcall` or `ipc`, whether or not the architecture has a number for it as well.
    pub fn multiplexed(self) -> Option<(Multiplexer, u8)> {
        match PLACES[usize::from(self.0)] {
            0 => None,
            place if place & IPC != 0 => Some((Multiplexer::Ipc, place & !IPC)),
            place => Some((Multiplexer::Socketcall, place)),
        }
    }
}

fn name_at(index: usize) -> &'static [u8] {
    &NAMES.bytes[usize::from(NAMES.starts[index])..usize::from(NAMES.starts[index + 1])]
}

/// The two calls that stand for a family of others, told apart by their first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplexer {
    /// socketcall(2)
    Socketcall,
    /// ipc(2)
    Ipc,
}

/// `SYS_…` of `linux/net.h`.
const SOCKET_CALLS: [(&str, u8); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// `linux/ipc.h`
const IPC_CALLS: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Marks a place in `ipc`.
const IPC: u8 = 0x80;

/// The place of each call, 0 for most.
static PLACES: [u8; COUNT] = {
    let mut places = [0; COUNT];
    let mut index = 0;
    while index < COUNT {
        let name = ROWS[index].0;
        places[index] = match place_in(name, &SOCKET_CALLS) {
            0 => match place_in(name, &IPC_CALLS) {
                0 => 0,
                place => place | IPC,
            },
            place => place,
        };
        index += 1;
    }
    places
};

const fn place_in(name: &str, table: &[(&str, u8)]) -> u8 {
    let mut index = 0;
    while index < table.len() {
        if is_same(name.as_bytes(), table[index].0.as_bytes()) {
            return table[index].1;
        }
        index += 1;
    }
    0
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        assert!(ROWS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, _) in ROWS {
            assert_eq!(Syscall::find(name).unwrap().name(), name);
            assert_eq!(Syscall::find(&format!("{name}?")), None);
        }
        assert_eq!(Syscall::find(""), None);
    }

    #[test]
    fn numbers_are_those_of_the_architecture() {
        let number = |name: &str, arch: &str| {
            Syscall::find(name)
                .unwrap()
                .number(Arch::find(arch).unwrap())
        };
        assert_eq!(number("read", "SCMP_ARCH_X86_64"), Some(0));
        assert_eq!(number("read", "SCMP_ARCH_X32"), Some(0x4000_0000));
        assert_eq!(number("read", "SCMP_ARCH_MIPSEL"), Some(4003));
        assert_eq!(number("set_tls", "SCMP_ARCH_ARM"), Some(0xf_0005));
        assert_eq!(number("open", "SCMP_ARCH_AARCH64"), None);
    }
}
