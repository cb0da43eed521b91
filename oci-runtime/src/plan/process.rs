//! The plan of one process: the container's own, or one that `exec` adds.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

use sys::creds::{self, CapSet, Rlimit};
use sys::process::{IoClass, Scheduler};
use sys::tty::WindowSize;

use super::{Problems, numbers};
use crate::spec;

/// A process, every decision made.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The first size of the terminal.
    pub console_size: Option<WindowSize>,
    /// The program's name and its arguments; never empty.
    pub args: Vec<CString>,
    /// The environment, each name once.
    pub env: Vec<CString>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets.
    pub capabilities: CapabilityPlan,
    /// Limits, each once.
    pub rlimits: Vec<(u32, Rlimit)>,
    /// Whether programs may not gain rights.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`
    pub oom_score_adj: Option<i32>,
    /// CPU scheduler.
    pub scheduler: Option<Scheduler>,
    /// I/O priority.
    pub io_priority: Option<(IoClass, u8)>,
    /// AppArmor profile, empty for the present one.
    pub apparmor_profile: String,
    /// SELinux label, empty for what the policy says.
    pub selinux_label: String,
    /// Processors of a process that `exec` adds.
    pub affinity: Option<AffinityPlan>,
    /// Whether the supplementary groups stay those of the caller.
    pub keep_groups: bool,
}

/// `process.execCPUAffinity`; never both empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityPlan {
    /// Before the process is in the container's cgroup.
    pub initial: Vec<usize>,
    /// Once it is there.
    pub last: Vec<usize>,
}

/// The five sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityPlan {
    /// What any program may ever get.
    pub bounding: CapSet,
    /// What counts now.
    pub effective: CapSet,
    /// What passes to programs that have it as file capability.
    pub inheritable: CapSet,
    /// What may become effective.
    pub permitted: CapSet,
    /// What every program gets.
    pub ambient: CapSet,
}

/// The mask that runc sets where the spec has none.
const DEFAULT_UMASK: u32 = 0o022;

impl ProcessPlan {
    /// Whether this limit is set.
    pub fn limits(&self, name: &str) -> bool {
        let wanted = sys::creds::parse_rlimit(name);
        self.rlimits
            .iter()
            .any(|(resource, _)| Some(*resource) == wanted)
    }

    /// Decides, noting what is wrong in `problems` and what is merely odd in `warnings`.
    pub fn new(
        process: &spec::Process,
        problems: &mut Problems,
        warnings: &mut Vec<String>,
    ) -> Self {
        let cwd = PathBuf::from(&process.cwd);
        problems.require(
            !process.cwd.is_empty(),
            "process.cwd",
            "Cwd property must not be empty",
        );
        problems.require(
            process.cwd.is_empty() || cwd.is_absolute(),
            "process.cwd",
            "Cwd must be an absolute path",
        );
        problems.require(
            !process.cwd.contains('\0'),
            "process.cwd",
            "holds a NUL byte",
        );
        let args_ok = process.args.first().is_some_and(|first| !first.is_empty());
        problems.require(args_ok, "process.args", "args must not be empty");
        let user = &process.user;
        problems.require(
            user.uid != u32::MAX,
            "process.user.uid",
            "4294967295 is no user id",
        );
        problems.require(
            user.gid != u32::MAX,
            "process.user.gid",
            "4294967295 is no group id",
        );
        let umask = user.umask.unwrap_or(DEFAULT_UMASK);
        problems.require(umask <= 0o777, "process.user.umask", "more than 0777");
        let size = process
            .console_size
            .filter(|size| size.height > 0 && size.width > 0);
        Self {
            terminal: process.terminal,
            console_size: size.map(|size| WindowSize {
                rows: size.height,
                columns: size.width,
            }),
            args: c_strings(&process.args, "process.args", problems),
            env: environment(&process.env, problems),
            cwd,
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.clone(),
            umask,
            capabilities: capabilities(process.capabilities.as_ref(), warnings),
            rlimits: rlimits(&process.rlimits, problems),
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: oom_score_adj(process.oom_score_adj, problems),
            scheduler: process
                .scheduler
                .as_ref()
                .and_then(|one| scheduler(one, problems)),
            io_priority: process
                .io_priority
                .as_ref()
                .and_then(|one| io_priority(one, problems)),
            apparmor_profile: label(
                &process.apparmor_profile,
                "process.apparmorProfile",
                problems,
            ),
            selinux_label: label(&process.selinux_label, "process.selinuxLabel", problems),
            affinity: process
                .exec_cpu_affinity
                .as_ref()
                .and_then(|one| affinity(one, problems)),
            keep_groups: false,
        }
    }

