//! From rules to a program.
//!
//! For each architecture the numbers of its calls are cut into spans with one outcome: what rules say, what is not
//! there, what is newer than the profile, the other ABI. A binary tree finds the span; calls that differ from what is
//! around them are leaves of their own. `jset` on a bitmap would be shorter still, but then the kernel could not work
//! out which calls are always allowed, and would run the filter for each of them.
use sys::seccomp::{Instruction, MAX_INSTRUCTIONS};

use super::action;
use super::arch::{Arch, X32_BIT};
use super::assembler::{Assembler, Target, Test};
use super::checks::{Checks, Condition, Operator};
use super::syscalls::{Multiplexer, Syscall};
use crate::spec::SyscallName;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// How many calls in a row may be exceptions of one span: each costs a comparison, in turn.
const MOST_EXCEPTIONS: usize = 4;

/// What a filter shall do.
#[derive(Debug)]
pub struct Policy<'a> {
    /// The answer for calls that no rule is about.
    pub default: u32,
    /// In the order of the profile.
    pub rules: Vec<Rule<'a>>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule<'a> {
    /// The calls.
    pub names: &'a [SyscallName],
    /// All of these must hold; at most one for each argument, in their order.
    pub conditions: Vec<Condition>,
    /// The answer.
    pub action: u32,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Return(u32),
    /// It depends on the arguments: an index of [`Compiler::checks`].
    Check(usize),
}

/// The outcome of calls that are newer than the profile.
const UNKNOWN: Outcome = Outcome::Return(action::ERRNO | action::ENOSYS);

/// Consecutive numbers with the same outcome, up to the next one's start.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    outcome: Outcome,
}

/// Consecutive numbers that have the same outcome but for some single ones.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    start: u32,
    outcome: Outcome,
    exceptions: [(u32, Outcome); MOST_EXCEPTIONS],
    count: usize,
}

/// Compiles a filter for these architectures, each of which is there once, the most used first.
///
/// # Errors
/// Rules that contradict each other, or more of them than the kernel takes.
pub fn compile(policy: &Policy<'_>, archs: &[&'static Arch]) -> Result<Vec<Instruction>, String> {
    let mut compiler = Compiler {
        policy,
        checks: Vec::new(),
        code: Assembler::new(),
        targets: Vec::new(),
    };
    let mut groups: Vec<(u32, Vec<Span>)> = Vec::with_capacity(archs.len());
    for arch in archs {
        if groups.iter().all(|(audit, _)| *audit != arch.audit) {
            groups.push((arch.audit, compiler.spans(arch.audit, archs)?));
        }
    }
    for index in 0..compiler.checks.len() {
        let target = compiler.checks[index].assemble(&mut compiler.code, policy.default);
        compiler.targets.push(target);
    }
    let mut entries = Vec::with_capacity(groups.len());
    for (audit, spans) in groups.iter().rev() {
        let mut entry = compiler.tree(&leaves(spans));
        if let Target::At(_) = entry {
            entry = compiler.code.load(NUMBER);
        }
        entries.push((*audit, entry));
    }
    let mut start = Target::Return(action::KILL_THREAD);
    for (audit, entry) in entries {
        start = compiler.code.branch(Test::Equal, audit, entry, start);
    }
    if let Target::At(_) = start {
        start = compiler.code.load(ARCHITECTURE);
    }
    let program = compiler.code.finish(start);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!(
            "the filter needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}: use fewer rules with args",
            program.len()
        ));
    }
    Ok(program)
}

struct Compiler<'a> {
    policy: &'a Policy<'a>,
    checks: Vec<Checks>,
    code: Assembler,
    /// Where the code of each of the checks is.
    targets: Vec<Target>,
}

