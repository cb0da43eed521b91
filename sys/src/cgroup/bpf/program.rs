//! Compiling device rules: pure, so that tests can run the program without a kernel.

use crate::cgroup::{DeviceAccess, DevicePolicy, DeviceRule, DeviceType};

/// One instruction, in the kernel's layout.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cgroup) struct Insn {
    pub(in crate::cgroup) code: u8,
    registers: u8,
    pub(in crate::cgroup) offset: i16,
    pub(in crate::cgroup) value: i32,
}

impl Insn {
    const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            to | from << 4
        } else {
            to << 4 | from
        };
        Self {
            code,
            registers,
            offset,
            value,
        }
    }

    #[cfg(test)]
    pub(in crate::cgroup) fn registers(self) -> (usize, usize) {
        let (low, high) = (
            usize::from(self.registers & 15),
            usize::from(self.registers >> 4),
        );
        if cfg!(target_endian = "little") {
            (low, high)
        } else {
            (high, low)
        }
    }
}

/// `*(u32 *)(from + offset)`, `BPF_LDX | BPF_MEM | BPF_W`
pub(in crate::cgroup) const LOAD: u8 = 0x61;
/// `BPF_ALU64 | BPF_MOV | BPF_X`
pub(in crate::cgroup) const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub(in crate::cgroup) const SET: u8 = 0xb7;
/// `BPF_ALU64 | BPF_AND | BPF_K`
pub(in crate::cgroup) const AND: u8 = 0x57;
/// `BPF_ALU64 | BPF_RSH | BPF_K`
pub(in crate::cgroup) const SHIFT_RIGHT: u8 = 0x77;
/// `BPF_JMP | BPF_JNE | BPF_K`
pub(in crate::cgroup) const JUMP_UNEQUAL: u8 = 0x55;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub(in crate::cgroup) const JUMP_EQUAL: u8 = 0x15;
/// `BPF_JMP | BPF_EXIT`
pub(in crate::cgroup) const EXIT: u8 = 0x95;

/// The answer, as the calling convention has it.
const ANSWER: u8 = 0;
/// The pointer to `struct bpf_cgroup_dev_ctx`.
const CONTEXT: u8 = 1;
/// 1 for a block device, 2 for a character device.
const KIND: u8 = 2;
/// The accesses that no rule has decided yet.
const NEEDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Scratch for the accesses that a denying rule takes.
const TAKEN: u8 = 0;

/// Compiles the policy.
pub(in crate::cgroup) fn assemble(policy: &DevicePolicy) -> Vec<Insn> {
    let mut program = vec![
        Insn::new(LOAD, KIND, CONTEXT, 0, 0),
        Insn::new(MOVE, NEEDED, KIND, 0, 0),
        Insn::new(SHIFT_RIGHT, NEEDED, 0, 0, 16),
        Insn::new(AND, KIND, 0, 0, 0xffff),
        Insn::new(LOAD, MAJOR, CONTEXT, 4, 0),
        Insn::new(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in policy.rules().iter().rev() {
        program.extend(assemble_rule(rule).unwrap_or_default());
    }
    // The verifier refuses instructions that nothing reaches.
    if !policy
        .rules()
        .first()
        .is_some_and(|rule| rule.allow && rule.is_about_everything())
    {
        program.extend(answer(false));
    }
    program
}

/// The part for one rule; it falls through where the rule decides nothing. A rule about a number that no device can
/// have is left out.
fn assemble_rule(rule: &DeviceRule) -> Option<Vec<Insn>> {
    let number = |n: Option<u32>| n.map(i32::try_from).transpose().ok();
    let conditions = [
        (KIND, kind_number(rule.kind)),
        (MAJOR, number(rule.major)?),
        (MINOR, number(rule.minor)?),
    ];
    let conditions: Vec<(u8, i32)> = conditions
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    let decision = decide(rule);
    let mut part = Vec::new();
    for (index, (register, value)) in conditions.iter().enumerate() {
        let to_next_rule = conditions.len() - index - 1 + decision.len();
        part.push(Insn::new(
            JUMP_UNEQUAL,
            *register,
            0,
            i16::try_from(to_next_rule).ok()?,
            *value,
        ));
    }
    part.extend(decision);
    Some(part)
}

/// What a rule does with an access to a device that it is about.
fn decide(rule: &DeviceRule) -> Vec<Insn> {
    let bits = i32::from(rule.access.bits());
    let skip_answer = 2;
    if !rule.allow {
        let take = [
            Insn::new(MOVE, TAKEN, NEEDED, 0, 0),
            Insn::new(AND, TAKEN, 0, 0, bits),
            Insn::new(JUMP_EQUAL, TAKEN, 0, skip_answer, 0),
        ];
        return take.into_iter().chain(answer(false)).collect();
    }
    if rule.access == DeviceAccess::ALL {
        return answer(true).into();
    }
    let give = [
        Insn::new(AND, NEEDED, 0, 0, !bits),
        Insn::new(JUMP_UNEQUAL, NEEDED, 0, skip_answer, 0),
    ];
    give.into_iter().chain(answer(true)).collect()
}

fn answer(allow: bool) -> [Insn; 2] {
    [
        Insn::new(SET, ANSWER, 0, 0, i32::from(allow)),
        Insn::new(EXIT, 0, 0, 0, 0),
    ]
}

/// BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
fn kind_number(kind: DeviceType) -> Option<i32> {
    match kind {
        DeviceType::All => None,
        DeviceType::Block => Some(1),
        DeviceType::Char => Some(2),
    }
}

#[cfg(test)]
mod tests;
