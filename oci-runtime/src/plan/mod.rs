//! From a `config.json` to a [`Plan`]: every decision made, nothing done yet.
//!
//! A plan has no option that its executor would have to check again, and making one touches nothing: a bad
//! configuration leaves nothing behind. Every bad field is reported, each by its name.
pub mod cgroup;
pub mod devices;
pub mod exec_defaults;
pub mod execution;
pub mod idmap;
pub mod labels;
mod limits;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod numbers;
pub mod options;
mod problem;
pub mod process;
mod rdt;
pub mod sysctl;
pub mod systemd;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fields;
pub mod time;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sys::mount::Propagation;
use sys::namespace::NamespaceKind;

use crate::seccomp::{self, SeccompPlan};
use crate::spec::{Hook, Hooks, Spec};

pub use cgroup::{CgroupPlan, Manager};
pub use devices::DevicePlan;
pub use exec_defaults::ExecDefaults;
pub use execution::ExecutionPlan;
pub use idmap::IdMapPlan;
pub use labels::MountLabel;
pub use mounts::{MountPlan, MountSource};
pub use namespaces::NamespacePlan;
pub use net_devices::NetDevicePlan;
pub use options::MountOptions;
pub use problem::{Problem, Problems};
pub use process::{AffinityPlan, CapabilityPlan, ProcessPlan};
pub use sysctl::SysctlPlan;
pub use systemd::SystemdPlan;

/// A container, every decision made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The version of the spec that the configuration follows.
    pub oci_version: String,
    /// The directory of the bundle, absolute.
    pub bundle: PathBuf,
    /// The directory of the root filesystem, absolute.
    pub rootfs: PathBuf,
    /// Whether the container may not write to it.
    pub readonly_rootfs: bool,
    /// `linux.rootfsPropagation`: the type, and whether for everything below.
    pub rootfs_propagation: Option<(Propagation, bool)>,
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// Mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes.
    pub devices: Vec<DevicePlan>,
    /// Whether `/dev` is ours to fill (not a bind mount of the caller's).
    pub fill_dev: bool,
    /// Paths that read as empty.
    pub masked: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly: Vec<PathBuf>,
    /// Host name, empty for none.
    pub hostname: String,
    /// NIS domain name, empty for none.
    pub domainname: String,
    /// Kernel parameters.
    pub sysctl: Vec<SysctlPlan>,
    /// The container's process.
    pub process: ProcessPlan,
    /// The filter of system calls.
    pub seccomp: Option<SeccompPlan>,
    /// Execution domain and memory policy of all processes.
    pub execution: ExecutionPlan,
    /// What later processes have as the first one has it.
    pub exec_defaults: ExecDefaults,
    /// Interfaces that move into the network namespace.
    pub net_devices: Vec<NetDevicePlan>,
    /// What is written into `timens_offsets` of a new time namespace, empty for none.
    pub time_offsets: String,
    /// SELinux label of new mounts.
    pub mount_label: Option<MountLabel>,
    /// Programs to run at points of the lifecycle.
    pub hooks: Hooks,
    /// The cgroup and its limits.
    pub cgroup: CgroupPlan,
    /// Shares of caches and memory bandwidth.
    pub rdt: Option<sys::resctrl::Request>,
    /// Free text for whoever reads the state.
    pub annotations: BTreeMap<String, String>,
    /// What is odd but not wrong.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Decides on everything that `spec` says, for the container `id` of the bundle in the directory `bundle`.
    ///
    /// # Errors
    /// Every field that is wrong or not supported.
    pub fn new(id: &str, bundle: &Path, spec: &Spec) -> Result<Self, Problems> {
        Self::with_manager(Manager::default(), id, bundle, spec)
    }

    /// As [`Plan::new`], with this manager of cgroups.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn with_manager(
        manager: Manager,
        id: &str,
        bundle: &Path,
        spec: &Spec,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        check_version(&spec.oci_version, &mut problems);
        refuse_unsupported(spec, &mut problems);

        let namespaces = NamespacePlan::new(&spec.linux, &mut problems);
        let (rootfs, readonly_rootfs) = rootfs(spec, bundle, &mut problems);
        let propagation = &spec.linux.rootfs_propagation;
        let mut rootfs_propagation = options::parse_propagation(propagation);
        let known = propagation.is_empty() || rootfs_propagation.is_some();
        problems.require(
            known,
            "linux.rootfsPropagation",
            &format!("unknown propagation {propagation:?}"),
        );

        let mounts = plan_mounts(spec, bundle, &namespaces, &mut problems, &mut warnings);
        let mount_label =
            MountLabel::new(&spec.linux.mount_label, &spec.annotations, &mut problems);
        let fill_dev = !mounts.iter().any(|mount| {
            mount.destination == Path::new("/dev")
                && matches!(mount.source, MountSource::Bind { .. })
        });
        if !namespaces.is_new(NamespaceKind::Mnt) {
            let propagation = &mut rootfs_propagation;
            mounts::share(&mounts, propagation, &mut problems, &mut warnings);
        }
        check_names(spec, &namespaces, &mut problems);
        let sysctl = sysctl::plan(
            &spec.linux.sysctl,
            &namespaces,
            !spec.hostname.is_empty(),
            &mut problems,
        );
        let default_process = Default::default();
        let process = spec.process.as_ref().unwrap_or(&default_process);
        problems.require(
            spec.process.is_some(),
            "process",
            "process property must not be empty",
        );
        let execution = ExecutionPlan::new(&spec.linux, &mut problems);
        let exec_defaults = ExecDefaults::new(process, execution.clone());
        let mut process = ProcessPlan::new(process, &mut problems, &mut warnings);
        process.keep_groups(&spec.annotations, &mut problems);
        namespaces.check_user(&process, &mut problems);
        check_hooks(&spec.hooks, &mut problems);
        let net_devices = net_devices::plan(&spec.linux.net_devices, &namespaces, &mut problems);
        let time_offsets = time::plan(&spec.linux.time_offsets, &namespaces, &mut problems);
        warnings.extend(cgroup::warning(&spec.linux.resources).map(str::to_owned));
        let seccomp = seccomp::plan(
            spec.linux.seccomp.as_ref(),
            &spec.annotations,
            &mut problems,
        );
        let cgroup = cgroup::plan(manager, id, spec, &mut problems);
        let paths = |list: &[String], field: &str, problems: &mut Problems| {
            let absolute = list
                .iter()
                .all(|path| path.starts_with('/') && !path.contains('\0'));
            problems.require(absolute, field, "every path must be absolute");
            list.iter()
                .map(|path| mounts::clean_absolute(Path::new(path)))
                .collect::<Vec<_>>()
        };
        let masked = paths(&spec.linux.masked_paths, "linux.maskedPaths", &mut problems);
        let readonly = paths(
            &spec.linux.readonly_paths,
            "linux.readonlyPaths",
            &mut problems,
        );
        let devices = devices::plan(&spec.linux.devices, &mut problems);
        let rdt = rdt::plan(spec.linux.intel_rdt.as_ref(), &mut problems);
        let Some(mut cgroup) = problems.into_result(cgroup)? else {
            return Err(Problems::default());
        };
        cgroup.owner = cgroup::owner(&namespaces, &mounts, process.uid);

        Ok(Self {
            oci_version: spec.oci_version.clone(),
            bundle: bundle.to_owned(),
            rootfs,
            readonly_rootfs,
            rootfs_propagation,
            namespaces,
            mounts,
            devices,
            fill_dev,
            masked,
            readonly,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            sysctl,
            process,
            seccomp,
            execution,
            exec_defaults,
            net_devices,
            time_offsets,
            mount_label,
            hooks: spec.hooks.clone(),
            cgroup,
            rdt,
            annotations: spec.annotations.clone(),
            warnings,
        })
    }
}

