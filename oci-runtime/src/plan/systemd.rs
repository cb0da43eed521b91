//! The systemd unit of a container: `linux.cgroupsPath` as `slice:prefix:name`, and annotations about it.
use std::collections::BTreeMap;

use sys::cgroup::CgroupPath;
use sys::cgroup::systemd::{Bus, Property, Unit, variant};

use super::Problems;

/// Annotations with this prefix set properties of the unit.
const PROPERTY: &str = "org.systemd.property.";
/// A cgroup below the scope, for the container's processes.
const SUBGROUP: &str = "run.oci.systemd.subgroup";
/// Another one below that, which is the container's own to manage.
const DELEGATE: &str = "run.oci.delegate-cgroup";

/// The unit of a container.
#[derive(Debug, Clone)]
pub struct SystemdPlan {
    /// Whose service manager.
    pub bus: Bus,
    /// The unit.
    pub unit: Unit,
    /// What the annotations set.
    pub properties: Vec<Property>,
    /// Where below the unit's cgroup the container's processes go; empty for itself.
    pub subgroup: String,
    /// Where below that they go once their cgroup namespace is made; empty for nowhere.
    pub delegate: String,
}

/// Decides on the unit of the container `id`.
pub fn plan(
    user: bool,
    id: &str,
    cgroups_path: &str,
    annotations: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<SystemdPlan> {
    let bus = if user { Bus::User } else { Bus::System };
    let mut properties = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PROPERTY) else {
            continue;
        };
        match variant::property(name, value) {
            Ok(property) => properties.push(property),
            Err(why) => problems.push(format!("annotations[{key:?}]"), why),
        }
    }
    let subgroup = below(annotations, SUBGROUP, problems);
    let delegate = below(annotations, DELEGATE, problems);
    problems.require(
        delegate.is_empty() || !subgroup.is_empty(),
        &format!("annotations[{DELEGATE:?}]"),
        &format!("needs {SUBGROUP:?}: no limit may lie in what is the container's to manage"),
    );
    match Unit::new(cgroups_path, id, bus) {
        Ok(unit) => {
            problems.require(
                subgroup.is_empty() || !unit.is_slice(),
                &format!("annotations[{SUBGROUP:?}]"),
                "a slice has none",
            );
            Some(SystemdPlan {
                bus,
                unit,
                properties,
                subgroup,
                delegate,
            })
        }
        Err(why) => {
            problems.push("linux.cgroupsPath", why);
            None
        }
    }
}

/// A relative path of plain names.
fn below(annotations: &BTreeMap<String, String>, key: &str, problems: &mut Problems) -> String {
    let text = annotations.get(key).map_or("", String::as_str);
    if text.is_empty() {
        return String::new();
    }
    match CgroupPath::new(text) {
        Ok(path) if !path.is_absolute() => path.relative().display().to_string(),
        Ok(_) => {
            problems.push(format!("annotations[{key:?}]"), "must be relative");
            String::new()
        }
        Err(error) => {
            problems.push(format!("annotations[{key:?}]"), error.to_string());
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::cgroup::systemd::Value;

    fn plan_with(path: &str, annotations: &[(&str, &str)]) -> Result<SystemdPlan, String> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut problems = Problems::default();
        let made = plan(
            false,
            "web",
            path,
            &annotations.iter().map(pair).collect(),
            &mut problems,
        );
        let made = problems
            .into_result(made)
            .map_err(|problems| problems.to_string())?;
        Ok(made.unwrap())
    }

    #[test]
    fn annotations_set_properties_and_places() {
        let made = plan_with(
            "a.slice:p:x",
            &[
                ("org.systemd.property.TimeoutStopSec", "7"),
                ("org.systemd.property.After", "['a.service']"),
                ("org.systemd.propertyX", "ignored"),
                ("run.oci.systemd.subgroup", "ctr"),
                ("run.oci.delegate-cgroup", "inner/more"),
            ],
        )
        .unwrap();
        assert_eq!(made.unit.name(), "p-x.scope");
        let after = Value::Array("s".into(), vec![Value::str("a.service")]);
        assert_eq!(
            made.properties,
            [
                ("After".to_owned(), after),
                ("TimeoutStopUSec".to_owned(), Value::U64(7_000_000)),
            ]
        );
        assert_eq!(
            (made.subgroup.as_str(), made.delegate.as_str()),
            ("ctr", "inner/more")
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let table: [Row<'_>; 7] = [
            (
                "/web",
                &[],
                "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/web\" instead",
            ),
            ("a:b:c", &[], "linux.cgroupsPath: invalid slice name: a"),
            (
                "",
                &[("org.systemd.property.X", "1")],
                "annotations[\"org.systemd.property.X\"]: name incorrect: too short",
            ),
            (
                "",
                &[("org.systemd.property.After", "[")],
                "annotations[\"org.systemd.property.After\"]: value parse error: the value is missing",
            ),
            (
                "",
                &[("run.oci.systemd.subgroup", "../x")],
                "annotations[\"run.oci.systemd.subgroup\"]: cgroup path \"../x\" must not hold",
            ),
            (
                "",
                &[("run.oci.systemd.subgroup", "/x")],
                "must be relative",
            ),
            (
                "",
                &[("run.oci.delegate-cgroup", "x")],
                "annotations[\"run.oci.delegate-cgroup\"]: needs \"run.oci.systemd.subgroup\"",
            ),
        ];
        for (path, annotations, wanted) in table {
            let error = plan_with(path, annotations).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
