//! fstab options to mount attributes: the whole table of the runtime spec.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options>
use sys::mount::{MountAttr, Propagation};

use super::idmap::IdMapOption;

/// Options of one mount, sorted by what they act upon. The last word on an attribute wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes to set on the mount itself.
    pub set: MountAttr,
    /// Attributes to clear on the mount itself.
    pub clear: MountAttr,
    /// Attributes to set on it and everything below.
    pub set_recursive: MountAttr,
    /// Attributes to clear on it and everything below.
    pub clear_recursive: MountAttr,
    /// A bind mount; `Some(true)` with what is mounted below the source.
    pub bind: Option<bool>,
    /// Propagation types in order; the flag says "and everything below".
    pub propagation: Vec<(Propagation, bool)>,
    /// Flags of the superblock.
    pub superblock: Vec<&'static str>,
    /// Options for the filesystem.
    pub data: Vec<String>,
    /// Change an existing mount instead of making one.
    pub remount: bool,
    /// Copy what the mount hides into it first.
    pub tmpcopyup: bool,
    /// Map the owners.
    pub idmap: Option<IdMapOption>,
    /// Make a link like the source, where that is a symbolic link, instead of mounting what it leads to.
    pub copy_symlink: bool,
    /// Mount the source itself, also where it is a symbolic link.
    pub src_nofollow: bool,
    /// Mount onto the destination itself, also where it is a symbolic link.
    pub dest_nofollow: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            set: MountAttr::empty(),
            clear: MountAttr::empty(),
            set_recursive: MountAttr::empty(),
            clear_recursive: MountAttr::empty(),
            bind: None,
            propagation: Vec::new(),
            superblock: Vec::new(),
            data: Vec::new(),
            remount: false,
            tmpcopyup: false,
            idmap: None,
            copy_symlink: false,
            src_nofollow: false,
            dest_nofollow: false,
        }
    }
}

/// An attribute option: its name, the attribute, and whether it sets or clears it. With `r` before the name it is
/// recursive.
const ATTRIBUTES: [(&str, MountAttr, bool); 19] = [
    ("ro", MountAttr::MOUNT_ATTR_RDONLY, true),
    ("rw", MountAttr::MOUNT_ATTR_RDONLY, false),
    ("nosuid", MountAttr::MOUNT_ATTR_NOSUID, true),
    ("suid", MountAttr::MOUNT_ATTR_NOSUID, false),
    ("nodev", MountAttr::MOUNT_ATTR_NODEV, true),
    ("dev", MountAttr::MOUNT_ATTR_NODEV, false),
    ("noexec", MountAttr::MOUNT_ATTR_NOEXEC, true),
    ("exec", MountAttr::MOUNT_ATTR_NOEXEC, false),
    ("nodiratime", MountAttr::MOUNT_ATTR_NODIRATIME, true),
    ("diratime", MountAttr::MOUNT_ATTR_NODIRATIME, false),
    ("nosymfollow", MountAttr::MOUNT_ATTR_NOSYMFOLLOW, true),
    ("symfollow", MountAttr::MOUNT_ATTR_NOSYMFOLLOW, false),
    ("noatime", MountAttr::MOUNT_ATTR_NOATIME, true),
    ("strictatime", MountAttr::MOUNT_ATTR_STRICTATIME, true),
    // relatime is the value 0 of the access time field: clearing the field selects it.
    ("relatime", MountAttr::ATIME_FIELD, false),
    ("atime", MountAttr::ATIME_FIELD, false),
    ("norelatime", MountAttr::ATIME_FIELD, false),
    ("nostrictatime", MountAttr::ATIME_FIELD, false),
    ("defaults", MountAttr::empty(), false),
];

const PROPAGATION: [(&str, Propagation); 4] = [
    ("shared", Propagation::Shared),
    ("slave", Propagation::Slave),
    ("private", Propagation::Private),
    ("unbindable", Propagation::Unbindable),
];

