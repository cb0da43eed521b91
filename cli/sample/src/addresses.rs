//! The addresses of this network namespace, from procfs: no netlink, no libc.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All but loopback and link-local ones, IPv4 first.
pub(crate) fn own() -> Vec<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let v4 = local_in_fib_trie(&read("/proc/net/fib_trie"))
        .into_iter()
        .map(IpAddr::V4);
    let v6 = global_in_if_inet6(&read("/proc/net/if_inet6"))
        .into_iter()
        .map(IpAddr::V6);
    v4.chain(v6).collect()
}

/// The routing tables name each own address twice, as a leaf `|-- 10.0.0.2` followed by `/32 host LOCAL`.
fn local_in_fib_trie(trie: &str) -> BTreeSet<Ipv4Addr> {
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL");
    let addresses = pairs.filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse::<Ipv4Addr>().ok());
    addresses.filter(|a| !a.is_loopback()).collect()
}

/// `address ifindex prefix scope flags name`, all but the name in hexadecimal; scope 00 is global.
fn global_in_if_inet6(table: &str) -> BTreeSet<Ipv6Addr> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let global = rows.filter(|row| row.get(3) == Some(&"00"));
    global
        .filter_map(|row| {
            u128::from_str_radix(row[0], 16)
                .ok()
                .map(Ipv6Addr::from_bits)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ipv4_addresses_are_the_local_leaves_without_loopback() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    Local:\n     |-- 10.89.0.7\n        /32 host LOCAL\n     |-- 10.89.255.255\n        /32 link BROADCAST\n\
                    \x20    |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(
            local_in_fib_trie(trie).into_iter().collect::<Vec<_>>(),
            [Ipv4Addr::new(10, 89, 0, 7)]
        );
    }

    #[test]
    fn own_ipv6_addresses_are_the_global_ones() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe800000000000000000000000000001 02 40 20 80     eth0\n\
                     fd000000000000000000000000000007 02 40 00 80     eth0\n";
        let found: Vec<String> = global_in_if_inet6(table)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["fd00::7"]);
    }
}