impl Compiler<'_> {
    /// The spans of all numbers under one `AUDIT_ARCH_…`.
    fn spans(&mut self, audit: u32, archs: &[&'static Arch]) -> Result<Vec<Span>, String> {
        let mut spans = Vec::with_capacity(256);
        let of = |base: u32| {
            let mut all = archs.iter().filter(|arch| arch.audit == audit);
            all.find(|arch| (arch.base == X32_BIT) == (base == X32_BIT))
        };
        let other_abi = Outcome::Return(action::KILL_THREAD);
        match of(0) {
            Some(arch) => self.add_spans(arch, &mut spans)?,
            None => push(&mut spans, 0, other_abi),
        }
        if let Some(arch) = of(X32_BIT) {
            self.add_spans(arch, &mut spans)?;
        } else if archs
            .iter()
            .any(|arch| arch.audit == audit && arch.base == 0)
            && Arch::find("SCMP_ARCH_X86_64").is_some_and(|arch| arch.audit == audit)
        {
            push(&mut spans, X32_BIT, other_abi);
            if of(0).is_some_and(|arch| self.newest(arch).is_some()) {
                // Negative numbers without the bit are newer than the profile, those with it are of the other ABI.
                push(&mut spans, 1 << 31, UNKNOWN);
                push(&mut spans, 1 << 31 | X32_BIT, other_abi);
            }
            // A tracer that skips a call sets its number to -1, which the filter sees: that is no call of x32.
            push(&mut spans, u32::MAX, Outcome::Return(self.policy.default));
        }
        Ok(spans)
    }

    fn add_spans(&mut self, arch: &'static Arch, spans: &mut Vec<Span>) -> Result<(), String> {
        let default = Outcome::Return(self.policy.default);
        let entries = self.entries(arch);
        push(
            spans,
            if arch.base == X32_BIT { X32_BIT } else { 0 },
            default,
        );
        // What is newer than the profile is so even for calls that have a rule by their place in a multiplexer.
        let newest = self.newest(arch);
        let old = |entry: &Entry| newest.is_none_or(|newest| entry.number <= newest);
        let mut rest = &entries[..entries.partition_point(old)];
        while let Some(first) = rest.first() {
            let number = first.number;
            let count = rest
                .iter()
                .take_while(|entry| entry.number == number)
                .count();
            let outcome = self.outcome(arch, &rest[..count])?;
            push(spans, number, outcome);
            push(spans, number + 1, default);
            rest = &rest[count..];
        }
        if let Some(newest) = newest {
            push(spans, newest + 1, UNKNOWN);
            // Calls that this kernel does not know arrive as number 0 on s390: there is no other way to tell them
            // from setup(2), which nobody has called for decades.
            if matches!(arch.name, "SCMP_ARCH_S390" | "SCMP_ARCH_S390X") {
                override_first(spans, UNKNOWN);
            }
        }
        Ok(())
    }

    /// The largest number that the profile speaks of: calls beyond it are newer than the profile, and programs that
    /// try them expect ENOSYS. None where the profile allows what it does not know.
    fn newest(&self, arch: &'static Arch) -> Option<u32> {
        if action::is_permissive(self.policy.default) {
            return None;
        }
        let names = self.policy.rules.iter().flat_map(|rule| rule.names);
        let numbers = names.filter_map(|name| match name {
            // Where a call may come in by a multiplexer, libseccomp has no plain number for it.
            SyscallName::Known(call) if muxed(*call, arch).is_none() => call.number(arch),
            _ => None,
        });
        numbers.max().filter(|number| *number != 0)
    }

    /// Every number that a rule is about, sorted, in the order of the rules.
    fn entries(&self, arch: &'static Arch) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(512);
        for (index, rule) in self.policy.rules.iter().enumerate() {
            if rule.action == self.policy.default {
                continue;
            }
            let rule = u32::try_from(index).unwrap_or(u32::MAX);
            for name in rule_names(&self.policy.rules[index]) {
                if let Some((number, place)) = muxed(name, arch) {
                    entries.push(Entry {
                        number,
                        rule,
                        place,
                    });
                }
                if let Some(number) = name.number(arch) {
                    entries.push(Entry {
                        number,
                        rule,
                        place: 0,
                    });
                }
            }
        }
        entries.sort_unstable();
        entries
    }

    /// What the rules of one number come to: the first that is about every case of it, else all of them in turn.
    fn outcome(&mut self, arch: &'static Arch, entries: &[Entry]) -> Result<Outcome, String> {
        let mut checks = Checks::new(arch.wide);
        for entry in entries {
            let rule = &self.policy.rules[entry.rule as usize];
            let conditions = conditions(rule, arch, entry.place);
            if conditions.is_empty() {
                return Ok(Outcome::Return(rule.action));
            }
            if !checks.add(conditions, rule.action) {
                let called = |name: &Syscall| {
                    name.number(arch) == Some(entry.number) || muxed(*name, arch).is_some()
                };
                let name = rule_names(rule).find(called).map_or("?", Syscall::name);
                return Err(format!(
                    "two rules for {name} have the same args and different actions"
                ));
            }
        }
        checks.sort();
        let known = self.checks.iter().position(|known| *known == checks);
        Ok(Outcome::Check(known.unwrap_or_else(|| {
            self.checks.push(checks);
            self.checks.len() - 1
        })))
    }

    fn target(&self, outcome: Outcome) -> Target {
        match outcome {
            Outcome::Return(value) => Target::Return(value),
            Outcome::Check(index) => self.targets[index],
        }
    }

    /// A binary search for the leaf.
    fn tree(&mut self, leaves: &[Leaf]) -> Target {
        match leaves {
            [] => Target::Return(self.policy.default),
            [leaf] => {
                let mut target = self.target(leaf.outcome);
                for (number, outcome) in leaf.exceptions[..leaf.count].iter().rev() {
                    let exception = self.target(*outcome);
                    target = self.code.branch(Test::Equal, *number, exception, target);
                }
                target
            }
            _ => {
                let (below, above) = leaves.split_at(leaves.len() / 2);
                let border = above[0].start;
                let above = self.tree(above);
                let below = self.tree(below);
                self.code.branch(Test::GreaterOrEqual, border, above, below)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    number: u32,
    rule: u32,
    /// In a multiplexer; 0 outside.
    place: u8,
}

fn rule_names<'a>(rule: &Rule<'a>) -> impl Iterator<Item = Syscall> + use<'a> {
    rule.names.iter().filter_map(|name| match name {
        SyscallName::Known(call) => Some(*call),
        SyscallName::Unknown(_) => None,
    })
}

/// The number of the multiplexer that a call may come in by, and its place there.
fn muxed(call: Syscall, arch: &Arch) -> Option<(u32, u8)> {
    let (socketcall, ipc) = arch.multiplexers?;
    let (multiplexer, place) = call.multiplexed()?;
    Some(match multiplexer {
        Multiplexer::Socketcall => (socketcall, place),
        Multiplexer::Ipc => (ipc, place),
    })
}

/// The conditions of a rule on this architecture. In a multiplexer the first argument says which call it is.
fn conditions(rule: &Rule<'_>, arch: &Arch, place: u8) -> Vec<Condition> {
    let narrow = |condition: &Condition| condition.narrowed(arch.wide);
    if place == 0 {
        return rule.conditions.iter().filter_map(narrow).collect();
    }
    let which = Condition {
        arg: 0,
        operator: Operator::Equal,
        mask: u64::MAX,
        value: place.into(),
    };
    let others = rule
        .conditions
        .iter()
        .filter(|condition| condition.arg != 0);
    std::iter::once(&which)
        .chain(others)
        .filter_map(narrow)
        .collect()
}

/// Adds a span at the end, in place of one with the same start, and joined with one with the same outcome.
fn push(spans: &mut Vec<Span>, start: u32, outcome: Outcome) {
    if spans.last().is_some_and(|last| last.start == start) {
        spans.pop();
    }
    if spans.last().is_none_or(|last| last.outcome != outcome) {
        spans.push(Span { start, outcome });
    }
}

/// Gives number 0 another outcome.
fn override_first(spans: &mut Vec<Span>, outcome: Outcome) {
    let Some(first) = spans.first().copied() else {
        return;
    };
    if spans.get(1).is_none_or(|second| second.start > 1) && first.outcome != outcome {
        spans.insert(1, Span { start: 1, ..first });
    }
    spans[0].outcome = outcome;
    if spans.get(1).is_some_and(|second| second.outcome == outcome) {
        spans.remove(1);
    }
}

/// Joins spans around single numbers.
fn leaves(spans: &[Span]) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = Vec::with_capacity(spans.len());
    let mut rest = spans;
    while let [first, after @ ..] = rest {
        rest = after;
        let mut leaf = Leaf {
            start: first.start,
            outcome: first.outcome,
            exceptions: [(0, first.outcome); MOST_EXCEPTIONS],
            count: 0,
        };
        while let [one, next, ..] = rest
            && leaf.count < MOST_EXCEPTIONS
            && next.outcome == leaf.outcome
            && next.start - one.start == 1
        {
            leaf.exceptions[leaf.count] = (one.start, one.outcome);
            leaf.count += 1;
            rest = &rest[1..];
            rest = &rest[1..];
        }
        leaves.push(leaf);
    }
    leaves
}