fn check_version(version: &str, problems: &mut Problems) {
    // Every 1.x is compatible by the rules of semantic versioning; 1.0.0-rc… and …-dev are 1.x as well.
    let known = version.split('.').next() == Some("1") && version.split('.').count() >= 2;
    problems.require(
        known,
        "ociVersion",
        &format!("unsupported version {version:?}, this runtime knows 1.x"),
    );
}

/// crun's annotation for old systemds in containers of hosts with cgroup v2.
const FORCE_V1: &str = "run.oci.systemd.force_cgroup_v1";

fn refuse_unsupported(spec: &Spec, problems: &mut Problems) {
    let fields = [
        (spec.vm.0, "vm"),
        (spec.windows.0, "windows"),
        (spec.solaris.0, "solaris"),
    ];
    for (asked, field) in fields {
        problems.require(!asked, field, "not supported yet");
    }
    let asked = spec.annotations.contains_key(FORCE_V1);
    problems.require(
        !asked,
        &format!("annotations[{FORCE_V1:?}]"),
        "not supported: a container sees the version of cgroups that its host has",
    );
}

fn rootfs(spec: &Spec, bundle: &Path, problems: &mut Problems) -> (PathBuf, bool) {
    let Some(root) = &spec.root else {
        problems.push("root", "root property must not be empty");
        return (PathBuf::new(), false);
    };
    problems.require(!root.path.is_empty(), "root.path", "must not be empty");
    problems.require(!root.path.contains('\0'), "root.path", "holds a NUL byte");
    let path = bundle.join(&root.path);
    problems.require(
        path != Path::new("/"),
        "root.path",
        "the root of the host cannot be a container's root",
    );
    (path, root.readonly)
}

fn plan_mounts(
    spec: &Spec,
    bundle: &Path,
    users: &NamespacePlan,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Vec<MountPlan> {
    let one = |(index, mount)| MountPlan::new(index, mount, bundle, users, problems, warnings);
    spec.mounts.iter().enumerate().filter_map(one).collect()
}

fn check_names(spec: &Spec, namespaces: &NamespacePlan, problems: &mut Problems) {
    for (name, field) in [
        (&spec.hostname, "hostname"),
        (&spec.domainname, "domainname"),
    ] {
        let uts = name.is_empty() || namespaces.has(NamespaceKind::Uts);
        problems.require(
            uts,
            field,
            "cannot be set without a UTS namespace of its own",
        );
        problems.require(name.len() <= 64, field, "longer than 64 bytes");
        problems.require(!name.contains('\0'), field, "holds a NUL byte");
    }
}

fn check_hooks(hooks: &Hooks, problems: &mut Problems) {
    let lists: [(&str, &[Hook]); 6] = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().enumerate() {
            let field = format!("hooks.{name}[{index}]");
            let absolute = hook.path.starts_with('/');
            problems.require(
                absolute,
                &format!("{field}.path"),
                &format!("{:?} is not an absolute path", hook.path),
            );
            let timeout = hook.timeout.is_none_or(|timeout| timeout > 0);
            problems.require(
                timeout,
                &format!("{field}.timeout"),
                "must be greater than zero",
            );
            let mut texts = std::iter::once(&hook.path)
                .chain(&hook.args)
                .chain(&hook.env);
            problems.require(
                !texts.any(|text| text.contains('\0')),
                &field,
                "holds a NUL byte",
            );
        }
    }
}
