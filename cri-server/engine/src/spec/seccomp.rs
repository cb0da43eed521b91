//! Seccomp profiles: the built-in one, and files of the node.
//!
//! The built-in profile depends on the container's capabilities: who may mount may also call mount(2). A file holds
//! the `linux.seccomp` object of <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>,
//! which is what Kubernetes' users write.

mod calls;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use crate::error::{Error, Result};
use crate::model::{ProfileKind, SecurityProfile};

const FIELD: &str = "linux.security_context.seccomp";

/// The most that is read of a profile: Docker's largest has some 15 kB.
const LIMIT: u64 = 1 << 20;

/// `CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET`: what clone(2) may not ask for.
const CLONE_NEW: u64 = 0x7e02_0000;

/// `AF_VSOCK`: a way to the hypervisor, and to other containers.
const AF_VSOCK: u64 = 40;

/// The personalities that programs use: none, `UNAME26`, `ADDR_NO_RANDOMIZE` and both; and the question.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter for `profile` on a container with these capabilities; `None` is no filter.
///
/// # Errors
/// A file that is not there, is too large, or holds no profile.
pub(crate) fn filter(
    profile: Option<&SecurityProfile>,
    capabilities: Option<&HashSet<Capability>>,
) -> Result<Option<LinuxSeccomp>> {
    let Some(profile) = profile else {
        return Ok(None);
    };
    match profile.kind {
        ProfileKind::Unconfined => Ok(None),
        ProfileKind::RuntimeDefault => {
            let has = |one: Capability| capabilities.is_some_and(|all| all.contains(&one));
            let built = built_in(has);
            built
                .map(Some)
                .map_err(|error| Error::Internal(format!("the built-in seccomp profile: {error}")))
        }
        ProfileKind::Localhost => from_file(&profile.localhost_ref).map(Some),
    }
}

/// The profile in a file of the node.
fn from_file(reference: &str) -> Result<LinuxSeccomp> {
    let wrong = |problem: String| Error::invalid(FIELD, problem);
    let path = Path::new(reference);
    if !path.is_absolute() {
        return Err(wrong(format!(
            "profile {reference:?} is no absolute path of a file on the node"
        )));
    }
    let text = read(path).map_err(|error| wrong(format!("profile {reference:?}: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| {
        wrong(format!(
            "profile {reference:?} is no seccomp profile of the OCI runtime specification: {error}"
        ))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let system = |error: std::io::Error| sys::Error::from_io(&error, "open").to_string();
    // A FIFO in its place must not block.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(system)?;
    if !file.metadata().map_err(system)?.is_file() {
        return Err("not a regular file".into());
    }
    let mut text = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(system)?;
    if text.len() as u64 > LIMIT {
        return Err(format!("larger than {LIMIT} bytes"));
    }
    Ok(text)
}

/// The built-in profile: what is not named gives EPERM.
fn built_in(has: impl Fn(Capability) -> bool) -> Result<LinuxSeccomp, OciSpecError> {
    let mut rules = vec![allow(calls::ALWAYS, None)?];
    let argument = |value, op| argument(value, None, op);
    rules.push(allow(
        "socket",
        Some(argument(AF_VSOCK, LinuxSeccompOperator::ScmpCmpNe)?),
    )?);
    for value in PERSONALITIES {
        let is = argument(value, LinuxSeccompOperator::ScmpCmpEq)?;
        rules.push(allow("personality", Some(is))?);
    }
    if cfg!(target_arch = "x86_64") {
        rules.push(allow("arch_prctl modify_ldt", None)?);
    }
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) {
        let names =
            "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";
        rules.push(allow(names, None)?);
    }
    for (_, names) in calls::WITH.iter().filter(|(one, _)| has(*one)) {
        rules.push(allow(names, None)?);
    }
    if !has(Capability::SysAdmin) {
        rules.extend(no_new_namespaces()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(architectures())
        .syscalls(rules)
        .build()
}

/// clone without new namespaces, and no clone3: a filter cannot look behind its pointer. ENOSYS has programs fall
/// back to clone.
fn no_new_namespaces() -> Result<[LinuxSyscall; 2], OciSpecError> {
    let none = argument(CLONE_NEW, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
    let clone3 = LinuxSyscallBuilder::default()
        .names(["clone3".to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(nix::errno::Errno::ENOSYS as u32)
        .build()?;
    Ok([allow("clone", Some(none))?, clone3])
}

fn allow(names: &str, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let rule = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => rule.args([argument]).build(),
        None => rule.build(),
    }
}

/// A condition on the first argument.
fn argument(
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let condition = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(op);
    match value_two {
        Some(two) => condition.value_two(two).build(),
        None => condition.build(),
    }
}

/// The machine's own architecture and those that its kernel runs beside it.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}
