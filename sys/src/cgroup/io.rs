//! Limits on block devices: v1's blkio controller
//! (<https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html>), v2's io controller.
//!
//! A weight needs a scheduler that has weights: BFQ (`blkio.bfq.weight`, `io.bfq.weight`), CFQ on kernels before 5.0
//! (`blkio.weight`), or the cost model of v2 (`io.weight`).

use std::path::Path;

use nix::errno::Errno;

use super::convert::{blkio_weight_to_io_weight, set};
use super::resources::{BlockIo, Throttle, ThrottleKind, WeightDevice};
use super::{Error, Result, file};

// === v1 ===

/// Applies the limits to a directory of the blkio hierarchy.
pub(super) fn apply_v1(dir: &Path, io: &BlockIo) -> Result<()> {
    // Which of the two names is there depends on the scheduler that the kernel was built with.
    let cfq = dir.join("blkio.weight").exists() || !dir.join("blkio.bfq.weight").exists();
    let (weight_file, device_file) = if cfq {
        ("blkio.weight", "blkio.weight_device")
    } else {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    };
    if let Some(weight) = set(io.weight) {
        file::write(dir, weight_file, &weight.to_string())?;
    }
    if let Some(weight) = set(io.leaf_weight) {
        file::write(dir, "blkio.leaf_weight", &weight.to_string())?;
    }
    for device in &io.weight_devices {
        if let Some(weight) = set(device.weight) {
            file::write(dir, device_file, &device_weight(device, u64::from(weight)))?;
        }
        if let Some(weight) = set(device.leaf_weight) {
            let value = device_weight(device, u64::from(weight));
            file::write(dir, "blkio.leaf_weight_device", &value)?;
        }
    }
    for one in &io.throttles {
        let name = match one.kind {
            ThrottleKind::ReadBps => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBps => "blkio.throttle.write_bps_device",
            ThrottleKind::ReadIops => "blkio.throttle.read_iops_device",
            ThrottleKind::WriteIops => "blkio.throttle.write_iops_device",
        };
        let value = format!("{}:{} {}", one.major, one.minor, one.rate);
        file::write(dir, name, &value)?;
    }
    Ok(())
}

fn device_weight(device: &WeightDevice, weight: u64) -> String {
    format!("{}:{} {weight}", device.major, device.minor)
}

// === v2 ===

/// Applies the limits to a v2 cgroup.
pub(super) fn apply_v2(dir: &Path, io: &BlockIo) -> Result<()> {
    let leaf = io
        .weight_devices
        .iter()
        .filter_map(|device| device.leaf_weight);
    if let Some(weight) = set(io.leaf_weight).or(leaf.filter(|weight| *weight != 0).max()) {
        return Err(Error::InvalidValue {
            setting: format!("blockIO.leafWeight {weight}"),
            why: "cgroup v2 has no weight of a cgroup against its children".into(),
        });
    }
    if let Some(weight) = set(io.weight) {
        weigh_v2(dir, weight, |weight| weight.to_string())?;
    }
    for device in &io.weight_devices {
        if let Some(weight) = set(device.weight) {
            weigh_v2(dir, weight, |weight| device_weight(device, weight))?;
        }
    }
    for one in &io.throttles {
        file::write(dir, "io.max", &io_max(one))?;
    }
    Ok(())
}

/// BFQ takes the weight as it is; the cost model has a wider range.
fn weigh_v2(dir: &Path, weight: u16, value: impl Fn(u64) -> String) -> Result<()> {
    match file::write(dir, "io.bfq.weight", &value(u64::from(weight))) {
        Err(error) if error.is(Errno::ENOENT) => {
            file::write(dir, "io.weight", &value(blkio_weight_to_io_weight(weight)))
        }
        result => result,
    }
}

/// A line of `io.max`. As on v1, a rate of 0 takes the limit away.
fn io_max(one: &Throttle) -> String {
    let key = match one.kind {
        ThrottleKind::ReadBps => "rbps",
        ThrottleKind::WriteBps => "wbps",
        ThrottleKind::ReadIops => "riops",
        ThrottleKind::WriteIops => "wiops",
    };
    let rate = if one.rate == 0 {
        "max".to_owned()
    } else {
        one.rate.to_string()
    };
    format!("{}:{} {key}={rate}", one.major, one.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: WeightDevice = WeightDevice {
        major: 8,
        minor: 16,
        weight: Some(500),
        leaf_weight: None,
    };

    fn throttle(kind: ThrottleKind, rate: u64) -> Throttle {
        Throttle {
            kind,
            major: 8,
            minor: 0,
            rate,
        }
    }

    /// A directory with these files, empty.
    fn fake(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    fn shown(dir: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn every_throttle_has_its_key_and_zero_lifts_it() {
        let line = |kind, rate| io_max(&throttle(kind, rate));
        assert_eq!(line(ThrottleKind::ReadBps, 1024), "8:0 rbps=1024");
        assert_eq!(line(ThrottleKind::WriteBps, 1), "8:0 wbps=1");
        assert_eq!(line(ThrottleKind::ReadIops, 7), "8:0 riops=7");
        assert_eq!(line(ThrottleKind::WriteIops, 0), "8:0 wiops=max");
    }

    #[test]
    fn weights_on_v2_go_to_bfq_as_they_are_and_else_converted() {
        let io = BlockIo {
            weight: Some(10),
            weight_devices: vec![DISK],
            ..BlockIo::default()
        };
        let bfq = fake(&["io.bfq.weight", "io.weight"]);
        apply_v2(bfq.path(), &io).unwrap();
        // A kernel takes each write by itself; these files keep both.
        assert_eq!(shown(&bfq, "io.bfq.weight"), "8:16 500");
        assert_eq!(shown(&bfq, "io.weight"), "");
        let cost = fake(&["io.weight"]);
        apply_v2(cost.path(), &io).unwrap();
        assert_eq!(shown(&cost, "io.weight"), "8:16 4950");
    }

    #[test]
    fn weights_on_v1_go_to_the_scheduler_that_is_there() {
        let io = BlockIo {
            weight: Some(300),
            weight_devices: vec![DISK],
            throttles: vec![throttle(ThrottleKind::WriteIops, 9)],
            ..BlockIo::default()
        };
        let bfq = fake(&[
            "blkio.bfq.weight",
            "blkio.bfq.weight_device",
            "blkio.throttle.write_iops_device",
        ]);
        apply_v1(bfq.path(), &io).unwrap();
        assert_eq!(shown(&bfq, "blkio.bfq.weight"), "300");
        assert_eq!(shown(&bfq, "blkio.bfq.weight_device"), "8:16 500");
        assert_eq!(shown(&bfq, "blkio.throttle.write_iops_device"), "8:0 9");
        let neither = fake(&[]);
        let error = apply_v1(neither.path(), &io).unwrap_err();
        assert_eq!(error.field(), Some("blockIO.weight"));
        assert!(error.to_string().contains("blkio.weight\""), "{error}");
    }

    #[test]
    fn a_leaf_weight_is_for_v1_alone() {
        let io = BlockIo {
            leaf_weight: Some(300),
            ..BlockIo::default()
        };
        let error = apply_v2(fake(&["io.weight"]).path(), &io).unwrap_err();
        assert!(
            error.to_string().starts_with("blockIO.leafWeight 300: "),
            "{error}"
        );
        let v1 = fake(&["blkio.leaf_weight"]);
        apply_v1(v1.path(), &io).unwrap();
        assert_eq!(shown(&v1, "blkio.leaf_weight"), "300");
    }
}
