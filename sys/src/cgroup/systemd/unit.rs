//! Names of units and slices, and where systemd puts their cgroups.

use super::address::Bus;

/// The unit of a container, and the slice that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    name: String,
    slice: String,
    /// What the caller calls the container.
    label: String,
}

/// The longest name of a unit that systemd takes, with its suffix.
const MAX_NAME: usize = 255;

impl Unit {
    /// The unit that `cgroups_path` (`slice:prefix:name`) names; without a path one named for the container.
    ///
    /// # Errors
    /// A sentence: what is wrong with the path.
    pub fn new(cgroups_path: &str, id: &str, bus: Bus) -> Result<Self, String> {
        let parts: Vec<&str> = cgroups_path.split(':').collect();
        let (slice, prefix, label) = match parts.as_slice() {
            [""] => ("", "runc", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => {
                return Err(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} instead"
                ));
            }
        };
        let slice = match (slice, bus) {
            ("", Bus::System) => "system.slice",
            ("", Bus::User) => "user.slice",
            (slice, _) => slice,
        };
        expand_slice(slice)?;
        let name = if label.ends_with(".slice") {
            expand_slice(label)?;
            label.to_owned()
        } else {
            format!("{prefix}-{label}.scope")
        };
        check_name(&name)?;
        Ok(Self {
            name,
            slice: slice.to_owned(),
            label: label.to_owned(),
        })
    }

    /// `prefix-name.scope`, or a slice.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The slice that it is in.
    #[must_use]
    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// What the caller calls the container.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it is a slice itself, in which systemd puts no processes.
    #[must_use]
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Where its cgroup is, below the one of systemd.
    #[must_use]
    pub fn path(&self) -> String {
        // A slice's place follows from its own name; what was asked for as its parent is only wanted beside it.
        let parent = if self.is_slice() {
            return expand_slice(&self.name).unwrap_or_default();
        } else {
            expand_slice(&self.slice).unwrap_or_default()
        };
        format!("{}/{}", parent.trim_end_matches('/'), self.name)
    }
}

/// `a-b.slice` is in `/a.slice/a-b.slice`, `-.slice` is the root.
///
/// # Errors
/// A name that is no slice's.
pub fn expand_slice(slice: &str) -> Result<String, String> {
    let invalid = || format!("invalid slice name: {slice}");
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok("/".to_owned());
    }
    if check_name(slice).is_err() || stem.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let mut path = String::new();
    let ends = stem.match_indices('-').map(|(at, _)| at);
    for end in ends.chain([stem.len()]) {
        path.push('/');
        path.push_str(&stem[..end]);
        path.push_str(".slice");
    }
    Ok(path)
}

/// The characters that systemd allows in names of units.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.bytes().all(allowed) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be the name of a systemd unit: at most {MAX_NAME} of the letters, digits and \":-_.\\@\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_scope_in_a_slice() {
        let table = [
            (
                "",
                "system.slice",
                "runc-web.scope",
                "/system.slice/runc-web.scope",
            ),
            (
                "system.slice:docker:abc",
                "system.slice",
                "docker-abc.scope",
                "/system.slice/docker-abc.scope",
            ),
            (
                ":libpod:abc",
                "system.slice",
                "libpod-abc.scope",
                "/system.slice/libpod-abc.scope",
            ),
            (
                "a-b-c.slice:p:x",
                "a-b-c.slice",
                "p-x.scope",
                "/a.slice/a-b.slice/a-b-c.slice/p-x.scope",
            ),
            ("-.slice:p:x", "-.slice", "p-x.scope", "/p-x.scope"),
            (
                "m.slice:p:pod-1.slice",
                "m.slice",
                "pod-1.slice",
                "/pod.slice/pod-1.slice",
            ),
            ("m.slice::x", "m.slice", "-x.scope", "/m.slice/-x.scope"),
        ];
        for (text, slice, name, path) in table {
            let unit = Unit::new(text, "web", Bus::System).unwrap();
            assert_eq!((unit.slice(), unit.name()), (slice, name), "{text}");
            assert_eq!(unit.path(), path, "{text}");
            assert_eq!(unit.is_slice(), name.ends_with(".slice"));
        }
        let user = Unit::new(":p:x", "web", Bus::User).unwrap();
        assert_eq!(user.path(), "/user.slice/p-x.scope");
    }

    #[test]
    fn a_path_of_another_form_is_refused_in_runcs_words() {
        for bad in ["/web", "web", "a:b", "a.slice:b:c:d"] {
            let error = Unit::new(bad, "web", Bus::System).unwrap_err();
            let wanted = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {bad:?} instead"
            );
            assert_eq!(error, wanted);
        }
    }

    #[test]
    fn names_that_no_unit_can_have_are_refused() {
        for bad in [
            "../x.slice:p:x",
            "a/b.slice:p:x",
            "a--b.slice:p:x",
            "-a.slice:p:x",
            "a-.slice:p:x",
            ".slice:p:x",
            "a.scope:p:x",
            "a.slice:p/q:x",
            "a.slice:p:../x",
            "a.slice:p:x y",
            "a.slice:p:a--b.slice",
            "a.slice:p:x\0",
        ] {
            assert!(Unit::new(bad, "web", Bus::System).is_err(), "{bad:?}");
        }
        assert!(Unit::new("", "a+b", Bus::System).is_err());
        let long = format!("a.slice:p:{}", "x".repeat(250));
        assert!(Unit::new(&long, "web", Bus::System).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_path_leads_out_of_its_slice(text in "[a-z.:/-]{0,40}") {
            if let Ok(unit) = Unit::new(&text, "web", Bus::System) {
                let path = unit.path();
                proptest::prop_assert!(path.starts_with('/') && !path.contains("//"));
                proptest::prop_assert!(path.split('/').all(|part| part != ".." && part != "."), "{path}");
            }
        }
    }
}
