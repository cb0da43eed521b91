//! Names and addresses that are always the same for the same attachment, so that whoever cleans up after a crash
//! knows what to look for.
use std::net::IpAddr;

use netlink::Mac;

/// FNV-1a, 64 bits: stable over builds and machines, which `std`'s hasher does not promise.
pub(crate) fn fnv(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // A byte that no part contains keeps ("a", "bc") apart from ("ab", "c").
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The name of the host's end: `veth` and 11 hex digits, as long as a link's name may be.
pub(crate) fn veth_name(container_id: &str, ifname: &str) -> String {
    format!("veth{:011x}", fnv(&[container_id, ifname]) >> 20)
}

/// A locally administered address from names.
pub(crate) fn mac_of_names(parts: &[&str]) -> Mac {
    let [a, b, c, d, e, ..] = fnv(parts).to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// The address of a container's interface from its IP. A neighbour's ARP entry stays right when the IP is used again.
pub(crate) fn mac_of_ip(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(v6) => mac_of_names(&[&v6.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_fit_a_link() {
        assert_eq!(veth_name("a", "eth0").len(), 15);
        assert_eq!(veth_name("a", "eth0"), "veth132d54b057d");
        assert_ne!(veth_name("a", "eth01"), veth_name("ae", "th01"));
    }

    #[test]
    fn addresses_are_local_and_unicast() {
        for mac in [
            mac_of_names(&["davit0"]),
            mac_of_ip("10.89.0.2".parse().unwrap()),
        ] {
            assert_eq!(mac.0[0] & 3, 2, "{mac}");
        }
        assert_eq!(
            mac_of_ip("10.89.0.2".parse().unwrap()).to_string(),
            "0a:58:0a:59:00:02"
        );
    }
}
