//! The formats of the files, without the files.

/// Pressure stall information: how long processes waited for a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one waited.
    pub some: PressureLine,
    /// All waited.
    pub full: PressureLine,
}

/// One line of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Per cent of the last 10 seconds.
    pub avg10: f64,
    /// Per cent of the last minute.
    pub avg60: f64,
    /// Per cent of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total_us: u64,
}

/// What went to and from a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// The device.
    pub major: u32,
    /// The device.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`; `None` where neither line is there.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut found = None;
    for line in text.lines() {
        let (name, rest) = line.split_once(' ')?;
        let mut pressure: Pressure = found.unwrap_or_default();
        match name {
            "some" => pressure.some = pressure_line(rest),
            "full" => pressure.full = pressure_line(rest),
            _ => continue,
        }
        found = Some(pressure);
    }
    found
}

fn pressure_line(text: &str) -> PressureLine {
    let mut line = PressureLine::default();
    let average = |value: &str| {
        let value = value.parse::<f64>().ok();
        value.filter(|value| value.is_finite()).unwrap_or(0.0)
    };
    for (key, value) in text.split_whitespace().filter_map(|w| w.split_once('=')) {
        match key {
            "avg10" => line.avg10 = average(value),
            "avg60" => line.avg60 = average(value),
            "avg300" => line.avg300 = average(value),
            "total" => line.total_us = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

/// v2's `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
pub(super) fn io_stat(text: &str) -> Vec<DeviceIo> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        let one = entry(&mut all, major, minor);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => one.read_bytes = value,
                "wbytes" => one.write_bytes = value,
                "rios" => one.reads = value,
                "wios" => one.writes = value,
                _ => {}
            }
        }
    }
    all
}

/// v1's `8:0 Read 1234` lines, of bytes and of operations.
pub(super) fn blkio(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut all = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some((major, minor)), Some(what), Some(Ok(value))) = (
                words.next().and_then(device),
                words.next(),
                words.next().map(str::parse),
            ) else {
                continue;
            };
            let one = entry(&mut all, major, minor);
            match (what, is_bytes) {
                ("Read", true) => one.read_bytes = value,
                ("Write", true) => one.write_bytes = value,
                ("Read", false) => one.reads = value,
                ("Write", false) => one.writes = value,
                _ => {}
            }
        }
    }
    all
}

fn device(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn entry(all: &mut Vec<DeviceIo>, major: u32, minor: u32) -> &mut DeviceIo {
    let at = all
        .iter()
        .position(|one| (one.major, one.minor) == (major, minor));
    let at = at.unwrap_or_else(|| {
        all.push(DeviceIo {
            major,
            minor,
            ..DeviceIo::default()
        });
        all.len() - 1
    });
    &mut all[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_two_lines_of_averages_and_a_total() {
        let text = "some avg10=1.50 avg60=0.25 avg300=nan total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8";
        let pressure = pressure(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.avg60), (1.5, 0.25));
        assert_eq!((pressure.some.avg300, pressure.some.total_us), (0.0, 77));
        assert_eq!(pressure.full.total_us, 8);
        assert_eq!(super::pressure(""), None);
    }

    #[test]
    fn both_formats_of_block_devices_say_the_same() {
        let want = [DeviceIo {
            major: 8,
            minor: 0,
            read_bytes: 10,
            write_bytes: 20,
            reads: 3,
            writes: 4,
        }];
        let v2 = "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n(unknown) rbytes=1";
        assert_eq!(io_stat(v2), want);
        let bytes = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30";
        assert_eq!(blkio(bytes, "8:0 Read 3\n8:0 Write 4\nTotal 7"), want);
    }
}
