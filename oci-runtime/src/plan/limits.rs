//! The rarer limits of `linux.resources` in the terms of `sys::cgroup`: block devices, huge pages, network, RDMA.
use std::collections::BTreeMap;

use sys::cgroup::{
    BlockIo, HugepageLimit, Network, RdmaLimit, Throttle, ThrottleKind, WeightDevice,
};

use super::Problems;
use crate::spec;

/// The weights that the specification knows.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Converts `blockIO`; `field` is its name for messages.
pub(super) fn block_io(
    spec: &spec::ResourcesBlockIo,
    field: &str,
    problems: &mut Problems,
) -> BlockIo {
    let weight = weight(spec.weight, &format!("{field}.weight"), problems);
    let leaf_weight = self::weight(spec.leaf_weight, &format!("{field}.leafWeight"), problems);
    let mut weight_devices = Vec::new();
    for (index, device) in spec.weight_device.iter().enumerate() {
        let field = format!("{field}.weightDevice[{index}]");
        let Some((major, minor)) = numbers(device.major, device.minor, &field, problems) else {
            continue;
        };
        weight_devices.push(WeightDevice {
            major,
            minor,
            weight: self::weight(device.weight, &format!("{field}.weight"), problems),
            leaf_weight: self::weight(device.leaf_weight, &format!("{field}.leafWeight"), problems),
        });
    }
    let lists = [
        (
            &spec.throttle_read_bps_device,
            ThrottleKind::ReadBps,
            "throttleReadBpsDevice",
        ),
        (
            &spec.throttle_write_bps_device,
            ThrottleKind::WriteBps,
            "throttleWriteBpsDevice",
        ),
        (
            &spec.throttle_read_iops_device,
            ThrottleKind::ReadIops,
            "throttleReadIOPSDevice",
        ),
        (
            &spec.throttle_write_iops_device,
            ThrottleKind::WriteIops,
            "throttleWriteIOPSDevice",
        ),
    ];
    let mut throttles = Vec::new();
    for (list, kind, name) in lists {
        for (index, one) in list.iter().enumerate() {
            let field = format!("{field}.{name}[{index}]");
            if let Some((major, minor)) = numbers(one.major, one.minor, &field, problems) {
                throttles.push(Throttle {
                    kind,
                    major,
                    minor,
                    rate: one.rate,
                });
            }
        }
    }
    BlockIo {
        weight,
        leaf_weight,
        weight_devices,
        throttles,
    }
}

/// 0 is "not set", as podman and docker write it.
fn weight(value: Option<u16>, field: &str, problems: &mut Problems) -> Option<u16> {
    let value = value.filter(|weight| *weight != 0)?;
    problems.require(
        WEIGHTS.contains(&value),
        field,
        &format!("{value} is not between 10 and 1000"),
    );
    Some(value)
}

fn numbers(major: i64, minor: i64, field: &str, problems: &mut Problems) -> Option<(u32, u32)> {
    let both = u32::try_from(major).ok().zip(u32::try_from(minor).ok());
    problems.require(
        both.is_some(),
        field,
        &format!("no such device number {major}:{minor}"),
    );
    both
}

/// Converts `hugepageLimits`.
pub(super) fn hugepages(
    limits: &[spec::HugepageLimit],
    field: &str,
    problems: &mut Problems,
) -> Vec<HugepageLimit> {
    let one = |(index, limit): (usize, &spec::HugepageLimit)| {
        problems.require(
            is_page_size(&limit.page_size),
            &format!("{field}[{index}].pageSize"),
            &format!("{:?} is no size such as 64KB, 2MB or 1GB", limit.page_size),
        );
        HugepageLimit {
            size: limit.page_size.clone(),
            limit: limit.limit,
        }
    };
    limits.iter().enumerate().map(one).collect()
}

/// `<size><unit-prefix>B`: it becomes a part of a file's name.
fn is_page_size(text: &str) -> bool {
    let number = text.strip_suffix('B').unwrap_or_default();
    let number = number.strip_suffix(['K', 'M', 'G']).unwrap_or(number);
    !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !number.starts_with('0')
}

/// Converts `network`.
pub(super) fn network(
    spec: &spec::ResourcesNetwork,
    field: &str,
    problems: &mut Problems,
) -> Network {
    for (index, one) in spec.priorities.iter().enumerate() {
        problems.require(
            is_word(&one.name),
            &format!("{field}.priorities[{index}].name"),
            &format!("{:?} is not the name of an interface", one.name),
        );
    }
    let priorities = spec.priorities.iter();
    Network {
        // 0 is the class of what has none.
        class_id: spec.class_id.filter(|class| *class != 0),
        priorities: priorities
            .map(|one| (one.name.clone(), one.priority))
            .collect(),
    }
}

/// Converts `rdma`.
pub(super) fn rdma(
    spec: &BTreeMap<String, spec::RdmaLimit>,
    field: &str,
    problems: &mut Problems,
) -> Vec<RdmaLimit> {
    let one = |(device, limit): (&String, &spec::RdmaLimit)| {
        let field = format!("{field}[{device:?}]");
        problems.require(is_word(device), &field, "not the name of a device");
        problems.require(
            limit.hca_handles.is_some() || limit.hca_objects.is_some(),
            &field,
            "neither hcaHandles nor hcaObjects is set",
        );
        RdmaLimit {
            device: device.clone(),
            handles: limit.hca_handles,
            objects: limit.hca_objects,
        }
    };
    spec.iter().map(one).collect()
}

/// One word: these files separate their fields by spaces.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let spec: spec::Resources = serde_json::from_str(text).unwrap();
        let mut problems = Problems::default();
        super::super::cgroup::resources(&spec, "1.3.0", "linux.resources", &mut problems);
        problems
            .list()
            .iter()
            .map(|problem| problem.field.clone())
            .collect()
    }

    #[test]
    fn bad_values_are_reported_by_their_fields() {
        let text = r#"{
            "blockIO": {
                "weight": 9, "leafWeight": 1001,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 5}, {"major": -1, "minor": 0}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 4294967296, "rate": 1}]
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "../x", "limit": 1}],
            "network": {"priorities": [{"name": "eth 0", "priority": 1}]},
            "rdma": {"mlx5_1": {}, "a b": {"hcaHandles": 1}}
        }"#;
        assert_eq!(
            problems_of(text),
            [
                "linux.resources.blockIO.weight",
                "linux.resources.blockIO.leafWeight",
                "linux.resources.blockIO.weightDevice[0].weight",
                "linux.resources.blockIO.weightDevice[1]",
                "linux.resources.blockIO.throttleReadBpsDevice[0]",
                "linux.resources.hugepageLimits[1].pageSize",
                "linux.resources.network.priorities[0].name",
                "linux.resources.rdma[\"a b\"]",
                "linux.resources.rdma[\"mlx5_1\"]",
            ]
        );
    }

    #[test]
    fn nothing_is_no_limit_in_every_way_that_go_writes_it() {
        let text = r#"{"blockIO": {"weight": 0, "weightDevice": null}, "hugepageLimits": null, "network": {"classID": 0}, "rdma": null}"#;
        let spec: spec::Resources = serde_json::from_str(text).unwrap();
        let mut problems = Problems::default();
        let made = super::super::cgroup::resources(&spec, "1.3.0", "r", &mut problems);
        assert_eq!(made, sys::cgroup::Resources::default());
        assert!(problems.list().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn a_page_size_never_leads_out_of_its_directory(text in ".{0,8}|[0-9]{1,4}[KMG]?B") {
            if is_page_size(&text) {
                proptest::prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                proptest::prop_assert!(text.ends_with('B'));
            }
        }
    }
}
