//! Tables over the whole of `config.json`.

use std::path::Path;

use oci_spec::runtime::{Capability, Spec};
use serde_json::{Value, json};

use super::*;
use crate::model::{
    Capabilities, EnvVar, MountPropagation, NamespaceMode, ProfileKind, Resources, SecurityProfile,
};

/// A request with everything that `config.json` is made of.
struct Case {
    pod: PodConfig,
    container: ContainerConfig,
    image: ImageProcess,
    user: ResolvedUser,
    mounts: Vec<ResolvedMount>,
    target_pid: Option<u32>,
    host: Host,
}

impl Case {
    fn new() -> Self {
        let mut pod = PodConfig::default();
        pod.security.namespaces.pid = NamespaceMode::Container;
        let mut container = ContainerConfig::default();
        container.security.namespaces.pid = NamespaceMode::Container;
        container.command = vec!["/bin/app".into()];
        let capabilities = [
            "CHOWN",
            "KILL",
            "NET_RAW",
            "NET_ADMIN",
            "SYS_ADMIN",
            "SYS_RESOURCE",
            "SETPCAP",
            "SETUID",
        ];
        Self {
            pod,
            container,
            image: ImageProcess::default(),
            user: ResolvedUser {
                uid: 5,
                gid: 6,
                groups: vec![6, 7],
                home: "/srv".into(),
            },
            mounts: Vec::new(),
            target_pid: None,
            host: Host {
                hugetlb: true,
                unified: false,
                capabilities: capabilities
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .collect(),
                oom_score_adj: 0,
                nofile_hard: 4096,
                apparmor: false,
                selinux: false,
            },
        }
    }

