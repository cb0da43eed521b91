//! The rarer parts of `linux.resources`, and `linux.intelRdt`.
use super::null_is_default;

/// `linux.resources.blockIO`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesBlockIo {
    /// Weight against other cgroups, 10 to 1000.
    pub weight: Option<u16>,
    /// Weight against the cgroup's own children, cgroup v1.
    pub leaf_weight: Option<u16>,
    /// The same for single devices.
    #[serde(default, deserialize_with = "null_is_default")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes read per second.
    #[serde(default, deserialize_with = "null_is_default")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes written per second.
    #[serde(default, deserialize_with = "null_is_default")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads per second.
    #[serde(
        default,
        rename = "throttleReadIOPSDevice",
        deserialize_with = "null_is_default"
    )]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes per second.
    #[serde(
        default,
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "null_is_default"
    )]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// One of `weightDevice`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightDevice {
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Weight against other cgroups.
    pub weight: Option<u16>,
    /// Weight against the cgroup's own children.
    pub leaf_weight: Option<u16>,
}

/// One of the lists of throttles.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct ThrottleDevice {
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Per second.
    #[serde(default)]
    pub rate: u64,
}

/// One of `linux.resources.hugepageLimits`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// The size of the pages, such as `2MB`.
    #[serde(default)]
    pub page_size: String,
    /// Bytes.
    #[serde(default)]
    pub limit: u64,
}

/// `linux.resources.network`, cgroup v1.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct ResourcesNetwork {
    /// The class of the container's packets.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// The priority of its packets on interfaces.
    #[serde(default, deserialize_with = "null_is_default")]
    pub priorities: Vec<InterfacePriority>,
}

/// One of `linux.resources.network.priorities`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct InterfacePriority {
    /// The interface.
    #[serde(default)]
    pub name: String,
    /// Its priority.
    #[serde(default)]
    pub priority: u32,
}

/// One of `linux.resources.rdma`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RdmaLimit {
    /// The most handles.
    pub hca_handles: Option<u32>,
    /// The most objects.
    pub hca_objects: Option<u32>,
}

/// `linux.intelRdt`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    /// The class of service; the container's id where empty.
    #[serde(default, rename = "closID", deserialize_with = "null_is_default")]
    pub clos_id: String,
    /// Lines of the file `schemata`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub schemata: Vec<String>,
    /// A line for the L3 cache.
    #[serde(default, deserialize_with = "null_is_default")]
    pub l3_cache_schema: String,
    /// A line for memory bandwidth.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mem_bw_schema: String,
    /// Whether the container gets a monitoring group of its own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub enable_monitoring: bool,
}
