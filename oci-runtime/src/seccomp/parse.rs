//! `linux.seccomp` and its annotations: every bad field reported by its name, then the filter.
use std::collections::BTreeMap;

use sys::seccomp::{FilterFlags, Instruction, MAX_INSTRUCTIONS};

use super::arch::Arch;
use super::checks::{Condition, Operator};
use super::compile::{Policy, Rule, compile};
use super::{Listener, SeccompPlan, action, base64};
use crate::plan::Problems;
use crate::spec::{Seccomp, SeccompArg, SeccompRule, SyscallName};

/// The comparisons of the spec, sorted.
pub const OPERATORS: [(&str, Operator); 7] = [
    ("SCMP_CMP_EQ", Operator::Equal),
    ("SCMP_CMP_GE", Operator::GreaterOrEqual),
    ("SCMP_CMP_GT", Operator::Greater),
    ("SCMP_CMP_LE", Operator::LessOrEqual),
    ("SCMP_CMP_LT", Operator::Less),
    ("SCMP_CMP_MASKED_EQ", Operator::Equal),
    ("SCMP_CMP_NE", Operator::NotEqual),
];

/// The flags of the spec, and the one that runc knows besides.
pub const FLAGS: [(&str, FilterFlags); 4] = [
    // Taken and without effect: there is one thread, and the filter stays with what it starts.
    ("SECCOMP_FILTER_FLAG_TSYNC", FilterFlags::empty()),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FilterFlags::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", FilterFlags::LOG),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        FilterFlags::WAIT_KILLABLE_RECV,
    ),
];

/// A socket for the listener where the section names none, as crun has it.
const RECEIVER: &str = "run.oci.seccomp.receiver";
/// A filter in place of the section, as crun has it.
const RAW: &str = "run.oci.seccomp_bpf_data";
/// Whether names that nobody knows are errors, as crun has it.
const STRICT: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Decides on the filter of a container; none where there is nothing to filter.
pub fn plan(
    section: Option<&Seccomp>,
    annotations: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<SeccompPlan> {
    if let Some(text) = annotations.get(RAW) {
        let flags = section.map_or(FilterFlags::empty(), |section| flags(section, problems));
        return raw(text, problems).map(|program| SeccompPlan {
            program,
            flags: flags - FilterFlags::WAIT_KILLABLE_RECV,
            listener: None,
        });
    }
    let section = section?;
    if section.default_action.is_empty() && section.syscalls.is_empty() {
        return None;
    }
    let before = problems.list().len();
    let archs = archs(section, problems);
    let mut flags = flags(section, problems);
    let listener = listener(section, annotations, problems);
    let strict = annotations.contains_key(STRICT);
    let policy = policy(section, strict, problems);
    match &listener {
        Some(_) => flags |= FilterFlags::NEW_LISTENER,
        // It says how a listener is waited for; without one the kernel refuses it.
        None => flags -= FilterFlags::WAIT_KILLABLE_RECV,
    }
    if problems.list().len() > before {
        return None;
    }
    match compile(&policy, &archs) {
        Ok(program) => Some(SeccompPlan {
            program,
            flags,
            listener,
        }),
        Err(reason) => {
            problems.push("linux.seccomp.syscalls", reason);
            None
        }
    }
}

/// The machine's own architecture and those of the section, each once.
fn archs(section: &Seccomp, problems: &mut Problems) -> Vec<&'static Arch> {
    let native = Arch::native();
    let mut archs = vec![native];
    for (index, name) in section.architectures.iter().enumerate() {
        let field = || format!("linux.seccomp.architectures[{index}]");
        match Arch::find(name) {
            None => problems.push(
                field(),
                format!("string {name} is not a valid arch for seccomp"),
            ),
            Some(arch) if arch.big_endian != native.big_endian => problems.push(
                field(),
                format!("{name} has the other byte order than this machine, which cannot run it"),
            ),
            Some(arch) if archs.iter().all(|known| known.name != arch.name) => archs.push(arch),
            Some(_) => {}
        }
    }
    archs
}

fn flags(section: &Seccomp, problems: &mut Problems) -> FilterFlags {
    let Some(names) = &section.flags else {
        return FilterFlags::SPEC_ALLOW;
    };
    let mut flags = FilterFlags::empty();
    for (index, name) in names.iter().enumerate() {
        match FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, flag)) => flags |= *flag,
            None => problems.push(
                format!("linux.seccomp.flags[{index}]"),
                format!("seccomp flag {name} is not known"),
            ),
        }
    }
    flags
}

