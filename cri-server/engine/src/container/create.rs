//! CreateContainer: from a request to a process that waits for its start, or to nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shim::protocol::Create;
use snapshotter::Lease;
use sys::failpoint;

use super::{remove, rootfs, volumes};
use crate::config::CgroupDriver;
use crate::error::{Error, Result};
use crate::ids;
use crate::images;
use crate::model::{ContainerConfig, ContainerUser, Mount};
use crate::node::{Node, make_dir};
use crate::placement;
use crate::pod::supervisor::Supervisor;
use crate::record::{self, Change, ContainerRecord, Phase, PodRecord};
use crate::spec::{self, Host, ImageProcess, ResolvedUser};
use crate::undo::{self, Undo};

/// What a new container is, besides its record.
pub(crate) struct Created {
    pub(crate) record: ContainerRecord,
    /// Keeps its layers.
    pub(crate) lease: Lease,
}

/// What is asked for.
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) config: ContainerConfig,
    /// With the process namespace of another container: its first process.
    pub(crate) target_pid: Option<u32>,
}

/// Makes the container; on failure everything is undone. Blocks.
pub(crate) fn create(node: &Arc<Node>, pod: &PodRecord, request: Request) -> Result<Created> {
    let Request {
        id,
        config,
        target_pid,
    } = request;
    spec::check::container(&config, &pod.config, &node.host)?;
    let image = find_image(node, &config)?;
    let volumes = volumes::find(node, &config.mounts)?;
    let bundle = node.bundle(&pod.id, &id);
    let cgroup = placement::of_container(driver(node, pod), &pod.cgroup_parent, &id);
    let mut record = plan(pod, id, config, &image, cgroup)?;
    let volume_layers = volumes.iter().flat_map(|volume| &volume.layers);
    record.volume_layers = volume_layers.clone().map(|one| one.0.to_string()).collect();
    let layers: Vec<_> = image.layers.iter().chain(volume_layers).copied().collect();
    undo::on_error(|undo| {
        // The lease comes before everything: from here on nobody can take the layers away.
        let lease = node.store.lease(&layers).map_err(|error| {
            images::failed(
                format!("hold the layers of image {}", record.image_id),
                error,
            )
        })?;
        intend(node, &record, undo)?;
        mount(node, pod, &record, &image, undo)?;
        let mounts = volumes::mount(node, &bundle, &volumes, record.config.mounts.clone())?;
        let user = configure(node, pod, &record, &image, &mounts, target_pid)?;
        record.user = Some(user);
        failpoint::hit("create_container.config")?;

        record.pid = Some(start_runtime(node, pod, &record, &bundle, undo)?);
        failpoint::hit("create_container.runtime")?;

        record.phase = record
            .phase
            .after(&Change::Created)
            .unwrap_or(Phase::Created);
        record::write(&ContainerRecord::path(&bundle), &record)?;
        failpoint::hit("create_container.created")?;
        Ok(Created {
            record: record.clone(),
            lease,
        })
    })
}

/// Who makes the container's cgroup: a pod that was made with another driver keeps its own.
fn driver(node: &Node, pod: &PodRecord) -> CgroupDriver {
    match node.config.cgroup_driver {
        CgroupDriver::Systemd if pod.cgroup_parent.ends_with(".slice") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    }
}

fn find_image(node: &Node, config: &ContainerConfig) -> Result<snapshotter::Image> {
    let reference = &config.image.image;
    let found = node
        .store
        .image(reference)
        .map_err(|error| images::failed(format!("look up image {reference:?}"), error))?;
    found.ok_or_else(|| Error::ImageNotFound {
        reference: reference.clone(),
    })
}

/// The record of the new container.
fn plan(
    pod: &PodRecord,
    id: String,
    config: ContainerConfig,
    image: &snapshotter::Image,
    cgroup: String,
) -> Result<ContainerRecord> {
    let log_path = match (pod.config.log_directory.as_str(), config.log_path.as_str()) {
        ("", _) | (_, "") => String::new(),
        (directory, file) => Path::new(directory)
            .join(file)
            .to_string_lossy()
            .into_owned(),
    };
    if !log_path.is_empty() && !log_path.starts_with('/') {
        return Err(Error::invalid(
            "log_directory",
            format!("{:?} is not absolute", pod.config.log_directory),
        ));
    }
    let image_id = image.id.to_string();
    Ok(ContainerRecord {
        version: record::VERSION,
        pod_id: pod.id.clone(),
        phase: Phase::Creating,
        created_at: ids::now(),
        image_ref: image
            .repo_digests
            .first()
            .cloned()
            .unwrap_or_else(|| image_id.clone()),
        image_id,
        layers: image
            .layers
            .iter()
            .map(|layer| layer.0.to_string())
            .collect(),
        volume_layers: Vec::new(),
        user: None,
        stop_signal: super::stop_signal(&config, &image.config.stop_signal)?,
        log_path,
        cgroup,
        pid: None,
        resources: config.resources.clone(),
        config,
        id,
    })
}