    /// Decides on the annotation `run.oci.keep_original_groups`, which crun has as well.
    pub fn keep_groups(&mut self, annotations: &BTreeMap<String, String>, problems: &mut Problems) {
        const NAME: &str = "run.oci.keep_original_groups";
        self.keep_groups = annotations
            .get(NAME)
            .is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
        problems.require(
            !self.keep_groups || self.groups.is_empty(),
            "process.user.additionalGids",
            &format!("the annotation {NAME} keeps the groups of the caller"),
        );
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| {
            entry
                .to_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        })
    }
}

fn label(text: &str, field: &str, problems: &mut Problems) -> String {
    problems.require(!text.contains('\0'), field, "holds a NUL byte");
    text.to_owned()
}

/// More processors than any kernel is built for.
const MAX_PROCESSORS: usize = 8192;

fn affinity(spec: &spec::CpuAffinity, problems: &mut Problems) -> Option<AffinityPlan> {
    let mut list = |text: &str, name: &str| {
        numbers::parse(text, MAX_PROCESSORS).unwrap_or_else(|reason| {
            problems.push(format!("process.execCPUAffinity.{name}"), reason);
            Vec::new()
        })
    };
    let plan = AffinityPlan {
        initial: list(&spec.initial, "initial"),
        last: list(&spec.last, "final"),
    };
    (!plan.initial.is_empty() || !plan.last.is_empty()).then_some(plan)
}

fn c_strings(texts: &[String], field: &str, problems: &mut Problems) -> Vec<CString> {
    let convert = |(index, text): (usize, &String)| match CString::new(text.as_bytes()) {
        Ok(text) => Some(text),
        Err(_) => {
            problems.push(format!("{field}[{index}]"), "holds a NUL byte");
            None
        }
    };
    texts.iter().enumerate().filter_map(convert).collect()
}

/// The environment with the last value of each name, at the place of its first.
fn environment(entries: &[String], problems: &mut Problems) -> Vec<CString> {
    let mut kept: Vec<String> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => {
                let same =
                    |one: &&mut String| one.split_once('=').is_some_and(|(known, _)| known == name);
                match kept.iter_mut().find(same) {
                    Some(earlier) => earlier.clone_from(entry),
                    None => kept.push(entry.clone()),
                }
            }
            _ => problems.push(
                format!("process.env[{index}]"),
                format!("{entry:?} is not of the form NAME=value"),
            ),
        }
    }
    c_strings(&kept, "process.env", problems)
}

fn capabilities(spec: Option<&spec::Capabilities>, warnings: &mut Vec<String>) -> CapabilityPlan {
    let Some(spec) = spec else {
        return CapabilityPlan::default();
    };
    let mut set = |names: &'_ [String]| {
        names.iter().fold(CapSet::EMPTY, |set, name| {
            // The spec knows only the full, upper-case names; `creds` would take more.
            let number = name
                .starts_with("CAP_")
                .then(|| creds::parse_capability(name))
                .flatten();
            if number.is_none() {
                warnings.push(format!(
                    "process.capabilities: ignoring unknown or unavailable capability {name:?}"
                ));
            }
            number.map_or(set, |number| set.with(number))
        })
    };
    let plan = CapabilityPlan {
        bounding: set(&spec.bounding),
        effective: set(&spec.effective),
        inheritable: set(&spec.inheritable),
        permitted: set(&spec.permitted),
        ambient: set(&spec.ambient),
    };
    warnings.dedup();
    plan
}

