//! Labels of SELinux for what is mounted.
use std::collections::BTreeMap;

use super::{MountPlan, MountSource, Problems};

/// Which mount option carries the label; crun has the same annotation.
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// The label of new mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLabel {
    /// `context`, `fscontext`, `defcontext` or `rootcontext`.
    pub option: &'static str,
    /// The label.
    pub label: String,
}

impl MountLabel {
    /// Decides on `linux.mountLabel`; nothing where there is none.
    pub fn new(
        label: &str,
        annotations: &BTreeMap<String, String>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if label.is_empty() {
            return None;
        }
        problems.require(
            !label.contains('\0'),
            "linux.mountLabel",
            "holds a NUL byte",
        );
        let asked = annotations
            .get(CONTEXT_TYPE)
            .map_or("context", String::as_str);
        let known = ["context", "fscontext", "defcontext", "rootcontext"];
        let Some(option) = known.into_iter().find(|known| *known == asked) else {
            problems.push(
                format!("annotations[{CONTEXT_TYPE:?}]"),
                format!("{asked:?} is not one of {}", known.join(", ")),
            );
            return None;
        };
        Some(Self {
            option,
            label: label.to_owned(),
        })
    }

    /// Gives the label to the mounts that take it as an option: new filesystems, but for those of which all mounts are
    /// one (procfs, sysfs, cgroups) or which only take it as an attribute (mqueue).
    pub fn add_to(&self, mounts: &mut [MountPlan]) {
        for mount in mounts {
            if let MountSource::New { fs_type, .. } = &mount.source
                && !matches!(fs_type.as_str(), "proc" | "sysfs" | "mqueue")
            {
                mount
                    .options
                    .data
                    .push(format!("{}={}", self.option, self.label));
            }
        }
    }
}
