//! Classic BPF, assembled from its end to its start.
//!
//! Jumps only go forward, so whoever writes backwards knows every target already, and a jump is too far at most for one
//! reason: the 8 bits of a conditional one. Then a copy of what it wants is put right behind it.
use sys::seccomp::Instruction;

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The filter answers.
    Return(u32),
    /// An instruction, counted from the end.
    At(usize),
}

/// The comparisons of a conditional jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// Equal.
    Equal,
    /// Greater, unsigned.
    Greater,
    /// Greater or equal, unsigned.
    GreaterOrEqual,
    /// Any of these bits.
    AnyBit,
}

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// As far as a conditional jump may go here; up to two instructions can still come between.
const NEAR: usize = 250;

#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The latest copy of each answer.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    /// With room for a usual filter.
    pub(super) fn new() -> Self {
        Self {
            reversed: Vec::with_capacity(512),
            returns: Vec::with_capacity(8),
        }
    }

    /// Before what was written last: load the word at this offset of `struct seccomp_data`.
    pub(super) fn load(&mut self, offset: u32) -> Target {
        self.push(LOAD_WORD, 0, 0, offset)
    }

    /// Before what was written last: keep these bits of the word.
    pub(super) fn and(&mut self, mask: u32) -> Target {
        self.push(AND, 0, 0, mask)
    }

    /// Compares the word; nothing where both ways are the same.
    pub(super) fn branch(&mut self, test: Test, value: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let code = match test {
            Test::Equal => 0x15,
            Test::Greater => 0x25,
            Test::GreaterOrEqual => 0x35,
            Test::AnyBit => 0x45,
        };
        let yes = self.near(yes);
        let no = self.near(no);
        let skip = |at| u8::try_from(self.reversed.len() - 1 - at).unwrap_or(u8::MAX);
        let (jt, jf) = (skip(yes), skip(no));
        self.push(code, jt, jf, value)
    }

    /// The program. `start` is what it starts with.
    pub(super) fn finish(mut self, start: Target) -> Vec<Instruction> {
        if start != Target::At(self.reversed.len().wrapping_sub(1)) {
            self.copy_of(start);
        }
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        Target::At(self.reversed.len() - 1)
    }

    /// An instruction that does the same and is within the reach of a conditional jump.
    fn near(&mut self, target: Target) -> usize {
        let known = match target {
            Target::At(at) => Some(at),
            Target::Return(value) => {
                let found = self.returns.iter().find(|(known, _)| *known == value);
                found.map(|(_, at)| *at)
            }
        };
        match known {
            Some(at) if self.reversed.len() - at <= NEAR => at,
            _ => self.copy_of(target),
        }
    }

    fn copy_of(&mut self, target: Target) -> usize {
        let here = self.reversed.len();
        match target {
            Target::Return(value) => {
                self.push(RETURN, 0, 0, value);
                match self.returns.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, at)) => *at = here,
                    None => self.returns.push((value, here)),
                }
            }
            // A program is never as long as that: the caller limits it to 4096 instructions.
            Target::At(at) => {
                self.push(JUMP, 0, 0, u32::try_from(here - 1 - at).unwrap_or(u32::MAX));
            }
        }
        here
    }
}
