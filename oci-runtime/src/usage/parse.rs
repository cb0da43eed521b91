//! The formats of the statistics files, without the files.
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// Pressure stall information of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct PsiLine {
    #[serde(serialize_with = "as_go")]
    avg10: f64,
    #[serde(serialize_with = "as_go")]
    avg60: f64,
    #[serde(serialize_with = "as_go")]
    avg300: f64,
    total: u64,
}

/// Go writes a whole number without a fraction.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn as_go<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = value.to_string();
    match text.parse::<u32>() {
        Ok(whole) => serializer.serialize_u32(whole),
        Err(_) => serializer.serialize_f64(*value),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`.
pub(super) fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let into = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let average = || {
                let value = value.parse().ok();
                value.filter(|value: &f64| value.is_finite()).unwrap_or(0.0)
            };
            match key {
                "avg10" => into.avg10 = average(),
                "avg60" => into.avg60 = average(),
                "avg300" => into.avg300 = average(),
                "total" => into.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    psi
}

/// `key value` lines.
pub(super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Numbers in one line.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// A list such as `0-3,7`; a range that cannot be is left out.
pub(super) fn list(text: &str) -> Vec<u16> {
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(one).flatten().collect()
}

/// `cpuacct.usage_all`: a header, then `cpu user system` for each CPU. User times, and system times.
pub(super) fn per_cpu(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| match numbers(line)[..] {
        [_, user, system] => Some((user, system)),
        _ => None,
    };
    text.lines().skip(1).filter_map(line).unzip()
}

/// What one device did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "super::unset")]
    major: u64,
    #[serde(skip_serializing_if = "super::unset")]
    minor: u64,
    #[serde(skip_serializing_if = "super::unset")]
    op: String,
    #[serde(skip_serializing_if = "super::unset")]
    value: u64,
}

/// `8:0 Read 1234` or `8:0 1234`, and a line with the total, which is left out.
pub(super) fn blkio(text: &str) -> Vec<BlkioEntry> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = match (words.next()?, words.next()) {
            (value, None) => ("", value),
            (op, Some(value)) => (op, value),
        };
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// v2's `io.stat` in the shape of v1: bytes, and operations.
pub(super) fn io_stat(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((major, minor)) =
            device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (into, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                into.push(BlkioEntry {
                    major,
                    minor,
                    op: op.to_owned(),
                    value,
                });
            }
        }
    }
    (bytes, operations)
}

/// The size of huge pages as the cgroup files spell it, from a name in `/sys/kernel/mm/hugepages`.
pub(super) fn page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kilobytes {
        gigabytes if gigabytes >= 1 << 20 => format!("{}GB", gigabytes >> 20),
        megabytes if megabytes >= 1 << 10 => format!("{}MB", megabytes >> 10),
        kilobytes => format!("{kilobytes}KB"),
    })
}

/// What went through one interface of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// `/proc/<pid>/net/dev` without the loopback interface; none where there is no other.
pub(super) fn interfaces(text: &str) -> Option<Vec<NetworkInterface>> {
    let line = |line: &str| {
        // The name may touch the first number.
        let (name, values) = line.rsplit_once(':')?;
        let values = numbers(values);
        let value = |index: usize| values.get(index).copied();
        Some(NetworkInterface {
            name: name.trim().to_owned(),
            rx_bytes: value(0)?,
            rx_packets: value(1)?,
            rx_errors: value(2)?,
            rx_dropped: value(3)?,
            tx_bytes: value(8)?,
            tx_packets: value(9)?,
            tx_errors: value(10)?,
            tx_dropped: value(11)?,
        })
    };
    let all: Vec<NetworkInterface> = text
        .lines()
        .filter_map(line)
        .filter(|one| one.name != "lo")
        .collect();
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests;