/// Writes what is about to be made, so that a daemon that dies finds it.
fn intend(node: &Arc<Node>, record: &ContainerRecord, undo: &mut Undo) -> Result<()> {
    let bundle = node.bundle(&record.pod_id, &record.id);
    undo.push("remove the container's directories", {
        let (node, pod, id) = (Arc::clone(node), record.pod_id.clone(), record.id.clone());
        move || remove::remove_dirs(&node, &pod, &id)
    });
    make_dir(&bundle)?;
    failpoint::hit("create_container.directory")?;
    record::write(&ContainerRecord::path(&bundle), record)?;
    failpoint::hit("create_container.intent")?;
    Ok(())
}

/// Mounts the root file system.
fn mount(
    node: &Arc<Node>,
    pod: &PodRecord,
    record: &ContainerRecord,
    image: &snapshotter::Image,
    undo: &mut Undo,
) -> Result<()> {
    let rootfs = node.bundle(&record.pod_id, &record.id).join("rootfs");
    let writable = node.writable(&record.pod_id, &record.id);
    undo.push("unmount the root file system", {
        let (rootfs, writable) = (rootfs.clone(), writable.clone());
        move || remove::unmount(&rootfs, &writable)
    });
    make_dir(&writable)?;
    make_dir(&rootfs)?;
    rootfs::mount(node, pod, &image.layers, &writable, &rootfs)?;
    failpoint::hit("create_container.rootfs")?;
    Ok(())
}

/// Looks up what the configuration needs and writes `config.json`.
fn configure(
    node: &Node,
    pod: &PodRecord,
    record: &ContainerRecord,
    image: &snapshotter::Image,
    mounts: &[Mount],
    target_pid: Option<u32>,
) -> Result<ContainerUser> {
    let bundle = node.bundle(&record.pod_id, &record.id);
    let (config, rootfs) = (&record.config, bundle.join("rootfs"));
    let database = spec::user::Database::read(&rootfs)?;
    let user = spec::user::resolve(&config.security, &image.config.user, &database)?;
    spec::userns::check_user(&user, &pod.config.security.namespaces)?;
    let mut devices = if config.security.privileged {
        Host::devices()
    } else {
        Vec::new()
    };
    devices.extend(spec::devices::resolve(&config.devices)?);
    let process = ImageProcess {
        env: image.config.env.clone(),
        entrypoint: image.config.entrypoint.clone(),
        cmd: image.config.cmd.clone(),
        working_dir: image.config.working_dir.clone(),
    };
    let input = spec::Input {
        id: &record.id,
        pod_id: &pod.id,
        pod: &pod.config,
        pod_dir: &node.pod_dir(&pod.id),
        hostname: &pod.hostname,
        container: config,
        image: &process,
        user: &user,
        mounts: spec::mounts::resolve(mounts)?,
        devices,
        rootfs: &rootfs,
        cgroup: PathBuf::from(placement::oci_path(&record.cgroup)),
        target_pid,
        host: &node.host,
    };
    rootfs::prepare(&input, &image.config.volumes)?;
    let path = bundle.join("config.json");
    let json = serde_json::to_vec(&spec::build(input)?).map_err(|error| Error::Record {
        path: path.clone(),
        source: Box::new(error),
    })?;
    fs::write(&path, json).map_err(|source| Error::Io {
        action: "write",
        path,
        source,
    })?;
    Ok(container_user(&user))
}

fn container_user(user: &ResolvedUser) -> ContainerUser {
    ContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    }
}

/// Has the shim run the OCI runtime; the answer is the first process.
fn start_runtime(
    node: &Arc<Node>,
    pod: &PodRecord,
    record: &ContainerRecord,
    bundle: &Path,
    undo: &mut Undo,
) -> Result<u32> {
    let mut runtime = node.handlers.get(&pod.handler)?;
    if placement::is_scope(&record.cgroup) {
        runtime.args.push("--systemd-cgroup".into());
    }
    let log_path = (!record.log_path.is_empty()).then(|| PathBuf::from(&record.log_path));
    if let Some(directory) = log_path.as_deref().and_then(Path::parent) {
        fs::create_dir_all(directory).map_err(|source| Error::Io {
            action: "make directory",
            path: directory.to_owned(),
            source,
        })?;
    }
    undo.push("delete the container", {
        let (node, record, handler) = (Arc::clone(node), record.clone(), pod.handler.clone());
        move || remove::delete(&node, &record.pod_id, &record.id, &handler, &record.cgroup)
    });
    let request = Create {
        container_id: record.id.clone(),
        runtime,
        bundle: bundle.to_owned(),
        log_path,
        terminal: record.config.tty,
        stdin: record.config.stdin,
        create_args: Vec::new(),
    };
    let supervisor = Supervisor::new(node.pod_dir(&pod.id));
    let action = format!("create container {:?}", record.config.metadata.name);
    let created = supervisor.ask(&action, |client| client.create(request))?;
    u32::try_from(created.pid)
        .map_err(|_| Error::Internal(format!("the shim answered with pid {}", created.pid)))
}
