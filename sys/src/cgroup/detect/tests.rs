//! Detection from the texts of real hosts.

use super::*;

impl Hierarchies {
    /// From the texts of /proc.
    fn from_text(mountinfo: &str, own: &str, probe: &dyn Fn(&Path) -> Probed) -> Result<Self> {
        Self::from_mounts(mountinfo::parse(mountinfo.as_bytes()), own, probe)
    }
}

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate";

const OWN: &str = "\
9:name=systemd:/user.slice
4:memory:/process/a
2:cpu,cpuacct:/
0::/init.scope";

fn on_tmpfs(path: &Path) -> Probed {
    match path.to_str().unwrap() {
        "/sys/fs/cgroup" => Probed::Other,
        "/sys/fs/cgroup/unified" => Probed::V2(Vec::new()),
        _ => Probed::V1,
    }
}

#[test]
fn a_hybrid_host_keeps_joined_and_named_hierarchies_and_its_own_paths() {
    let found = Hierarchies::from_text(HYBRID, OWN, &on_tmpfs).unwrap();
    assert_eq!(found.mode(), Mode::Hybrid);
    assert_eq!(found.controllers(), ["cpu", "cpuacct", "memory"]);
    let rows: Vec<_> = found
        .list()
        .iter()
        .map(|h| {
            (
                h.mount.to_str().unwrap(),
                h.controllers.join("+"),
                h.own.to_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("/sys/fs/cgroup/cpu,cpuacct", "cpu+cpuacct".to_owned(), "/"),
            ("/sys/fs/cgroup/memory", "memory".to_owned(), "/process/a"),
            (
                "/sys/fs/cgroup/systemd",
                "name=systemd".to_owned(),
                "/user.slice"
            ),
            ("/sys/fs/cgroup/unified", String::new(), "/init.scope"),
        ]
    );
}

#[test]
fn a_unified_host_is_one_whose_usual_mount_is_cgroup2_whatever_else_is_mounted() {
    let mountinfo = format!("{HYBRID}\n50 23 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    let probe = |path: &Path| match path.to_str().unwrap() {
        "/sys/fs/cgroup" => Probed::V2(vec!["memory".into(), "pids".into()]),
        _ => Probed::V1,
    };
    let found = Hierarchies::from_text(&mountinfo, OWN, &probe).unwrap();
    assert_eq!(found.mode(), Mode::V2);
    assert_eq!(found.controllers(), ["memory", "pids"]);
    assert_eq!(found.list()[0].own, Path::new("/init.scope"));
}

#[test]
fn a_host_with_v1_mounts_only_is_v1_and_one_with_none_is_an_error() {
    let v1: String = HYBRID
        .lines()
        .filter(|l| !l.contains("cgroup2"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(
        Hierarchies::from_text(&v1, OWN, &on_tmpfs).unwrap().mode(),
        Mode::V1
    );
    assert_eq!(
        Hierarchies::from_text("", "", &on_tmpfs),
        Err(Error::NotMounted)
    );
}

#[test]
fn of_two_mounts_of_a_hierarchy_the_one_that_shows_its_root_is_used() {
    let mountinfo = "\
60 31 0:32 /docker/x /other/memory rw - cgroup cgroup rw,memory
61 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    let found = Hierarchies::from_text(mountinfo, OWN, &on_tmpfs).unwrap();
    assert_eq!(found.list().len(), 1);
    assert_eq!(found.list()[0].mount, Path::new("/sys/fs/cgroup/memory"));
}

#[test]
fn a_mount_of_a_part_of_a_hierarchy_is_entered_below_that_part() {
    let mountinfo = "60 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    let found = Hierarchies::from_text(mountinfo, "4:memory:/docker/x/y", &on_tmpfs).unwrap();
    let memory = &found.list()[0];
    assert_eq!(
        memory.dir_of(&memory.own),
        Path::new("/sys/fs/cgroup/memory/y")
    );
    assert_eq!(
        memory.dir_of(Path::new("/../other")),
        Path::new("/sys/fs/cgroup/memory")
    );
}

#[test]
fn a_mount_that_another_filesystem_covers_is_not_used() {
    let probe = |path: &Path| {
        if path.ends_with("memory") {
            Probed::Other
        } else {
            on_tmpfs(path)
        }
    };
    let found = Hierarchies::from_text(HYBRID, OWN, &probe).unwrap();
    assert!(!found.controllers().contains(&"memory"));
}

#[test]
fn this_host_has_a_cgroup_filesystem() {
    let found = Hierarchies::detect().unwrap();
    assert!(found.list().iter().all(|h| h.mount.is_dir()), "{found:?}");
}

/// The short ways and the long one, on whatever host this is.
#[test]
fn the_mounts_that_are_read_early_say_what_all_say() {
    let own = file::read(Path::new("/proc/thread-self"), "cgroup").unwrap();
    let all = Hierarchies::from_mounts(mounted(&[]).unwrap(), &own, &probe).unwrap();
    assert_eq!(Hierarchies::detect().unwrap(), all);
    if let Some(unified) = whole_unified(&own) {
        assert_eq!(unified, all);
    }
}
