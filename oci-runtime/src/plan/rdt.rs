//! `linux.intelRdt` in the terms of `sys::resctrl`.
use sys::resctrl::Request;

use super::Problems;
use crate::spec::IntelRdt;

/// Decides; none where the container asks for nothing.
pub(super) fn plan(spec: Option<&IntelRdt>, problems: &mut Problems) -> Option<Request> {
    let spec = spec?;
    problems.require(
        is_class(&spec.clos_id),
        "linux.intelRdt.closID",
        &format!("{:?} is not the name of a class", spec.clos_id),
    );
    let one_line = |text: &str| !text.contains(['\n', '\0']);
    let l3 = one_line(&spec.l3_cache_schema);
    problems.require(l3, "linux.intelRdt.l3CacheSchema", "holds a line break");
    let bandwidth = &spec.mem_bw_schema;
    problems.require(
        bandwidth.is_empty() || (bandwidth.starts_with("MB:") && one_line(bandwidth)),
        "linux.intelRdt.memBwSchema",
        "must be one line that starts with \"MB:\"",
    );
    for (index, line) in spec.schemata.iter().enumerate() {
        let field = format!("linux.intelRdt.schemata[{index}]");
        problems.require(one_line(line), &field, "holds a line break");
    }
    Some(Request {
        class: spec.clos_id.clone(),
        l3: spec.l3_cache_schema.clone(),
        bandwidth: bandwidth.clone(),
        lines: spec.schemata.clone(),
        monitor: spec.enable_monitoring,
    })
}

/// The root's, the container's own, or one name.
fn is_class(name: &str) -> bool {
    name == "/" || (!matches!(name, "." | "..") && !name.contains(['/', '\n', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_one_name_or_the_root() {
        for good in ["", "/", "gold", "a.b", "..."] {
            assert!(is_class(good), "{good:?}");
        }
        for bad in [".", "..", "a/b", "/a", "//", "../x", "a\nb", "a\0"] {
            assert!(!is_class(bad), "{bad:?}");
        }
    }

    #[test]
    fn bad_lines_are_reported_by_their_fields() {
        let text = r#"{"closID": "..", "l3CacheSchema": "L3:0=f\nMB:0=1", "memBwSchema": "0=20", "schemata": ["L2:0=f", "a\nb"]}"#;
        let spec: IntelRdt = serde_json::from_str(text).unwrap();
        let mut problems = Problems::default();
        plan(Some(&spec), &mut problems);
        let fields: Vec<&str> = problems
            .list()
            .iter()
            .map(|one| one.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "linux.intelRdt.closID",
                "linux.intelRdt.l3CacheSchema",
                "linux.intelRdt.memBwSchema",
                "linux.intelRdt.schemata[1]"
            ]
        );
    }
}