/// Options of the superblock: (set, clear).
const SUPERBLOCK: [(&str, &str); 7] = [
    ("sync", "async"),
    ("dirsync", ""),
    ("lazytime", "nolazytime"),
    ("mand", "nomand"),
    ("iversion", "noiversion"),
    ("silent", "loud"),
    ("acl", "noacl"),
];

impl MountOptions {
    /// Sorts a list of options.
    ///
    /// # Errors
    /// An option that is known but makes no sense, with the reason.
    pub fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.tmpcopyup = true,
            "copy-symlink" => self.copy_symlink = true,
            "src-nofollow" => self.src_nofollow = true,
            "dest-nofollow" => self.dest_nofollow = true,
            "" => return Err("an empty option".to_owned()),
            _ if option.contains('\0') => return Err("an option holds a NUL byte".to_owned()),
            _ => {
                if let Some(idmap) = IdMapOption::parse(option) {
                    self.idmap = Some(idmap);
                    return Ok(());
                }
                let known = self.add_attribute(option)
                    || self.add_propagation(option)
                    || self.add_superblock(option);
                if !known {
                    self.data.push(option.to_owned());
                }
            }
        }
        Ok(())
    }

    fn add_attribute(&mut self, option: &str) -> bool {
        let find = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        // "relatime" is a name of its own before it is a recursive "elatime", and "ro" before "r" + "o".
        let (entry, recursive) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(entry), _) => (entry, false),
            (None, Some(entry)) if entry.0 != "defaults" => (entry, true),
            _ => return false,
        };
        let (_, attribute, on) = *entry;
        let (set, clear) = if recursive {
            (&mut self.set_recursive, &mut self.clear_recursive)
        } else {
            (&mut self.set, &mut self.clear)
        };
        if attribute.intersects(MountAttr::ATIME_FIELD) {
            set.remove(MountAttr::ATIME_FIELD);
            clear.insert(MountAttr::ATIME_FIELD);
        }
        if on {
            set.insert(attribute);
            if !attribute.intersects(MountAttr::ATIME_FIELD) {
                clear.remove(attribute);
            }
        } else {
            clear.insert(attribute);
            set.remove(attribute);
        }
        true
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let find = |name: &str| {
            PROPAGATION
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, kind)| *kind)
        };
        if let Some(kind) = find(option) {
            self.propagation.push((kind, false));
        } else if let Some(kind) = option.strip_prefix('r').and_then(find) {
            self.propagation.push((kind, true));
        } else {
            return false;
        }
        true
    }

    fn add_superblock(&mut self, option: &str) -> bool {
        // crun knows some with "r" before them: a superblock is the same for whatever lies below.
        let option = match option {
            "rsync" | "rasync" | "rdirsync" | "rmand" | "rnomand" => &option[1..],
            other => other,
        };
        for (set, clear) in SUPERBLOCK {
            if option == set {
                self.superblock.push(set);
                return true;
            }
            if option == clear {
                self.superblock.retain(|one| *one != set);
                return true;
            }
        }
        false
    }
}

