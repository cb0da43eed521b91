//! The built-in network, as configured.

use cni::BuiltinOptions;

use crate::config::NetworkConfig;
use crate::error::{Error, Result};

/// Asks for a range of the machine's own, if the machine has IPv6.
const AUTO: &str = "auto";
const MACHINE_ID: &str = "/etc/machine-id";

pub(super) fn options(config: &NetworkConfig) -> Result<BuiltinOptions> {
    let mut options = BuiltinOptions {
        bridge_name: config.bridge.clone(),
        ..BuiltinOptions::default()
    };
    if options.bridge_name != BuiltinOptions::default().bridge_name {
        // Another bridge is another network: its addresses and rules are its own.
        options.name.clone_from(&options.bridge_name);
    }
    if let Some(subnet) = &config.subnet {
        options.subnet = subnet
            .parse()
            .map_err(|error| bad("subnet", subnet, &error))?;
    }
    options.subnet6 = match config.subnet6.as_deref() {
        None => None,
        Some(AUTO) if !host_has_ipv6() => None,
        Some(AUTO) => {
            let machine = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
            let own = unique_local(&format!("{} {}", machine.trim(), options.name));
            Some(own.parse().map_err(|error| bad("subnet6", &own, &error))?)
        }
        Some(subnet) => Some(
            subnet
                .parse()
                .map_err(|error| bad("subnet6", subnet, &error))?,
        ),
    };
    if let Some(dir) = &config.data_dir {
        options.data_dir.clone_from(dir);
    }
    Ok(options)
}

fn bad(key: &str, subnet: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("network.{key}"), format!("{subnet:?}: {error}"))
}

/// A unique local range (RFC 4193): forty bits that this machine and network always give, so that machines that meet
/// one day have different ones.
fn unique_local(seed: &str) -> String {
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    format!("fd{a:02x}:{b:02x}{c:02x}:{d:02x}{e:02x}::/64")
}

/// Whether any link but loopback has an IPv6 address.
fn host_has_ipv6() -> bool {
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    addresses
        .lines()
        .any(|line| line.split_whitespace().last() != Some("lo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_unique_local_range_and_another_has_another() {
        let mut config = NetworkConfig {
            subnet6: Some("fd00:1::/64".to_owned()),
            ..NetworkConfig::default()
        };
        let configured = options(&config).unwrap().subnet6;
        assert_eq!(
            configured.map(|s| s.to_string()).as_deref(),
            Some("fd00:1::/64")
        );
        config.subnet6 = Some("10.0.0.0/8".to_owned());
        let error = options(&config).unwrap_err().to_string();
        assert!(error.contains("network.subnet6"), "{error}");
        let (one, other) = (unique_local("a davit"), unique_local("b davit"));
        assert!(one.starts_with("fd") && one != other, "{one} {other}");
        assert_eq!(one, unique_local("a davit"));
        config.subnet6 = Some(one);
        options(&config).unwrap();
    }
}
