//! The compiled program against the rules' meaning, in an interpreter of the few instructions that it uses.

use super::*;
use crate::cgroup::default_device_rules;

/// Runs `program` as the kernel would.
fn run(program: &[Insn], kind: u64, major: u64, minor: u64, access: u64) -> bool {
    let context = [kind | access << 16, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    for _ in 0..program.len() + 1 {
        let insn = program[at];
        let (to, from) = insn.registers();
        let value = i64::from(insn.value).cast_unsigned();
        let mut jump = false;
        match insn.code {
            LOAD => registers[to] = context[usize::try_from(insn.offset).unwrap() / 4],
            MOVE => registers[to] = registers[from],
            SET => registers[to] = value,
            AND => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            JUMP_UNEQUAL => jump = registers[to] != value,
            JUMP_EQUAL => jump = registers[to] == value,
            EXIT => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
        at += 1 + if jump {
            usize::try_from(insn.offset).unwrap()
        } else {
            0
        };
    }
    panic!("the program does not end");
}

/// Compares program and meaning for every kind, some numbers and every access.
fn assert_same(rules: &[DeviceRule]) {
    let policy = DevicePolicy::new(rules.to_vec());
    let program = assemble(&policy);
    for (kind, number) in [(DeviceType::Block, 1), (DeviceType::Char, 2)] {
        for major in [0, 1, 5, 8, 10, 136] {
            for minor in [0, 1, 3, 200] {
                for access in 0..8u8 {
                    let wanted = policy.allows(kind, major, minor, DeviceAccess::from_bits(access));
                    let found = run(&program, number, major.into(), minor.into(), access.into());
                    assert_eq!(
                        found, wanted,
                        "{kind:?} {major}:{minor} access {access:03b} under {rules:?}"
                    );
                }
            }
        }
    }
}

fn rule(
    allow: bool,
    kind: DeviceType,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
) -> DeviceRule {
    DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: DeviceAccess::from_bits(access),
    }
}

#[test]
fn the_program_means_what_the_rules_mean_for_hand_picked_rules() {
    let (all, block, char) = (DeviceType::All, DeviceType::Block, DeviceType::Char);
    assert_same(&[]);
    assert_same(&default_device_rules());
    assert_same(&[rule(true, all, None, None, 7)]);
    assert_same(&[
        rule(true, all, None, None, 7),
        rule(false, block, Some(8), None, 4),
    ]);
    assert_same(&[
        rule(false, all, None, None, 7),
        rule(true, char, Some(1), Some(3), 2),
        rule(true, char, Some(1), None, 4),
    ]);
    assert_same(&[
        rule(true, char, None, None, 7),
        rule(false, all, None, None, 7),
    ]);
    assert_same(&[
        rule(true, all, Some(u32::MAX), None, 7),
        rule(true, all, None, Some(3), 1),
    ]);
}

#[test]
fn the_program_means_what_the_rules_mean_for_random_rules() {
    // A fixed linear congruence: the same rules in every run.
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..300 {
        let rules: Vec<DeviceRule> = (0..next(6))
            .map(|_| {
                let kind = [DeviceType::All, DeviceType::Block, DeviceType::Char]
                    [usize::try_from(next(3)).unwrap()];
                let major = [None, Some(1), Some(5), Some(8)][usize::try_from(next(4)).unwrap()];
                let minor = [None, Some(0), Some(3)][usize::try_from(next(3)).unwrap()];
                rule(
                    next(2) == 0,
                    kind,
                    major,
                    minor,
                    1 + u8::try_from(next(7)).unwrap(),
                )
            })
            .collect();
        assert_same(&rules);
    }
}

#[test]
fn no_instruction_is_out_of_reach_because_the_verifier_refuses_those() {
    for rules in [
        vec![
            rule(true, DeviceType::All, None, None, 7),
            rule(false, DeviceType::Char, Some(1), None, 7),
        ],
        default_device_rules(),
    ] {
        let program = assemble(&DevicePolicy::new(rules));
        let mut reached = vec![false; program.len()];
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut reached[at], true) || program[at].code == EXIT {
                continue;
            }
            todo.push(at + 1);
            if matches!(program[at].code, JUMP_UNEQUAL | JUMP_EQUAL) {
                todo.push(at + 1 + usize::try_from(program[at].offset).unwrap());
            }
        }
        assert!(reached.iter().all(|one| *one), "{program:?}");
    }
}