fn rlimits(spec: &[spec::Rlimit], problems: &mut Problems) -> Vec<(u32, Rlimit)> {
    let mut plan: Vec<(u32, Rlimit)> = Vec::with_capacity(spec.len());
    for (index, limit) in spec.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        match creds::parse_rlimit(&limit.kind) {
            None => problems.push(
                format!("{field}.type"),
                format!("invalid rlimit type {:?}", limit.kind),
            ),
            Some(number) if plan.iter().any(|(known, _)| *known == number) => {
                problems.push(
                    format!("{field}.type"),
                    format!("duplicate rlimit {}", limit.kind),
                );
            }
            Some(_) if limit.soft > limit.hard => {
                problems.push(
                    field,
                    format!(
                        "soft limit {} is above the hard limit {}",
                        limit.soft, limit.hard
                    ),
                );
            }
            Some(number) => plan.push((
                number,
                Rlimit {
                    soft: limit.soft,
                    hard: limit.hard,
                },
            )),
        }
    }
    plan
}

fn oom_score_adj(value: Option<i32>, problems: &mut Problems) -> Option<i32> {
    let allowed = value.is_none_or(|value| (-1000..=1000).contains(&value));
    problems.require(allowed, "process.oomScoreAdj", "outside -1000 to 1000");
    value
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

fn scheduler(spec: &spec::Scheduler, problems: &mut Problems) -> Option<Scheduler> {
    let Some((_, policy)) = POLICIES.iter().find(|(name, _)| *name == spec.policy) else {
        problems.push(
            "process.scheduler.policy",
            format!("invalid scheduler policy {:?}", spec.policy),
        );
        return None;
    };
    // Real-time policies have no nice value; the kernel does not look at it.
    let nice_ok = !matches!(policy, 0 | 3) || (-20..=19).contains(&spec.nice);
    problems.require(nice_ok, "process.scheduler.nice", "outside -20 to 19");
    let Ok(priority) = u32::try_from(spec.priority) else {
        problems.push("process.scheduler.priority", "negative");
        return None;
    };
    let real_time = matches!(policy, 1 | 2);
    problems.require(
        priority == 0 || real_time,
        "process.scheduler.priority",
        "only for SCHED_FIFO and SCHED_RR",
    );
    let deadline = spec.runtime != 0 || spec.deadline != 0 || spec.period != 0;
    problems.require(
        !deadline || *policy == 6,
        "process.scheduler.runtime",
        "runtime, deadline and period are only for SCHED_DEADLINE",
    );
    let mut flags = 0;
    for name in &spec.flags {
        match SCHEDULER_FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, bit)) => flags |= bit,
            None => problems.push(
                "process.scheduler.flags",
                format!("invalid scheduler flag {name:?}"),
            ),
        }
    }
    Some(Scheduler {
        policy: *policy,
        flags,
        nice: spec.nice,
        priority,
        runtime: spec.runtime,
        deadline: spec.deadline,
        period: spec.period,
        ..Scheduler::default()
    })
}

fn io_priority(spec: &spec::IoPriority, problems: &mut Problems) -> Option<(IoClass, u8)> {
    let class = match spec.class.as_str() {
        "IOPRIO_CLASS_RT" => IoClass::RealTime,
        "IOPRIO_CLASS_BE" => IoClass::BestEffort,
        "IOPRIO_CLASS_IDLE" => IoClass::Idle,
        other => {
            problems.push(
                "process.ioPriority.class",
                format!("invalid io priority class {other:?}"),
            );
            return None;
        }
    };
    match u8::try_from(spec.priority) {
        Ok(level @ 0..=7) => Some((class, level)),
        _ => {
            problems.push(
                "process.ioPriority.priority",
                format!("{} is outside 0 to 7", spec.priority),
            );
            None
        }
    }
}
