use engine::model::{ContainerState, MountPropagation, NamespaceMode, ProfileKind};
use proto::runtime::v1;
use tonic::{Code, Status};

use super::*;

fn message(invalid: Invalid) -> String {
    let status = Status::from(invalid);
    assert_eq!(status.code(), Code::InvalidArgument);
    status.message().to_owned()
}

fn container_request() -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: "web".into(),
            attempt: 2,
        }),
        image: Some(v1::ImageSpec {
            image: "busybox".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_missing_message_is_named() {
    let config = v1::ContainerConfig {
        image: None,
        ..container_request()
    };
    assert_eq!(
        message(container::config(config).expect_err("no image")),
        "image: is missing"
    );
    let config = v1::PodSandboxConfig::default();
    assert_eq!(
        message(
            pod::config(config)
                .within("config")
                .expect_err("no metadata")
        ),
        "config.metadata: is missing"
    );
}

#[test]
fn an_unknown_enum_value_is_named_with_its_path() {
    let mounts = vec![
        v1::Mount::default(),
        v1::Mount {
            propagation: 9,
            ..Default::default()
        },
    ];
    let config = v1::ContainerConfig {
        mounts,
        ..container_request()
    };
    assert_eq!(
        message(container::config(config).expect_err("propagation 9")),
        "mounts[1].propagation: unknown value 9"
    );

    let options = v1::NamespaceOption {
        pid: 7,
        ..Default::default()
    };
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..Default::default()
    };
    let linux = v1::LinuxPodSandboxConfig {
        security_context: Some(security),
        ..Default::default()
    };
    let config = v1::PodSandboxConfig {
        metadata: Some(Default::default()),
        linux: Some(linux),
        ..Default::default()
    };
    let text = message(pod::config(config).within("config").expect_err("pid 7"));
    assert_eq!(
        text,
        "config.linux.security_context.namespace_options.pid: unknown value 7"
    );
}

#[test]
fn mount_options_are_refused_not_forgotten() {
    let mount = v1::Mount {
        mount_options: vec!["noexec".into()],
        ..Default::default()
    };
    let config = v1::ContainerConfig {
        mounts: vec![mount],
        ..container_request()
    };
    let text = message(container::config(config).expect_err("noexec"));
    assert_eq!(
        text,
        "mounts[0].mount_options: [\"noexec\"]: additional mount options are not supported yet"
    );
}

/// api.proto: KeyValue.value is bytes; nothing says that they are UTF-8.
#[test]
fn environment_values_are_bytes() {
    let envs = vec![v1::KeyValue {
        key: "RAW".into(),
        value: vec![0xff, 0xfe],
    }];
    let config = container::config(v1::ContainerConfig {
        envs,
        ..container_request()
    })
    .expect("a good config");
    assert_eq!(config.envs[0].value, [0xff, 0xfe]);
}

#[test]
fn stop_signals_have_the_names_that_people_use() {
    for (signal, text) in [
        (v1::Signal::Sigterm, "SIGTERM"),
        (v1::Signal::Sigusr1, "SIGUSR1"),
        (v1::Signal::Sigrtmin, "SIGRTMIN"),
        (v1::Signal::Sigrtminplus3, "SIGRTMIN+3"),
        (v1::Signal::Sigrtmaxminus14, "SIGRTMAX-14"),
    ] {
        assert_eq!(
            signal::name("stop_signal", signal.into()),
            Ok(Some(text.to_owned()))
        );
        assert_eq!(signal::number(text), i32::from(signal), "{text}");
    }
    assert_eq!(signal::name("stop_signal", 0), Ok(None));
    assert_eq!(signal::number("QUIT"), i32::from(v1::Signal::Sigquit));
    assert_eq!(signal::number("37"), 0);
}

#[test]
fn the_old_spelling_of_profiles_still_counts() {
    #[allow(deprecated)]
    let context = |path: &str| v1::LinuxContainerSecurityContext {
        seccomp_profile_path: path.into(),
        ..Default::default()
    };
    let seccomp = |path: &str| security::container(context(path)).map(|s| s.seccomp);
    assert_eq!(seccomp(""), Ok(None));
    let local = seccomp("localhost//var/p.json")
        .expect("known")
        .expect("set");
    assert_eq!(
        (local.kind, local.localhost_ref.as_str()),
        (ProfileKind::Localhost, "/var/p.json")
    );
    let default = seccomp("runtime/default").expect("known").expect("set");
    assert_eq!(default.kind, ProfileKind::RuntimeDefault);
    let text = message(seccomp("nonsense").expect_err("unknown"));
    assert!(
        text.starts_with("seccomp_profile_path: \"nonsense\" is none of"),
        "{text}"
    );
}

#[test]
fn mounts_and_namespaces_come_back_as_they_went_in() {
    let mount = v1::Mount {
        container_path: "/data".into(),
        host_path: "/srv".into(),
        readonly: true,
        recursive_read_only: true,
        propagation: v1::MountPropagation::PropagationHostToContainer.into(),
        uid_mappings: vec![v1::IdMapping {
            host_id: 1,
            container_id: 2,
            length: 3,
        }],
        ..Default::default()
    };
    let config = container::config(v1::ContainerConfig {
        mounts: vec![mount],
        ..container_request()
    })
    .expect("good");
    assert_eq!(
        config.mounts[0].propagation,
        MountPropagation::HostToContainer
    );
    assert!(config.mounts[0].recursive_read_only);

    let options = v1::NamespaceOption {
        pid: v1::NamespaceMode::Target.into(),
        target_id: "abc".into(),
        network: v1::NamespaceMode::Node.into(),
        userns_options: Some(v1::UserNamespace {
            mode: v1::NamespaceMode::Node.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let model = security::namespaces(options.clone()).expect("good");
    assert_eq!(model.pid, NamespaceMode::Target);
    assert_eq!(security::namespaces_into(model), options);
}

#[test]
fn resources_come_back_as_they_went_in() {
    let limits = v1::LinuxContainerResources {
        cpu_period: 1,
        cpu_quota: 2,
        cpu_shares: 3,
        memory_limit_in_bytes: 4,
        oom_score_adj: -5,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        hugepage_limits: vec![v1::HugepageLimit {
            page_size: "2MB".into(),
            limit: 6,
        }],
        unified: BTreeMap::from([("memory.high".into(), "7".into())]),
        memory_swap_limit_in_bytes: 8,
    };
    assert_eq!(resources::into(resources::from(limits.clone())), limits);
}

/// CRI's empty strings and absent messages in filters mean "any".
#[test]
fn an_empty_filter_matches_everything() {
    assert_eq!(container::filter(None), Ok(Default::default()));
    assert_eq!(
        container::filter(Some(Default::default())),
        Ok(Default::default())
    );
    let exited = v1::ContainerStateValue {
        state: v1::ContainerState::ContainerExited.into(),
    };
    let filter = v1::ContainerFilter {
        state: Some(exited),
        pod_sandbox_id: "p".into(),
        ..Default::default()
    };
    let filter = container::filter(Some(filter)).expect("good");
    assert_eq!(
        (filter.state, filter.pod_id.as_deref()),
        (Some(ContainerState::Exited), Some("p"))
    );
}

#[test]
fn a_negative_timeout_is_refused() {
    assert_eq!(
        message(seconds("timeout", -1).expect_err("negative")),
        "timeout: -1 is negative"
    );
    assert_eq!(seconds("timeout", 2), Ok(Duration::from_secs(2)));
}
