//! Which cgroup a process that `exec` adds goes into: the container's, or one below.
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use sys::cgroup::{Cgroup, Hierarchies};

use crate::cli::flags::Parsed;
use crate::error::{Error, Result};
use crate::state::State;

/// What `--cgroup` says: `PATH` for all controllers (the key is then empty), or `CONTROLLER[,CONTROLLER…]:PATH`.
///
/// # Errors
/// A path that leads out of the container's cgroup, a controller named twice.
pub(super) fn parse(parsed: &Parsed) -> Result<Vec<(String, PathBuf)>> {
    let mut wanted: Vec<(String, PathBuf)> = Vec::new();
    let all: Vec<&str> = parsed.all("cgroup").collect();
    for text in &all {
        let Some((controllers, path)) = text.split_once(':') else {
            if all.len() > 1 {
                return Err(Error::new(format!(
                    "invalid --cgroup argument: {text} (missing <controller>: prefix)"
                )));
            }
            wanted.push((String::new(), below(text)?));
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(Error::new(format!(
                    "invalid --cgroup argument: {text} (empty <controller> prefix)"
                )));
            }
            if wanted.iter().any(|(known, _)| known == controller) {
                return Err(Error::new(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
            wanted.push((controller.to_owned(), below(path)?));
        }
    }
    Ok(wanted)
}

/// A path that only leads down.
fn below(text: &str) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::new(format!("{text} is not a sub cgroup path"))
                    .hint("--cgroup counts from the container's own cgroup"));
            }
        }
    }
    Ok(path)
}

/// The container's cgroup, or what `wanted` names below it.
///
/// # Errors
/// A controller that the container has no cgroup of, a cgroup that is not there.
pub(super) fn of(state: &State, wanted: &[(String, PathBuf)]) -> Result<Cgroup> {
    if state.cgroup_paths.is_empty() && wanted.is_empty() {
        return Ok(Cgroup::none());
    }
    let hierarchies = Hierarchies::detect()?;
    if wanted.is_empty() {
        let subgroup = state.systemd.as_ref().map_or("", |unit| &unit.subgroup);
        return Ok(Cgroup::from_paths(&hierarchies, &state.cgroup_paths).below(subgroup));
    }
    let mut paths = state.cgroup_paths.clone();
    let mut found = false;
    for (controller, sub) in wanted {
        let everywhere = controller.is_empty();
        let named = state.cgroup_paths.get(controller);
        if !everywhere && named.is_none() {
            return Err(Error::new(format!(
                "unknown controller {controller} in SubCgroupPaths"
            )));
        }
        // Controllers of one v1 hierarchy share their directory.
        let affected = |dir: &PathBuf| everywhere || Some(dir) == named;
        for (key, dir) in state.cgroup_paths.iter().filter(|(_, dir)| affected(dir)) {
            let target = dir.join(sub);
            // With one path for all it may be there in some hierarchies only, as the container made it.
            let there = target.is_dir();
            found |= there;
            if there || !everywhere {
                paths.insert(key.clone(), target);
            }
        }
    }
    if !found {
        let name = wanted.first().map(|(_, sub)| sub.display().to_string());
        return Err(Error::new(format!(
            "--cgroup: {:?} does not exist below the container's cgroup",
            name.unwrap_or_default()
        )));
    }
    Ok(Cgroup::from_paths(&hierarchies, &paths))
}

/// The v2 cgroup that the container's first process is in now.
///
/// # Errors
/// It is not below the container's.
pub(super) fn of_init_v2(state: &State) -> Result<OwnedFd> {
    let hierarchies = Hierarchies::detect()?;
    let outside = || Error::new("the container's first process has left the container's cgroup");
    let dir = Cgroup::of_process(&hierarchies, state.pid)?
        .paths()
        .remove("")
        .ok_or_else(outside)?;
    let own = state.cgroup_paths.get("").ok_or_else(outside)?;
    // A container without a cgroup namespace may have moved itself anywhere.
    if !dir.starts_with(own) {
        return Err(outside());
    }
    std::fs::File::open(&dir)
        .map(OwnedFd::from)
        .map_err(|error| sys::Error::from_io(&error, format!("open({dir:?})")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::Flag;

    fn parse_all(values: &[&str]) -> Result<Vec<(String, PathBuf)>> {
        let flags = [Flag::value("cgroup", "PATH", "")];
        let args: Vec<String> = values
            .iter()
            .map(|value| format!("--cgroup={value}"))
            .collect();
        parse(&Parsed::new(&flags, &args).unwrap())
    }

    #[test]
    fn a_path_is_for_all_controllers_or_for_the_named_ones() {
        let pair = |key: &str, path: &str| (key.to_owned(), PathBuf::from(path));
        assert_eq!(parse_all(&[]).unwrap(), []);
        assert_eq!(parse_all(&["/a/b"]).unwrap(), [pair("", "a/b")]);
        assert_eq!(
            parse_all(&["cpu,memory:x", "pids:y/z"]).unwrap(),
            [pair("cpu", "x"), pair("memory", "x"), pair("pids", "y/z")]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_the_words_of_runc() {
        let table: [(&[&str], &str); 6] = [
            (&["../other"], "../other is not a sub cgroup path"),
            (&["a/../../b"], "a/../../b is not a sub cgroup path"),
            (&["cpu:/.."], "/.. is not a sub cgroup path"),
            (
                &["cpu:a", "b"],
                "invalid --cgroup argument: b (missing <controller>: prefix)",
            ),
            (
                &[":a"],
                "invalid --cgroup argument: :a (empty <controller> prefix)",
            ),
            (
                &["cpu:a", "cpu:b"],
                "invalid --cgroup argument(s): controller cpu specified multiple times",
            ),
        ];
        for (values, expected) in table {
            assert_eq!(parse_all(values).unwrap_err().message, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_accepted_path_leaves_its_start(text in "[a./:,]{0,16}") {
            for (_, path) in parse_all(&[&text]).unwrap_or_default() {
                let normal = |part| matches!(part, Component::Normal(_));
                proptest::prop_assert!(path.components().all(normal), "{path:?}");
            }
        }
    }
}
