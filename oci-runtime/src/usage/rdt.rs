//! `intel_rdt` of the statistics: what the host offers, what the container's class gets, and what it uses.
use std::path::Path;

use serde::Serialize;
use sys::resctrl::Resctrl;

use crate::rdt::Rdt;

/// Of a container with `linux.intelRdt`; empty for any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct IntelRdt {
    #[serde(skip_serializing_if = "super::unset")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "super::unset")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "super::unset")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "super::unset")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "super::unset")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "super::unset")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "super::unset")]
    schemata: Vec<String>,
    #[serde(skip_serializing_if = "super::unset")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "super::unset")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct L3CacheInfo {
    #[serde(skip_serializing_if = "super::unset")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "super::unset")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "super::unset")]
    num_closids: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct MemBwInfo {
    #[serde(skip_serializing_if = "super::unset")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "super::unset")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "super::unset")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "super::unset")]
    num_closids: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

fn text(dir: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    text.trim().to_owned()
}

fn number(dir: &Path, name: &str) -> u64 {
    text(dir, name).parse().unwrap_or(0)
}

/// Reads it; of a container without a group nothing.
pub(super) fn read(rdt: Option<&Rdt>) -> IntelRdt {
    match (rdt, Resctrl::find()) {
        (Some(rdt), Ok(resctrl)) => read_from(&resctrl, rdt),
        _ => IntelRdt::default(),
    }
}

fn read_from(resctrl: &Resctrl, rdt: &Rdt) -> IntelRdt {
    let lines = |dir: &Path| -> Vec<String> {
        let text = text(dir, "schemata");
        text.lines().map(|line| line.trim().to_owned()).collect()
    };
    let of = |lines: &[String], resource: &str| {
        let line = lines.iter().rfind(|line| line.contains(resource));
        line.cloned().unwrap_or_default()
    };
    let (root, schemata) = (lines(resctrl.root()), lines(&rdt.dir));
    let mut stats = IntelRdt::default();
    if resctrl.offers("L3") {
        let info = resctrl.root().join("info/L3");
        stats.l3_cache_info = Some(L3CacheInfo {
            cbm_mask: text(&info, "cbm_mask"),
            min_cbm_bits: number(&info, "min_cbm_bits"),
            num_closids: number(&info, "num_closids"),
        });
        stats.l3_cache_schema_root = of(&root, "L3");
        stats.l3_cache_schema = of(&schemata, "L3");
    }
    if resctrl.offers("MB") {
        let info = resctrl.root().join("info/MB");
        stats.mem_bw_info = Some(MemBwInfo {
            bandwidth_gran: number(&info, "bandwidth_gran"),
            delay_linear: number(&info, "delay_linear"),
            min_bandwidth: number(&info, "min_bandwidth"),
            num_closids: number(&info, "num_closids"),
        });
        stats.mem_bw_schema_root = of(&root, "MB");
        stats.mem_bw_schema = of(&schemata, "MB");
    }
    stats.schemata = schemata;
    let features = text(&resctrl.root().join("info/L3_MON"), "mon_features");
    let monitored = rdt.monitor.as_deref().unwrap_or(&rdt.dir);
    let nodes = nodes(&monitored.join("mon_data"));
    if features.contains("mbm_") {
        let node = |dir: &std::path::PathBuf| Bandwidth {
            mbm_total_bytes: number(dir, "mbm_total_bytes"),
            mbm_local_bytes: number(dir, "mbm_local_bytes"),
        };
        stats.mbm_stats = Some(nodes.iter().map(node).collect());
    }
    if features.contains("llc_occupancy") {
        let node = |dir: &std::path::PathBuf| Occupancy {
            llc_occupancy: number(dir, "llc_occupancy"),
        };
        stats.cmt_stats = Some(nodes.iter().map(node).collect());
    }
    stats
}

/// One directory for each L3 cache.
fn nodes(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_reported_with_what_the_host_offers_and_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("info/L3/cbm_mask", "7ff\n");
        write("info/L3/min_cbm_bits", "1\n");
        write("info/L3/num_closids", "16\n");
        write("info/MB/bandwidth_gran", "10\n");
        write(
            "info/L3_MON/mon_features",
            "llc_occupancy\nmbm_total_bytes\n",
        );
        write("schemata", "    MB:0=100\n    L3:0=7ff\n");
        write("gold/schemata", "    MB:0= 20\n    L3:0=00f\n");
        write(
            "gold/mon_groups/web/mon_data/mon_L3_00/llc_occupancy",
            "4096\n",
        );
        write(
            "gold/mon_groups/web/mon_data/mon_L3_00/mbm_total_bytes",
            "7\n",
        );
        let rdt = Rdt {
            dir: dir.path().join("gold"),
            own: false,
            monitor: Some(dir.path().join("gold/mon_groups/web")),
        };
        let stats = read_from(&Resctrl::at(dir.path()), &rdt);
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            r#"{"l3_cache_info":{"cbm_mask":"7ff","min_cbm_bits":1,"num_closids":16},"l3_cache_schema_root":"L3:0=7ff","l3_cache_schema":"L3:0=00f","mem_bw_info":{"bandwidth_gran":10},"mem_bw_schema_root":"MB:0=100","mem_bw_schema":"MB:0= 20","schemata":["MB:0= 20","L3:0=00f"],"mbm_stats":[{"mbm_total_bytes":7,"mbm_local_bytes":0}],"cmt_stats":[{"llc_occupancy":4096}]}"#
        );
        assert_eq!(serde_json::to_string(&read(None)).unwrap(), "{}");
    }
}