fn listener(
    section: &Seccomp,
    annotations: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<Listener> {
    const PATH: &str = "linux.seccomp.listenerPath";
    const METADATA: &str = "linux.seccomp.listenerMetadata";
    let none = String::new();
    let path = match section.listener_path.as_str() {
        "" => annotations.get(RECEIVER).unwrap_or(&none),
        _ => &section.listener_path,
    };
    let asks = |rule: &SeccompRule| rule.action == "SCMP_ACT_NOTIFY" && !rule.names.is_empty();
    let used = section.syscalls.iter().any(asks);
    problems.require(
        !used || !path.is_empty(),
        PATH,
        "seccomp listenerPath is not set, but a rule has SCMP_ACT_NOTIFY",
    );
    problems.require(
        path.is_empty() || path.starts_with('/'),
        PATH,
        "must be an absolute path",
    );
    problems.require(!path.contains('\0'), PATH, "holds a NUL byte");
    problems.require(
        section.listener_metadata.is_empty() || !path.is_empty(),
        METADATA,
        "is of no use without listenerPath",
    );
    used.then(|| Listener {
        path: path.clone(),
        metadata: section.listener_metadata.clone(),
    })
}

fn policy<'a>(section: &'a Seccomp, strict: bool, problems: &mut Problems) -> Policy<'a> {
    const DEFAULT: &str = "linux.seccomp.defaultAction";
    let default = action::parse(&section.default_action, section.default_errno_ret);
    let default = default.unwrap_or_else(|reason| {
        problems.push(DEFAULT, reason);
        action::ALLOW
    });
    // Who adds the filter has to tell who answers, which is a call as well.
    problems.require(
        default != action::NOTIFY,
        DEFAULT,
        "SCMP_ACT_NOTIFY cannot be used as default action",
    );
    let mut rules = Vec::with_capacity(section.syscalls.len());
    for (index, rule) in section.syscalls.iter().enumerate() {
        add_rules(index, rule, strict, &mut rules, problems);
    }
    Policy { default, rules }
}

fn add_rules<'a>(
    index: usize,
    rule: &'a SeccompRule,
    strict: bool,
    rules: &mut Vec<Rule<'a>>,
    problems: &mut Problems,
) {
    let field = |name: &str| format!("linux.seccomp.syscalls[{index}].{name}");
    let action = match action::parse(&rule.action, rule.errno_ret) {
        Ok(action) => action,
        Err(reason) => return problems.push(field("action"), reason),
    };
    check_names(rule, action, strict, &field("names"), problems);
    let mut conditions = Vec::with_capacity(rule.args.len());
    for (number, arg) in rule.args.iter().enumerate() {
        match condition(arg) {
            Ok(condition) => conditions.push(condition),
            Err((name, reason)) => problems.push(field(&format!("args[{number}].{name}")), reason),
        }
    }
    conditions.sort_by_key(|condition| condition.arg);
    let names = rule.names.as_slice();
    let twice = conditions.windows(2).any(|pair| pair[0].arg == pair[1].arg);
    if !twice {
        return rules.push(Rule {
            names,
            conditions,
            action,
        });
    }
    // Two conditions on one argument: one of them is enough, and so is any other one. That is how it was before
    // conditions could be joined, and profiles rely on it.
    rules.extend(conditions.into_iter().map(|condition| Rule {
        names,
        conditions: vec![condition],
        action,
    }));
}

fn check_names(
    rule: &SeccompRule,
    action: u32,
    strict: bool,
    field: &str,
    problems: &mut Problems,
) {
    for name in &rule.names {
        match name {
            SyscallName::Unknown(name) if name.is_empty() => {
                problems.push(field, "empty string is not a valid syscall");
            }
            SyscallName::Unknown(name) if strict => {
                problems.push(field, format!("unknown seccomp syscall {name:?}"));
            }
            // How the listener's descriptor is announced.
            SyscallName::Known(call) if action == action::NOTIFY && call.name() == "write" => {
                problems.push(
                    field,
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                );
            }
            SyscallName::Known(_) | SyscallName::Unknown(_) => {}
        }
    }
}

fn condition(arg: &SeccompArg) -> Result<Condition, (&'static str, String)> {
    let Some((name, operator)) = OPERATORS.iter().find(|(name, _)| *name == arg.op) else {
        return Err((
            "op",
            format!("string {} is not a valid operator for seccomp", arg.op),
        ));
    };
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| {
        let text = format!("system calls have the arguments 0 to 5, not {}", arg.index);
        ("index", text)
    })?;
    let (mask, value) = if *name == "SCMP_CMP_MASKED_EQ" {
        (arg.value, arg.value_two)
    } else {
        (u64::MAX, arg.value)
    };
    Ok(Condition {
        arg: index,
        operator: *operator,
        mask,
        value,
    })
}

/// The program of an annotation. The kernel checks it; here it only has to be one.
fn raw(text: &str, problems: &mut Problems) -> Option<Vec<Instruction>> {
    let field = format!("annotations[{RAW:?}]");
    let Some(bytes) = base64::decode(text) else {
        problems.push(field, "is not base64");
        return None;
    };
    let program = super::stored::decode(&bytes);
    let fits = program
        .as_ref()
        .filter(|program| (1..=MAX_INSTRUCTIONS).contains(&program.len()));
    if fits.is_none() {
        problems.push(
            field,
            format!(
                "{} bytes are not 1 to {MAX_INSTRUCTIONS} instructions of 8 bytes",
                bytes.len()
            ),
        );
        return None;
    }
    program
}
