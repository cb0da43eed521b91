//! What `exec` runs: the process of a file, or the container's own with the changes of the flags.
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::exe;
use crate::init::lsm;
use crate::plan::{Problems, ProcessPlan};
use crate::spec::{Capabilities, Process, Spec};
use crate::state::State;
use crate::verbs::create;

/// What to run: the file of `--process`, or the container's own process with the flags' changes.
///
/// # Errors
/// A file that cannot be read, every field and flag that is wrong.
pub(super) fn plan(global: &Global, state: &State, parsed: &Parsed) -> Result<ProcessPlan> {
    let mut process = match parsed.get("process") {
        Some(path) => read_process(Path::new(path))?,
        None => from_config(state, parsed)?,
    };
    state.exec_defaults.complete(&mut process);
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let mut plan = ProcessPlan::new(&process, &mut problems, &mut warnings);
    plan.keep_groups(&state.annotations, &mut problems);
    if !parsed.program.is_empty() && parsed.get("process").is_none() {
        // Arguments that are not text go to the program as they came; none of the system's holds a NUL byte.
        plan.args = parsed
            .program
            .iter()
            .filter_map(|argument| CString::new(argument.as_bytes()).ok())
            .collect();
    }
    for warning in warnings {
        global.warn(&warning);
    }
    let plan = problems
        .into_result(plan)
        .map_err(|problems| Error::new(problems.to_string()))?;
    create::check_groups(&plan)?;
    lsm::check(&plan)?;
    Ok(plan)
}

/// A pipe can be read once: where the description of the process comes from one, this program starts again first if it
/// will have to.
///
/// # Errors
/// As [`exe::protect`].
pub(super) fn keep_readable(parsed: &Parsed) -> Result<()> {
    let path = parsed.get("process").map(Path::new);
    let once = path.is_some_and(|path| std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()));
    if once { exe::protect() } else { Ok(()) }
}

fn read_process(path: &Path) -> Result<Process> {
    let text = std::fs::read(path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))
        .within(|| "--process".to_owned())?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(format!("--process {}: {error}", path.display())))
}

fn from_config(state: &State, parsed: &Parsed) -> Result<Process> {
    let path = state
        .config
        .clone()
        .unwrap_or_else(|| state.bundle.join("config.json"));
    let text = std::fs::read(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))?;
    let spec: Spec = serde_json::from_slice(&text)
        .map_err(|error| Error::new(format!("config.json: {error}")))?;
    let mut process = spec
        .process
        .ok_or_else(|| Error::new("config.json: process property must not be empty"))?;
    process.args = parsed.operands.get(1..).unwrap_or_default().to_vec();
    if process.args.is_empty() {
        return Err(
            Error::new("process args cannot be empty").hint("give a COMMAND, or --process FILE")
        );
    }
    process.terminal = parsed.is_on("tty");
    process.console_size = None;
    if let Some(cwd) = parsed.get("cwd").filter(|cwd| !cwd.is_empty()) {
        process.cwd = cwd.to_owned();
    }
    let labels = [
        ("apparmor", &mut process.apparmor_profile),
        ("process-label", &mut process.selinux_label),
    ];
    for (flag, label) in labels {
        if let Some(given) = parsed.get(flag).filter(|given| !given.is_empty()) {
            given.clone_into(label);
        }
    }
    process.env.extend(parsed.all("env").map(str::to_owned));
    if parsed.get("no-new-privs").is_some() {
        process.no_new_privileges = parsed.is_on("no-new-privs");
    }
    if let Some(user) = parsed.get("user") {
        (process.user.uid, process.user.gid) = parse_user(user, process.user.gid)?;
    }
    for gid in parsed.all("additional-gids") {
        process.user.additional_gids.push(
            parse_id(gid)
                .ok_or_else(|| Error::new(format!("--additional-gids: {gid:?} is no group id")))?,
        );
    }
    add_capabilities(&mut process, parsed);
    Ok(process)
}

/// `--cap` adds to every set but the inheritable one, which stays empty (CVE-2022-29162); ambient only what is
/// inheritable already.
fn add_capabilities(process: &mut Process, parsed: &Parsed) {
    let added: Vec<String> = parsed.all("cap").map(str::to_owned).collect();
    if added.is_empty() {
        return;
    }
    let sets = process
        .capabilities
        .get_or_insert_with(Capabilities::default);
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(added.iter().cloned());
    }
    let inheritable = added
        .into_iter()
        .filter(|cap| sets.inheritable.contains(cap));
    sets.ambient.extend(inheritable.collect::<Vec<_>>());
}

/// `UID[:GID]`, numbers only: names would be looked up in files that the container controls.
fn parse_user(text: &str, default_gid: u32) -> Result<(u32, u32)> {
    let invalid = || {
        Error::new(format!(
            "--user: {text:?} is not UID or UID:GID, in numbers"
        ))
    };
    match text.split_once(':') {
        None => Ok((parse_id(text).ok_or_else(invalid)?, default_gid)),
        Some((uid, gid)) => Ok((
            parse_id(uid).ok_or_else(invalid)?,
            parse_id(gid).ok_or_else(invalid)?,
        )),
    }
}

/// An id in decimal digits alone, and not the one that means "unchanged".
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_nothing_else() {
        assert_eq!(parse_user("1", 5).unwrap(), (1, 5));
        assert_eq!(parse_user("1000:100", 5).unwrap(), (1000, 100));
        for bad in [
            "",
            "root",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "1x",
            " 1",
            "4294967295",
            "4294967296",
            "1:2:3",
        ] {
            assert!(parse_user(bad, 0).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_user_that_is_accepted_is_the_number_that_was_written(uid: u32, gid: u32) {
            proptest::prop_assume!(uid != u32::MAX && gid != u32::MAX);
            proptest::prop_assert_eq!(parse_user(&format!("{uid}:{gid}"), 7).unwrap(), (uid, gid));
            proptest::prop_assert_eq!(parse_user(&uid.to_string(), 7).unwrap(), (uid, 7));
        }

        #[test]
        fn no_text_is_taken_for_root_by_mistake(text in ".{0,12}") {
            if let Ok((0, _)) = parse_user(&text, 7) {
                proptest::prop_assert!(text.split(':').next().is_some_and(|uid| uid.bytes().all(|byte| byte == b'0')));
            }
        }
    }
}
