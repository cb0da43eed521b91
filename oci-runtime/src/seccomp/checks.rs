//! What is decided by the arguments of a call: conditions, the order of rules, and their code.
use super::arch::Arch;
use super::assembler::{Assembler, Target, Test};

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `SCMP_CMP_NE`
    NotEqual,
    /// `SCMP_CMP_LT`
    Less,
    /// `SCMP_CMP_LE`
    LessOrEqual,
    /// `SCMP_CMP_EQ`, and under a mask `SCMP_CMP_MASKED_EQ`
    Equal,
    /// `SCMP_CMP_GE`
    GreaterOrEqual,
    /// `SCMP_CMP_GT`
    Greater,
}

/// A condition on one argument: `arg & mask op value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// The comparison, unsigned.
    pub operator: Operator,
    /// The bits of the argument that count.
    pub mask: u64,
    /// What it is compared with.
    pub value: u64,
}

impl Condition {
    /// The condition for arguments of this width; `None` where it always holds.
    pub(super) fn narrowed(self, wide: bool) -> Option<Self> {
        let mask = if wide {
            self.mask
        } else {
            self.mask & 0xffff_ffff
        };
        let value = self.value & mask;
        (mask != 0).then_some(Self {
            mask,
            value,
            ..self
        })
    }

    /// The place of a rule among others for the same call, the greatest first, as libseccomp orders them: later
    /// arguments, then equality before ranges, then what is harder to fulfil.
    fn order(&self) -> (u8, u8, u64) {
        let (rank, value) = match self.operator {
            Operator::Equal | Operator::NotEqual => (3, self.value),
            Operator::Less | Operator::LessOrEqual => (2, !self.value),
            Operator::Greater | Operator::GreaterOrEqual => (1, self.value),
        };
        (self.arg, rank, value)
    }
}

/// One rule about a call: an action where all conditions hold, of which there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// Several rules about a call, none of which is about every case of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checks {
    wide: bool,
    list: Vec<Check>,
}

impl Checks {
    pub(super) fn new(wide: bool) -> Self {
        Self {
            wide,
            list: Vec::new(),
        }
    }

    /// Adds a rule. False where it contradicts another one: the same conditions, another action.
    pub(super) fn add(&mut self, conditions: Vec<Condition>, action: u32) -> bool {
        for known in &self.list {
            if known.conditions == conditions {
                return known.action == action;
            }
            // An earlier rule about fewer arguments decides already.
            if conditions.starts_with(&known.conditions) {
                return true;
            }
        }
        self.list.push(Check { conditions, action });
        true
    }

    /// Puts the rules in their order.
    pub(super) fn sort(&mut self) {
        let order = |check: &Check| check.conditions.iter().map(Condition::order).collect();
        self.list
            .sort_by_cached_key(|check| std::cmp::Reverse::<Vec<_>>(order(check)));
    }

    /// Writes their code; calls that none is about get `default`.
    pub(super) fn assemble(&self, code: &mut Assembler, default: u32) -> Target {
        let mut next = Target::Return(default);
        let mut rest = self.list.as_slice();
        while let Some(last) = rest.last() {
            let run = self.run(rest);
            if run.len() > 1 {
                next = self.assemble_run(code, run, next);
                rest = &rest[..rest.len() - run.len()];
                continue;
            }
            let mut target = Target::Return(last.action);
            for condition in last.conditions.iter().rev() {
                target = self.assemble_condition(code, condition, target, next);
            }
            next = target;
            rest = &rest[..rest.len() - 1];
        }
        next
    }

    /// The rules at the end of the list that compare one argument with values of the same upper half: one load of
    /// each half is enough for all of them.
    fn run<'a>(&self, list: &'a [Check]) -> &'a [Check] {
        let key = |check: &Check| match check.conditions.as_slice() {
            [one] if one.operator == Operator::Equal && self.is_whole(one.mask) => {
                Some((one.arg, one.value >> 32))
            }
            _ => None,
        };
        let Some(last) = list.last().and_then(key) else {
            return &[];
        };
        let count = list
            .iter()
            .rev()
            .take_while(|check| key(check) == Some(last))
            .count();
        &list[list.len() - count..]
    }

    fn is_whole(&self, mask: u64) -> bool {
        mask == if self.wide { u64::MAX } else { 0xffff_ffff }
    }

    fn assemble_run(&self, code: &mut Assembler, run: &[Check], after: Target) -> Target {
        let mut target = after;
        for check in run.iter().rev() {
            let value = low(check.conditions[0].value);
            target = code.branch(Test::Equal, value, Target::Return(check.action), target);
        }
        let Condition { arg, value, .. } = run[0].conditions[0];
        if target == after {
            return after;
        }
        target = code.load(offset(arg, false));
        if self.wide {
            code.branch(Test::Equal, high(value), target, after);
            target = code.load(offset(arg, true));
        }
        target
    }

    fn assemble_condition(
        &self,
        code: &mut Assembler,
        condition: &Condition,
        yes: Target,
        no: Target,
    ) -> Target {
        match condition.operator {
            Operator::Equal => self.assemble_equal(code, condition, yes, no),
            Operator::NotEqual => self.assemble_equal(code, condition, no, yes),
            Operator::Greater => self.assemble_more(code, condition, Test::Greater, yes, no),
            Operator::GreaterOrEqual => {
                self.assemble_more(code, condition, Test::GreaterOrEqual, yes, no)
            }
            Operator::Less => self.assemble_more(code, condition, Test::GreaterOrEqual, no, yes),
            Operator::LessOrEqual => self.assemble_more(code, condition, Test::Greater, no, yes),
        }
    }

    fn assemble_equal(
        &self,
        code: &mut Assembler,
        condition: &Condition,
        yes: Target,
        no: Target,
    ) -> Target {
        let Condition {
            arg, mask, value, ..
        } = *condition;
        let lower = word(code, (arg, false), low(mask), low(value), yes, no);
        if self.wide {
            word(code, (arg, true), high(mask), high(value), lower, no)
        } else {
            lower
        }
    }

    fn assemble_more(
        &self,
        code: &mut Assembler,
        condition: &Condition,
        test: Test,
        yes: Target,
        no: Target,
    ) -> Target {
        if yes == no {
            return yes;
        }
        let Condition { arg, value, .. } = *condition;
        code.branch(test, low(value), yes, no);
        let lower = code.load(offset(arg, false));
        if !self.wide {
            return lower;
        }
        if high(value) == 0 {
            // Whatever is there in the upper half is more.
            code.branch(Test::Equal, 0, lower, yes);
        } else {
            let equal = code.branch(Test::Equal, high(value), lower, no);
            code.branch(Test::Greater, high(value), yes, equal);
        }
        code.load(offset(arg, true))
    }
}

/// Compares one half of an argument under a mask.
fn word(
    code: &mut Assembler,
    (arg, upper): (u8, bool),
    mask: u32,
    value: u32,
    yes: Target,
    no: Target,
) -> Target {
    if mask == 0 || yes == no {
        return yes;
    }
    if value == 0 && mask != u32::MAX {
        code.branch(Test::AnyBit, mask, no, yes);
    } else {
        code.branch(Test::Equal, value, yes, no);
        if mask != u32::MAX {
            code.and(mask);
        }
    }
    code.load(offset(arg, upper))
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

/// Where half of an argument is in `struct seccomp_data`.
fn offset(arg: u8, upper: bool) -> u32 {
    let second = upper != Arch::native().big_endian;
    16 + 8 * u32::from(arg) + if second { 4 } else { 0 }
}
