//! Interfaces of a network namespace.

use std::path::Path;

use crate::model::{InterfaceUsage, Traffic};

/// The interfaces in the namespace pinned at `pin`, the one with the default route first; `None` when it is gone.
pub(super) fn read(pin: &Path) -> Option<Vec<InterfaceUsage>> {
    let namespace = sys::netns::NetNs::open(pin).ok()?;
    let (devices, routes) = namespace
        .run(|| {
            let text = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            (
                text("dev").unwrap_or_default(),
                text("route").unwrap_or_default(),
            )
        })
        .ok()?;
    let mut all = interfaces(&devices);
    let default = default_route(&routes).unwrap_or("eth0");
    all.sort_by_key(|one| one.name != default);
    Some(all)
}

/// `/proc/net/dev` without the loopback interface.
fn interfaces(text: &str) -> Vec<InterfaceUsage> {
    let line = |line: &str| {
        // The name may touch the first number.
        let (name, values) = line.rsplit_once(':')?;
        let values: Vec<u64> = values
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        let traffic = |first: usize| {
            Some(Traffic {
                bytes: *values.get(first)?,
                packets: *values.get(first + 1)?,
                errors: *values.get(first + 2)?,
                dropped: *values.get(first + 3)?,
            })
        };
        Some(InterfaceUsage {
            name: name.trim().to_owned(),
            received: traffic(0)?,
            sent: traffic(8)?,
        })
    };
    text.lines()
        .filter_map(line)
        .filter(|one| one.name != "lo")
        .collect()
}

/// The interface of the default route in `/proc/net/route`.
fn default_route(text: &str) -> Option<&str> {
    text.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, destination) = (words.next()?, words.next()?);
        (destination == "00000000").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_the_loopback_one() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    \
            lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name, "eth0");
        assert_eq!((all[0].received.bytes, all[0].received.dropped), (100, 4));
        assert_eq!((all[0].sent.bytes, all[0].sent.errors), (500, 7));
    }

    #[test]
    fn the_default_route_names_its_interface() {
        let text = "Iface\tDestination\tGateway\nnet1\t0000590A\t0\neth1\t00000000\t0100590A\n";
        assert_eq!(default_route(text), Some("eth1"));
        assert_eq!(default_route("Iface\tDestination\n"), None);
    }
}