    fn spec(&self) -> Result<Spec> {
        build(Input {
            id: "ctr",
            pod_id: "pod",
            pod: &self.pod,
            pod_dir: Path::new("/run/pod"),
            hostname: "web",
            container: &self.container,
            image: &self.image,
            user: &self.user,
            mounts: self.mounts.clone(),
            devices: Vec::new(),
            rootfs: Path::new("/run/pod/ctr/rootfs"),
            cgroup: "/parent/ctr".into(),
            target_pid: self.target_pid,
            host: &self.host,
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.spec().expect("a spec")).expect("JSON")
    }
}

/// The `config.json` after `change`.
fn with(change: impl FnOnce(&mut Case)) -> Value {
    let mut case = Case::new();
    change(&mut case);
    case.json()
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn arguments_follow_the_table_of_kubernetes() {
    let table = [
        (
            &["/entry"][..],
            &["cmd"][..],
            &[][..],
            &[][..],
            &["/entry", "cmd"][..],
        ),
        (&["/entry"], &["cmd"], &["/command"], &[], &["/command"]),
        (&["/entry"], &["cmd"], &[], &["arg"], &["/entry", "arg"]),
        (
            &["/entry"],
            &["cmd"],
            &["/command"],
            &["arg"],
            &["/command", "arg"],
        ),
        (&[], &["cmd"], &[], &[], &["cmd"]),
        (&[], &["cmd"], &[], &["arg"], &["arg"]),
    ];
    for (entrypoint, cmd, command, args, want) in table {
        let json = with(|case| {
            case.image.entrypoint = words(entrypoint);
            case.image.cmd = words(cmd);
            case.container.command = words(command);
            case.container.args = words(args);
        });
        assert_eq!(
            strings(&json["process"]["args"]),
            want,
            "{entrypoint:?} {cmd:?} {command:?} {args:?}"
        );
    }
    let mut nothing = Case::new();
    nothing.container.command.clear();
    let error = nothing.spec().expect_err("nothing to run").report();
    assert!(error.contains("neither ENTRYPOINT nor CMD"), "{error}");
}

#[test]
fn the_last_of_an_environment_variable_wins_in_the_first_ones_place() {
    let env = |key: &str, value: &[u8]| EnvVar {
        key: key.into(),
        value: value.to_vec(),
    };
    let json = with(|case| {
        case.image.env = words(&["PATH=/image", "A=image", "EMPTY"]);
        case.container.envs = vec![env("A", b"one"), env("B", b"x=y"), env("A", b"two")];
        case.container.tty = true;
    });
    let want = [
        "PATH=/image",
        "HOSTNAME=web",
        "TERM=xterm",
        "HOME=/srv",
        "A=two",
        "EMPTY=",
        "B=x=y",
    ];
    assert_eq!(strings(&json["process"]["env"]), want);
    for (key, value, kind) in [
        ("A", &b"\xff"[..], "UTF-8"),
        ("A=B", b"", "valid"),
        ("", b"", "valid"),
        ("A", b"\0", "valid"),
    ] {
        let mut case = Case::new();
        case.container.envs = vec![env(key, value)];
        assert!(
            case.spec().expect_err("refused").report().contains(kind),
            "{key:?} {value:?}"
        );
    }
}

#[test]
fn capabilities_are_the_default_set_changed_by_the_request() {
    let sets = |add: &[&str], drop: &[&str], ambient: &[&str]| {
        let mut case = Case::new();
        case.container.security.capabilities = Some(Capabilities {
            add: words(add),
            drop: words(drop),
            add_ambient: words(ambient),
        });
        case.spec().map(|spec| {
            let json = serde_json::to_value(spec).expect("JSON");
            let caps = json["process"]["capabilities"].clone();
            let sorted = |set: &str| {
                let mut names: Vec<String> = strings(&caps[set])
                    .into_iter()
                    .map(|name| name.replace("CAP_", ""))
                    .collect();
                names.sort();
                names.join(" ")
            };
            (sorted("bounding"), sorted("ambient"), sorted("inheritable"))
        })
    };
    let bounding = |add: &[&str], drop: &[&str]| sets(add, drop, &[]).expect("sets").0;
    let default = "CHOWN KILL NET_RAW SETPCAP SETUID";
    assert_eq!(bounding(&[], &[]), default);
    assert_eq!(
        bounding(&["NET_ADMIN"], &["CAP_KILL", "net_raw"]),
        "CHOWN NET_ADMIN SETPCAP SETUID"
    );
    assert_eq!(bounding(&["cap_sys_admin"], &["ALL"]), "SYS_ADMIN");
    assert_eq!(
        bounding(&["ALL"], &["SYS_ADMIN"]),
        "CHOWN KILL NET_ADMIN NET_RAW SETPCAP SETUID SYS_RESOURCE"
    );
    assert_eq!(bounding(&["all"], &["all"]), "");
    let ambient = sets(&[], &[], &["NET_ADMIN"]).expect("sets");
    assert_eq!(
        (ambient.1.as_str(), ambient.2.as_str()),
        ("NET_ADMIN", "NET_ADMIN")
    );
    assert!(ambient.0.contains("NET_ADMIN"));
    assert!(
        sets(&["FLY"], &[], &[])
            .expect_err("unknown")
            .report()
            .contains("\"FLY\" is no capability")
    );
    let missing = sets(&["SYS_BOOT"], &[], &[])
        .expect_err("not ours to give")
        .report();
    assert!(
        missing.contains("davit-cri itself does not have it"),
        "{missing}"
    );
}

#[test]
fn a_privileged_container_has_what_the_engine_has_and_nothing_is_hidden() {
    let json = with(|case| {
        case.container.security.privileged = true;
        case.container.security.masked_paths = words(&["/proc/kcore"]);
        case.container.security.seccomp = Some(SecurityProfile {
            kind: ProfileKind::RuntimeDefault,
            localhost_ref: String::new(),
        });
    });
    assert_eq!(
        strings(&json["process"]["capabilities"]["effective"]).len(),
        Case::new().host.capabilities.len()
    );
    assert_eq!(json["linux"]["maskedPaths"], json!([]));
    assert_eq!(
        json["linux"]["resources"]["devices"],
        json!([{"allow": true, "access": "rwm"}])
    );
    let sys = json["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .find(|mount| mount["destination"] == "/sys");
    assert!(strings(&sys.expect("sys")["options"]).contains(&"rw"));
    assert!(json["linux"].get("seccomp").is_none());
}

#[test]
fn namespaces_are_joined_made_or_the_hosts() {
    use NamespaceMode::{Container, Node, Pod, Target};
    let all = |pod: (NamespaceMode, NamespaceMode, NamespaceMode), own: NamespaceMode| {
        let mut case = Case::new();
        let modes = &mut case.pod.security.namespaces;
        (modes.network, modes.ipc, modes.pid) = pod;
        let modes = &mut case.container.security.namespaces;
        (modes.network, modes.ipc, modes.pid) = (pod.0, pod.1, own);
        case.target_pid = (own == Target).then_some(77);
        case.spec().map(|spec| {
            let json = serde_json::to_value(spec).expect("JSON");
            let list = json["linux"]["namespaces"].as_array().expect("namespaces");
            let words = list.iter().map(|one| match one["path"].as_str() {
                Some(path) => format!("{}={path}", one["type"].as_str().expect("type")),
                None => one["type"].as_str().expect("type").to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        })
    };
    let shared = "mount network=/run/pod/ns/net uts=/run/pod/ns/uts ipc=/run/pod/ns/ipc";
    let table = [
        ((Pod, Pod, Container), Container, format!("{shared} pid")),
        (
            (Pod, Pod, Pod),
            Pod,
            format!("{shared} pid=/run/pod/ns/pid"),
        ),
        ((Pod, Pod, Pod), Container, format!("{shared} pid")),
        ((Pod, Pod, Container), Pod, format!("{shared} pid")),
        (
            (Pod, Pod, Container),
            Target,
            format!("{shared} pid=/proc/77/ns/pid"),
        ),
        ((Pod, Pod, Node), Node, shared.to_owned()),
        ((Pod, Pod, Node), Pod, shared.to_owned()),
        ((Node, Node, Container), Container, "mount pid".to_owned()),
        (
            (Node, Pod, Container),
            Container,
            "mount ipc=/run/pod/ns/ipc pid".to_owned(),
        ),
    ];
    for (pod, own, want) in table {
        assert_eq!(
            all(pod, own).expect("namespaces"),
            want,
            "pod {pod:?}, container {own:?}"
        );
    }
    let unified = with(|case| case.host.unified = true);
    let kinds = unified["linux"]["namespaces"]
        .as_array()
        .expect("namespaces");
    assert!(
        kinds.iter().any(|one| one["type"] == "cgroup"),
        "on cgroup v2 the container sees its own cgroup as root"
    );
}

#[test]
fn mounts_are_made_from_shallow_to_deep_and_the_request_replaces_a_default() {
    let own = |target: &str, readonly, propagation| ResolvedMount {
        source: "/host".into(),
        target: target.into(),
        readonly,
        recursive_read_only: false,
        propagation,
        image: false,
        uids: Vec::new(),
        gids: Vec::new(),
    };
    let json = with(|case| {
        case.mounts = vec![
            own("/data/deep/er", false, MountPropagation::Private),
            own("/etc/hosts", true, MountPropagation::Private),
            own("/data", false, MountPropagation::Bidirectional),
        ];
    });
    let mounts = json["mounts"].as_array().expect("mounts");
    let order: Vec<&str> = mounts
        .iter()
        .filter_map(|mount| mount["destination"].as_str())
        .collect();
    let depths: Vec<usize> = order.iter().map(|path| path.matches('/').count()).collect();
    assert!(depths.is_sorted(), "{order:?}");
    assert_eq!(
        order.iter().filter(|path| **path == "/etc/hosts").count(),
        1
    );
    let find = |path: &str| {
        mounts
            .iter()
            .find(|mount| mount["destination"] == path)
            .expect("there")
    };
    assert_eq!(find("/etc/hosts")["source"], "/host");
    assert_eq!(
        strings(&find("/etc/hosts")["options"]),
        ["rbind", "rprivate", "ro"]
    );
    assert_eq!(
        strings(&find("/data")["options"]),
        ["rbind", "rshared", "rw"]
    );
    assert_eq!(json["linux"]["rootfsPropagation"], "rshared");
    assert_eq!(find("/dev/shm")["source"], "/run/pod/shm");
    assert!(strings(&find("/sys")["options"]).contains(&"ro"));

    let host_ipc = with(|case| case.pod.security.namespaces.ipc = NamespaceMode::Node);
    let shm = host_ipc["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .find(|mount| mount["destination"] == "/dev/shm");
    assert_eq!(shm.expect("shm")["source"], "/dev/shm");
}

#[test]
fn limits_are_written_as_they_were_asked_for() {
    let json = with(|case| {
        case.container.resources = Some(Resources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 512,
            cpuset_cpus: "0-1".into(),
            memory_limit_in_bytes: 1 << 20,
            memory_swap_limit_in_bytes: 2 << 20,
            oom_score_adj: -998,
            ..Resources::default()
        });
    });
    let limits = &json["linux"]["resources"];
    assert_eq!(
        limits["cpu"],
        json!({"period": 100_000, "quota": -1, "shares": 512, "cpus": "0-1"})
    );
    assert_eq!(limits["memory"], json!({"limit": 1 << 20, "swap": 2 << 20}));
    assert_eq!(
        limits["devices"],
        json!([{"allow": false, "access": "rwm"}])
    );
    assert_eq!(json["process"]["oomScoreAdj"], -998);
    assert_eq!(json["linux"]["cgroupsPath"], "/parent/ctr");

    let weak = with(|case| {
        case.host
            .capabilities
            .retain(|one| *one != Capability::SysResource);
        case.host.oom_score_adj = -5;
        case.container.resources = Some(Resources {
            oom_score_adj: -998,
            ..Resources::default()
        });
    });
    assert_eq!(
        weak["process"]["oomScoreAdj"], -5,
        "as far as the engine may go"
    );
    let none = with(|_| {});
    assert!(
        none["linux"]["resources"].get("memory").is_none()
            && none["process"].get("oomScoreAdj").is_none()
    );

    for change in [
        Resources {
            memory_limit_in_bytes: 2048,
            memory_swap_limit_in_bytes: 1024,
            ..Resources::default()
        },
        Resources {
            cpu_shares: -1,
            ..Resources::default()
        },
        Resources {
            oom_score_adj: 1001,
            ..Resources::default()
        },
    ] {
        let mut case = Case::new();
        case.container.resources = Some(change.clone());
        assert!(case.spec().is_err(), "{change:?}");
    }
}

#[test]
fn the_rest_is_what_older_runtimes_understand() {
    let json = with(|case| {
        case.container.security.readonly_rootfs = true;
        case.container.security.no_new_privs = true;
        case.container.security.masked_paths = words(&["/proc/kcore"]);
        case.container.security.readonly_paths = words(&["/proc/sys"]);
        case.container
            .annotations
            .insert("mine".into(), "kept".into());
    });
    assert_eq!(json["ociVersion"], "1.0.2");
    assert_eq!(
        json["root"],
        json!({"path": "/run/pod/ctr/rootfs", "readonly": true})
    );
    assert_eq!(
        json["process"]["user"],
        json!({"uid": 5, "gid": 6, "additionalGids": [6, 7]})
    );
    assert_eq!(json["process"]["noNewPrivileges"], true);
    assert_eq!(
        json["process"]["rlimits"],
        json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}])
    );
    assert_eq!(strings(&json["linux"]["maskedPaths"]), ["/proc/kcore"]);
    assert_eq!(strings(&json["linux"]["readonlyPaths"]), ["/proc/sys"]);
    assert_eq!(json["annotations"]["mine"], "kept");
    assert_eq!(json["annotations"]["io.kubernetes.cri.sandbox-id"], "pod");
    assert!(
        json.get("hostname").is_none(),
        "the shim has set it in the namespace that is joined"
    );
}

#[test]
fn huge_pages_are_limited_where_the_host_can() {
    let asked = |limit| Resources {
        hugepage_limits: vec![crate::model::HugepageLimit {
            page_size: "2MB".into(),
            limit,
        }],
        ..Resources::default()
    };
    let case = Case::new();
    let mut host = case.host;
    let limits = |asked: &Resources, host: &Host| {
        let limits = resources::limits(asked, "linux.resources", host);
        limits.map(|limits| {
            let pages = limits.hugepage_limits().clone().unwrap_or_default();
            pages
                .iter()
                .map(|one| (one.page_size().clone(), one.limit()))
                .collect::<Vec<_>>()
        })
    };
    for limit in [0, 4 << 20] {
        let found = limits(&asked(limit), &host).expect("limits");
        assert_eq!(
            found,
            [("2MB".to_owned(), i64::try_from(limit).expect("small"))]
        );
    }
    host.hugetlb = false;
    assert_eq!(limits(&asked(0), &host).expect("nothing to do"), []);
    let error = limits(&asked(1), &host).expect_err("refused").report();
    assert!(
        error.starts_with("linux.resources.hugepage_limits: 1 bytes of 2MB pages"),
        "{error}"
    );
}

#[test]
fn a_label_or_profile_that_the_host_cannot_apply_is_ignored_or_refused_as_in_containerd() {
    let mut case = Case::new();
    case.container.metadata.name = "c".into();
    case.container.image.image = "i".into();
    case.container.security.selinux = Some(crate::model::SelinuxOptions {
        level: "s0:c1,c2".into(),
        ..Default::default()
    });
    case.container.security.apparmor = Some(SecurityProfile {
        kind: ProfileKind::RuntimeDefault,
        localhost_ref: String::new(),
    });
    check::container(&case.container, &case.pod, &case.host).expect("ignored");
    case.host.selinux = true;
    let error = check::container(&case.container, &case.pod, &case.host).expect_err("a label");
    assert!(error.report().contains("selinux_options"), "{error}");
    case.host.selinux = false;
    case.container.security.apparmor = Some(SecurityProfile {
        kind: ProfileKind::Localhost,
        localhost_ref: "mine".into(),
    });
    let error = check::container(&case.container, &case.pod, &case.host).expect_err("a profile");
    assert!(
        error.report().contains("\"mine\": AppArmor is not enabled"),
        "{error}"
    );
}

#[test]
fn a_pods_user_namespace_is_joined_with_its_mappings_and_volumes_carry_theirs() {
    use crate::model::{IdMapping, UserNamespace};
    let ids = vec![IdMapping {
        host_id: 1000,
        container_id: 0,
        length: 65_536,
    }];
    let json = with(|case| {
        case.pod.security.namespaces.userns = Some(UserNamespace {
            mode: NamespaceMode::Pod,
            uids: ids.clone(),
            gids: ids.clone(),
        });
        case.mounts = vec![ResolvedMount {
            source: "/host".into(),
            target: "/data".into(),
            readonly: false,
            recursive_read_only: false,
            propagation: MountPropagation::Private,
            image: false,
            uids: ids.clone(),
            gids: ids.clone(),
        }];
    });
    let namespaces = json["linux"]["namespaces"].as_array().expect("namespaces");
    let user = namespaces.iter().find(|one| one["type"] == "user");
    assert_eq!(user.expect("user")["path"], "/run/pod/ns/user");
    let mapping = json!([{"hostID": 1000, "containerID": 0, "size": 65_536}]);
    assert_eq!(json["linux"]["uidMappings"], mapping);
    assert_eq!(json["linux"]["gidMappings"], mapping);
    let mounts = json["mounts"].as_array().expect("mounts");
    let data = mounts.iter().find(|one| one["destination"] == "/data");
    assert_eq!(data.expect("data")["uidMappings"], mapping);
}