/// The propagation of `linux.rootfsPropagation`: the type, and whether for everything below.
pub fn parse_propagation(name: &str) -> Option<(Propagation, bool)> {
    let find = |name: &str| {
        PROPAGATION
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    };
    find(name).map(|kind| (kind, false)).or_else(|| {
        name.strip_prefix('r')
            .and_then(find)
            .map(|kind| (kind, true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        MountOptions::parse(&options).unwrap()
    }

    #[test]
    fn the_last_word_on_an_attribute_wins() {
        let ro = MountAttr::MOUNT_ATTR_RDONLY;
        let parsed = parse(&["ro", "rw"]);
        assert_eq!((parsed.set, parsed.clear), (MountAttr::empty(), ro));
        let parsed = parse(&["rw", "ro"]);
        assert_eq!((parsed.set, parsed.clear), (ro, MountAttr::empty()));
    }

    #[test]
    fn an_access_time_mode_clears_the_field_first() {
        let parsed = parse(&["strictatime", "noatime"]);
        assert_eq!(parsed.set, MountAttr::MOUNT_ATTR_NOATIME);
        assert_eq!(parsed.clear, MountAttr::ATIME_FIELD);
        let parsed = parse(&["noatime", "relatime"]);
        assert_eq!(
            (parsed.set, parsed.clear),
            (MountAttr::empty(), MountAttr::ATIME_FIELD)
        );
    }

    #[test]
    fn each_attribute_has_a_recursive_form() {
        let expect = [
            ("rro", MountAttr::MOUNT_ATTR_RDONLY, true),
            ("rrw", MountAttr::MOUNT_ATTR_RDONLY, false),
            ("rnosuid", MountAttr::MOUNT_ATTR_NOSUID, true),
            ("rsuid", MountAttr::MOUNT_ATTR_NOSUID, false),
            ("rnodev", MountAttr::MOUNT_ATTR_NODEV, true),
            ("rdev", MountAttr::MOUNT_ATTR_NODEV, false),
            ("rnoexec", MountAttr::MOUNT_ATTR_NOEXEC, true),
            ("rexec", MountAttr::MOUNT_ATTR_NOEXEC, false),
            ("rnodiratime", MountAttr::MOUNT_ATTR_NODIRATIME, true),
            ("rdiratime", MountAttr::MOUNT_ATTR_NODIRATIME, false),
            ("rnosymfollow", MountAttr::MOUNT_ATTR_NOSYMFOLLOW, true),
            ("rsymfollow", MountAttr::MOUNT_ATTR_NOSYMFOLLOW, false),
            ("rnoatime", MountAttr::MOUNT_ATTR_NOATIME, true),
            ("rstrictatime", MountAttr::MOUNT_ATTR_STRICTATIME, true),
            ("rrelatime", MountAttr::ATIME_FIELD, false),
            ("ratime", MountAttr::ATIME_FIELD, false),
            ("rnorelatime", MountAttr::ATIME_FIELD, false),
            ("rnostrictatime", MountAttr::ATIME_FIELD, false),
        ];
        for (name, attribute, on) in expect {
            let parsed = parse(&[name]);
            let field = if on {
                parsed.set_recursive
            } else {
                parsed.clear_recursive
            };
            assert!(field.contains(attribute), "{name}");
            assert!(
                parsed.set.is_empty() && parsed.clear.is_empty() && parsed.data.is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn propagation_and_bind_are_kept_in_order() {
        let parsed = parse(&["rbind", "rslave", "shared", "bind"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(
            parsed.propagation,
            [(Propagation::Slave, true), (Propagation::Shared, false)]
        );
        for name in ["shared", "slave", "private", "unbindable"] {
            assert!(
                parse_propagation(name).is_some_and(|(_, recursive)| !recursive),
                "{name}"
            );
            assert!(
                parse_propagation(&format!("r{name}")).is_some_and(|(_, recursive)| recursive),
                "r{name}"
            );
        }
        assert_eq!(parse_propagation("sharedd"), None);
    }

    #[test]
    fn every_option_of_the_spec_is_known_and_the_rest_is_data() {
        let spec = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
            rnosymfollow ro rsync rasync rdirsync rmand rnomand idmap=uids=0-0-1 copy-symlink src-nofollow dest-nofollow rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw \
            shared silent slave strictatime suid symfollow sync tmpcopyup unbindable acl noacl idmap ridmap rnodev";
        for name in spec.split_whitespace() {
            assert_eq!(parse(&[name]).data, Vec::<String>::new(), "{name}");
        }
        assert_eq!(
            parse(&["mode=755", "size=64k", "newinstance"]).data,
            ["mode=755", "size=64k", "newinstance"]
        );
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_never_sets_and_clears_the_same_attribute(
            options in proptest::collection::vec("[a-z=]{0,14}|ro|rw|rro|rrw|noatime|relatime", 0..12)
        ) {
            if let Ok(parsed) = MountOptions::parse(&options) {
                let plain = !MountAttr::ATIME_FIELD;
                proptest::prop_assert!((parsed.set & parsed.clear & plain).is_empty());
                proptest::prop_assert!((parsed.set_recursive & parsed.clear_recursive & plain).is_empty());
            }
        }
    }
}
