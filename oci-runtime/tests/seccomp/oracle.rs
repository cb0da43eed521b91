//! What runc makes of a profile: libseccomp's program behind its own check for calls that are newer than the profile.
use std::collections::BTreeMap;
use std::io::{Read, Seek};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_runtime::plan::Problems;
use oci_runtime::seccomp::arch::{ARCHS, Arch};
use oci_runtime::seccomp::{SeccompPlan, action, stored};
use serde_json::Value;
use sys::seccomp::Instruction;

use oci_runtime::seccomp::simulate::{Call, run};

pub(crate) const ERRNO_ENOSYS: u32 = action::ERRNO | action::ENOSYS;

/// Our filter for a profile.
pub(crate) fn ours(profile: &Value) -> Result<SeccompPlan, String> {
    let section = serde_json::from_value(profile.clone()).unwrap();
    let mut problems = Problems::default();
    let plan = oci_runtime::seccomp::plan(Some(&section), &BTreeMap::new(), &mut problems);
    problems
        .into_result(plan)
        .map(Option::unwrap)
        .map_err(|problems| problems.to_string())
}

/// runc's.
pub(crate) struct Runc {
    pub(crate) program: Vec<Instruction>,
    /// For each architecture: the largest number that the profile speaks of.
    newest: Vec<(&'static Arch, u32)>,
}

/// The same architecture in libseccomp's words.
pub(crate) fn scmp(arch: &Arch) -> ScmpArch {
    arch.name.parse().unwrap()
}

fn scmp_action(name: &str, errno: Option<u64>) -> ScmpAction {
    let errno = i32::try_from(errno.unwrap_or(1)).unwrap();
    match name {
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(errno),
        "SCMP_ACT_TRACE" => ScmpAction::Trace(u16::try_from(errno).unwrap()),
        other => ScmpAction::from_str(other, None).unwrap(),
    }
}

fn compare(arg: &Value) -> ScmpArgCompare {
    let number = |name: &str| arg.get(name).map_or(0, |value| value.as_u64().unwrap());
    let (value, second) = (number("value"), number("valueTwo"));
    let (operator, datum) = match arg["op"].as_str().unwrap() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, value),
        _ => (ScmpCompareOp::MaskedEqual(value), second),
    };
    let index = u32::try_from(arg["index"].as_u64().unwrap()).unwrap();
    ScmpArgCompare::new(index, operator, datum)
}

/// The architectures of a filter: the machine's own and those of the profile.
pub(crate) fn archs(profile: &Value) -> Vec<&'static Arch> {
    let named = |arch: &&Arch| strings(&profile["architectures"]).any(|name| name == arch.name);
    let is_native = |arch: &&Arch| arch.name == Arch::native().name;
    ARCHS
        .iter()
        .filter(|arch| named(arch) || is_native(arch))
        .collect()
}

pub(crate) fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap())
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Runc {
    pub(crate) fn new(profile: &Value) -> Result<Self, String> {
        let default = profile["defaultAction"].as_str().unwrap();
        let default = scmp_action(default, profile["defaultErrnoRet"].as_u64());
        let mut filter = ScmpFilterContext::new(default).unwrap();
        let archs = archs(profile);
        for arch in &archs {
            filter
                .add_arch(scmp(arch))
                .map_err(|error| error.to_string())?;
        }
        let rules = list(&profile["syscalls"]);
        if rules.iter().flat_map(|rule| list(&rule["names"])).count() > 32 {
            filter.set_ctl_optimize(2).unwrap();
        }
        for rule in rules {
            let action = scmp_action(rule["action"].as_str().unwrap(), rule["errnoRet"].as_u64());
            if action != default {
                add(&mut filter, rule, action)?;
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        filter
            .export_bpf(&file)
            .map_err(|error| error.to_string())?;
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let permissive = matches!(
            default,
            ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_)
        );
        let newest = |arch: &&'static Arch| {
            let names = rules.iter().flat_map(|rule| strings(&rule["names"]));
            let number = |name: &str| ScmpSyscall::from_name_by_arch(name, scmp(arch)).ok();
            let largest = names
                .filter_map(number)
                .map(ScmpSyscall::as_raw_syscall)
                .max()?;
            Some((
                *arch,
                u32::try_from(largest).ok().filter(|number| *number > 0)?,
            ))
        };
        let newest = archs
            .iter()
            .filter(|_| !permissive)
            .filter_map(newest)
            .collect();
        Ok(Self {
            program: stored::decode(&bytes).unwrap(),
            newest,
        })
    }

    pub(crate) fn decide(&self, call: &Call) -> u32 {
        // What runc puts before the filter. x32 has the same AUDIT_ARCH as x86_64, and bit 30 in its numbers.
        let x86_64 = Arch::find("SCMP_ARCH_X86_64").unwrap().audit;
        let is_x32 = |number: u32| number & 1 << 30 != 0;
        for (arch, newest) in &self.newest {
            let same_abi = arch.audit != x86_64 || is_x32(*newest) == is_x32(call.number);
            if arch.audit == call.arch && same_abi && call.number > *newest {
                return ERRNO_ENOSYS;
            }
        }
        run(&self.program, call).unwrap()
    }
}

fn add(filter: &mut ScmpFilterContext, rule: &Value, action: ScmpAction) -> Result<(), String> {
    let mut args: Vec<_> = list(&rule["args"]).to_vec();
    args.sort_by_key(|arg| arg["index"].as_u64());
    let twice = args
        .windows(2)
        .any(|pair| pair[0]["index"] == pair[1]["index"]);
    let groups: Vec<Vec<ScmpArgCompare>> = if twice {
        args.iter().map(|arg| vec![compare(arg)]).collect()
    } else {
        vec![args.iter().map(compare).collect()]
    };
    for name in strings(&rule["names"]) {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        for group in &groups {
            filter
                .add_rule_conditional(action, call, group)
                .map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}

/// Takes from a profile what the installed libseccomp does not know, or has another number for: its tables are older
/// than ours. Returns what it took.
pub(crate) fn keep_known(profile: &mut Value) -> Vec<String> {
    let archs = archs(profile);
    let mut taken = Vec::new();
    for rule in profile["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| {
            let name = name.as_str().unwrap();
            let same = archs.iter().all(|arch| is_same(name, arch));
            if !same {
                taken.push(name.to_owned());
            }
            same
        });
    }
    taken
}

fn is_same(name: &str, arch: &Arch) -> bool {
    let ours = oci_runtime::seccomp::Syscall::find(name);
    let theirs = ScmpSyscall::from_name_by_arch(name, scmp(arch)).ok();
    match (ours, theirs) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => match (ours.number(arch), theirs.as_raw_syscall()) {
            (Some(number), theirs @ 0..) => i64::from(number) == i64::from(theirs),
            // A pseudo number: not on this architecture, or in a multiplexer as well.
            (number, _) => number.is_none() || ours.multiplexed().is_some(),
        },
        _ => false,
    }
}
