//! `--uid-map` and `--gid-map`: which ids of the host a pod's user namespace has.
use super::Error;

/// One line of `/proc/<pid>/uid_map`, see `user_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub length: u32,
}

/// The maps of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uids: IdMap,
    /// Group ids.
    pub gids: IdMap,
}

// === impl IdMap ===

impl IdMap {
    /// The line that the kernel takes.
    pub(crate) fn line(self) -> String {
        format!("{} {} {}\n", self.container, self.host, self.length)
    }
}

/// Reads `CONTAINER:HOST:LENGTH`.
pub(super) fn id_map(option: &'static str, text: &str) -> Result<IdMap, Error> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    let wrong = |why: &str| {
        Err(Error::Value {
            option,
            value: text.to_owned(),
            why: why.to_owned(),
        })
    };
    let Some(&[container, host, length]) = numbers.as_deref() else {
        return wrong("not three numbers CONTAINER:HOST:LENGTH");
    };
    let fits = |first: u32| first.checked_add(length).is_some();
    if length == 0 || !fits(container) || !fits(host) {
        return wrong("the range is empty or ends above the largest id");
    }
    Ok(IdMap {
        container,
        host,
        length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_three_numbers_that_fit() {
        let map = id_map("--uid-map", "0:1000:65536").unwrap();
        assert_eq!(map.line(), "0 1000 65536\n");
        for (text, why) in [
            ("0:1000", "not three numbers"),
            ("0:1000:x", "not three numbers"),
            ("0:1000:1:2", "not three numbers"),
            ("0:0:0", "empty"),
            ("0:4294967295:2", "largest"),
            ("4294967295:0:2", "largest"),
        ] {
            let error = id_map("--uid-map", text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}
