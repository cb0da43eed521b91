//! What a pod's plugins are told about it: arguments and capabilities, as kubelets' runtimes send them.

use std::path::Path;

use cni::{Attachment, NetworkList};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::{PodConfig, Protocol};
use crate::record::PodRecord;

/// Annotations by which Kubernetes limits a pod's bandwidth.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// What Kubernetes allows there, in bits per second.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// The burst that comes with a rate: as good as none, as elsewhere.
const BURST: u64 = 2_147_483_647;

/// The attachment of a pod.
pub(super) fn of(pod: &PodRecord, netns: &Path, interface: &str) -> Result<Attachment> {
    let meta = &pod.config.metadata;
    let mut attachment = Attachment::new(&pod.id)
        .in_netns(netns)
        .named(interface)
        .with_arg("IgnoreUnknown", "1")
        .with_arg("K8S_POD_NAMESPACE", &meta.namespace)
        .with_arg("K8S_POD_NAME", &meta.name)
        .with_arg("K8S_POD_INFRA_CONTAINER_ID", &pod.id)
        .with_arg("K8S_POD_UID", &meta.uid)
        // The namespace goes with the pod: a plugin that knows this need not wait for the kernel to unregister a
        // link.
        .with_capability("netnsDies", true.into())
        .with_capability(
            "io.kubernetes.cri.pod-annotations",
            json!(pod.config.annotations),
        );
    for (name, value) in [
        ("portMappings", port_mappings(&pod.config)),
        ("bandwidth", bandwidth(&pod.config)?),
        ("dns", dns(&pod.config)),
        ("cgroupPath", cgroup(pod)),
    ] {
        if let Some(value) = value {
            attachment = attachment.with_capability(name, value);
        }
    }
    Ok(attachment)
}

/// What the pod asks for and no plugin of the network takes, in words. Not an error: some networks have their own way
/// to learn of it.
pub(super) fn ignored(attachment: &Attachment, network: &NetworkList) -> Vec<&'static str> {
    let taken = network.capabilities();
    [("portMappings", "host ports"), ("bandwidth", "bandwidth")]
        .into_iter()
        .filter(|(name, _)| attachment.capability_args.contains_key(*name) && !taken.contains(name))
        .map(|(_, words)| words)
        .collect()
}

fn port_mappings(config: &PodConfig) -> Option<Value> {
    let mapped: Vec<Value> = config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port > 0)
        .map(|mapping| {
            json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": match mapping.protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                },
                "hostIP": mapping.host_ip,
            })
        })
        .collect();
    (!mapped.is_empty()).then_some(Value::Array(mapped))
}

fn bandwidth(config: &PodConfig) -> Result<Option<Value>> {
    let mut limits = serde_json::Map::new();
    for (annotation, rate, burst) in [
        (INGRESS, "ingressRate", "ingressBurst"),
        (EGRESS, "egressRate", "egressBurst"),
    ] {
        let Some(text) = config.annotations.get(annotation) else {
            continue;
        };
        let bits = quantity(text)
            .filter(|bits| RATES.contains(bits))
            .ok_or_else(|| {
                Error::invalid(
                    format!("annotations[{annotation:?}]"),
                    format!("{text:?} is not a rate between 1k and 1P bits per second"),
                )
            })?;
        limits.insert(rate.to_owned(), bits.into());
        limits.insert(burst.to_owned(), BURST.into());
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// A Kubernetes quantity, `1M`, `1.5Gi`, `1e6`; rounded up to whole ones.
fn quantity(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 12] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, u128::from(*factor))))
        .or_else(|| {
            let (number, exponent) = text.split_once(['e', 'E'])?;
            Some((number, 10u128.checked_pow(exponent.parse().ok()?)?))
        })
        .unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || number.len() <= usize::from(number.contains('.')) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value: u128 = format!("{whole}{fraction}").parse().ok()?;
    u64::try_from(value.checked_mul(factor)?.div_ceil(scale)).ok()
}

fn dns(config: &PodConfig) -> Option<Value> {
    let dns = config.dns.as_ref()?;
    Some(json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}))
}

fn cgroup(pod: &PodRecord) -> Option<Value> {
    (!pod.cgroup_parent.is_empty()).then(|| pod.cgroup_parent.clone().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortMapping;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1M", Some(1_000_000)),
            ("10Mi", Some(10 << 20)),
            ("1.5k", Some(1_500)),
            ("2e6", Some(2_000_000)),
            ("1000", Some(1000)),
            ("0.0001k", Some(1)),
            ("", None),
            (".", None),
            ("k", None),
            ("-1M", None),
            ("1MM", None),
            ("1e99", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(quantity(text), expected, "{text:?}");
        }
    }

    #[test]
    fn limits_become_the_capability_and_a_bad_one_names_its_annotation() {
        let mut config = PodConfig::default();
        assert_eq!(bandwidth(&config).unwrap(), None);
        config.annotations.insert(INGRESS.into(), "10M".into());
        assert_eq!(
            bandwidth(&config).unwrap(),
            Some(json!({"ingressRate": 10_000_000, "ingressBurst": BURST}))
        );
        config.annotations.insert(EGRESS.into(), "1".into());
        let error = bandwidth(&config).unwrap_err().to_string();
        assert!(
            error.contains(EGRESS) && error.contains("between 1k and 1P"),
            "{error}"
        );
    }

    #[test]
    fn only_ports_of_the_host_are_mapped() {
        let mut config = PodConfig {
            port_mappings: vec![PortMapping {
                container_port: 80,
                ..PortMapping::default()
            }],
            ..PodConfig::default()
        };
        assert_eq!(port_mappings(&config), None);
        config.port_mappings.push(PortMapping {
            protocol: Protocol::Sctp,
            container_port: 80,
            host_port: 8080,
            host_ip: "127.0.0.1".into(),
        });
        assert_eq!(
            port_mappings(&config),
            Some(
                json!([{"hostPort": 8080, "containerPort": 80, "protocol": "sctp", "hostIP": "127.0.0.1"}])
            )
        );
    }
}
