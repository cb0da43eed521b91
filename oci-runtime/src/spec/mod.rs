//! `config.json` as the runtime spec 1.3 has it, no more than this runtime acts upon.
//!
//! Unknown properties are ignored, as the spec demands. Properties that are known but not supported yet are read as
//! [`Presence`], so that the plan can refuse them by name.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md>
mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

pub use linux::{
    Device, DeviceCgroup, IdMapping, Linux, MemoryPolicy, Namespace, NetDevice, Personality,
    Resources, ResourcesCpu, ResourcesMemory, ResourcesPids, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User,
};
pub use resources::{
    HugepageLimit, IntelRdt, InterfacePriority, RdmaLimit, ResourcesBlockIo, ResourcesNetwork,
    ThrottleDevice, WeightDevice,
};
pub use seccomp::{Seccomp, SeccompArg, SeccompRule, SyscallName};

/// The whole document.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of the spec that it follows.
    #[serde(default)]
    pub oci_version: String,
    /// What to run.
    pub process: Option<Process>,
    /// The root filesystem.
    pub root: Option<RootFs>,
    /// Host name in a new UTS namespace.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hostname: String,
    /// NIS domain name in a new UTS namespace.
    #[serde(default, deserialize_with = "null_is_default")]
    pub domainname: String,
    /// Mounts, in order.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of the lifecycle.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hooks: Hooks,
    /// Free text for whoever reads the state.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(default, deserialize_with = "null_is_default")]
    pub linux: Linux,
    /// Another platform.
    #[serde(default)]
    pub vm: Presence,
    /// Another platform.
    #[serde(default)]
    pub windows: Presence,
    /// Another platform.
    #[serde(default)]
    pub solaris: Presence,
}

/// `root`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootFs {
    /// A directory, relative to the bundle or absolute.
    #[serde(default)]
    pub path: String,
    /// Whether the container may not write to it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, in the container.
    #[serde(default)]
    pub destination: String,
    /// The type of the filesystem; of no meaning for bind mounts.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub fs_type: String,
    /// What.
    #[serde(default, deserialize_with = "null_is_default")]
    pub source: String,
    /// fstab options.
    #[serde(default, deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    /// Owners as the container sees them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups as the container sees them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `hooks`
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// After the namespaces exist, before the root is changed (the old name of `createRuntime`).
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub prestart: Vec<Hook>,
    /// After `prestart`, in the runtime's namespaces.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_runtime: Vec<Hook>,
    /// As `createRuntime`, in the container's namespaces.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_container: Vec<Hook>,
    /// In the container, right before its program.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub start_container: Vec<Hook>,
    /// After the container's program has been started.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststart: Vec<Hook>,
    /// After the container is deleted.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Hook {
    /// The program, absolute.
    #[serde(default)]
    pub path: String,
    /// Its arguments, the first being its own name.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Seconds until it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Reads `null` as the default: Go programs write it for empty lists and maps.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a property asks for something: not for `null`, `false`, `0`, `""`, nor for a list or an object all of
/// whose members ask for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence(pub bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Presence;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Presence, E> {
                Ok(Presence(false))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Presence, E> {
                Ok(Presence(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Presence, E> {
                Ok(Presence(value != 0))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Presence, E> {
                Ok(Presence(value != 0))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Presence, E> {
                Ok(Presence(value != 0.0))
            }
            fn visit_str<E>(self, value: &str) -> Result<Presence, E> {
                Ok(Presence(!value.is_empty()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Presence, A::Error> {
                let mut any = false;
                while let Some(Presence(one)) = seq.next_element()? {
                    any |= one;
                }
                Ok(Presence(any))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Presence, A::Error> {
                let mut any = false;
                while let Some((_, Presence(one))) = map.next_entry::<IgnoredAny, Presence>()? {
                    any |= one;
                }
                Ok(Presence(any))
            }
        }
        deserializer.deserialize_any(Look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_an_empty_list_as_go_writes_it() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"linux":null,"annotations":null}"#,
        )
        .unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.namespaces.is_empty());
    }

    #[test]
    fn unknown_properties_are_ignored() {
        let spec: Spec =
            serde_json::from_str(r#"{"future":{"a":[1]},"root":{"path":"r","new":1}}"#).unwrap();
        assert_eq!(spec.root.unwrap().path, "r");
    }

    #[test]
    fn a_duplicate_property_is_an_error() {
        let error = serde_json::from_str::<Spec>(r#"{"hostname":"a","hostname":"b"}"#).unwrap_err();
        assert!(
            error.to_string().contains("duplicate field `hostname`"),
            "{error}"
        );
    }

    #[test]
    fn presence_means_asking_for_something() {
        for nothing in ["null", "{}", "[]", "\"\"", "0", "false", r#"{"weight":0}"#] {
            assert_eq!(
                serde_json::from_str::<Presence>(nothing).unwrap(),
                Presence(false),
                "{nothing}"
            );
        }
        for something in [
            r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#,
            "[1]",
            "\"x\"",
            "-1",
            "true",
        ] {
            assert_eq!(
                serde_json::from_str::<Presence>(something).unwrap(),
                Presence(true),
                "{something}"
            );
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_its_place() {
        let text = r#"{"linux":{"resources":{"memory":{"limit":99999999999999999999}}}}"#;
        assert!(
            serde_json::from_str::<Spec>(text)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }
}
