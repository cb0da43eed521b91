//! Cgroups by systemd: against the host's own where it was booted with it, and else against one that the test starts
//! in namespaces of its own, on cgroup v2 without controllers.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::{Container, Runtime, eventually, text};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What the private systemd sees: no unit files but its own, and a cgroup tree whose root is the test's.
const INSIDE: &str = "set -e
mount --make-rprivate /
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/systemd/system
mkdir -p /run/systemd/system /run/lock
printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/davit-test.target
exec env -i container=davit PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=davit-test.target --log-target=null --show-status=no";

/// Where systemd is PID 1.
struct Host {
    private: Option<(Child, i32, PathBuf)>,
}

impl Host {
    fn find() -> Option<Self> {
        if Runtime::ours().is_empty() {
            return None;
        }
        if Path::new("/run/systemd/private").exists() {
            return Some(Self { private: None });
        }
        if Path::new("/lib/systemd/systemd").exists() {
            return Some(Self::start());
        }
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "needs systemd (package systemd)"
        );
        eprintln!("skipped: needs systemd (package systemd)");
        None
    }

    fn start() -> Self {
        let mounts = sys::mountinfo::own().unwrap();
        let tree = mounts
            .iter()
            .find(|mount| mount.fs_type == "cgroup2")
            .unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("davit-test-systemd-{}-{number}", std::process::id());
        let cgroup = tree.mount_point.join(name);
        std::fs::create_dir(&cgroup).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec unshare -C -m -p -n -u -i -f --kill-child sh -c \"$0\"",
            cgroup.display()
        );
        let child = Command::new("sh")
            .args(["-c", &script, INSIDE])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let mut pid = 0;
        eventually("a private systemd", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            pid = text.trim().parse().unwrap_or(0);
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            pid != 0 && name.trim() == "systemd"
        });
        let host = Self {
            private: Some((child, pid, cgroup)),
        };
        eventually("a private systemd that runs", || {
            let state = host.sh("test -S /run/systemd/private && systemctl is-system-running");
            matches!(text(&state.stdout).trim(), "running" | "degraded")
        });
        host
    }

    fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// A command beside systemd, killed after a while.
    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "-k", "1", "40"]);
        if let Some((_, pid, _)) = &self.private {
            command.args(["nsenter", "-a", "-t", &pid.to_string()]);
            command.arg(format!("--wd={}", dir.display()));
        }
        command.current_dir(dir).stdin(Stdio::null());
        command
    }

    /// Its output goes to files: what it leaves running in the background would keep a pipe open.
    fn sh(&self, script: &str) -> Output {
        let mut command = self.command(Path::new("/"));
        let files = [0, 1].map(|_| tempfile::NamedTempFile::new().unwrap());
        command
            .args(["sh", "-c", script])
            .stdout(files[0].reopen().unwrap())
            .stderr(files[1].reopen().unwrap());
        let status = command.status().unwrap();
        let [stdout, stderr] = files.map(|file| std::fs::read(file.path()).unwrap());
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// The output of a script that must succeed.
    fn must(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.status.success(), "{script}: {output:?}");
        text(&output.stdout).trim().to_owned()
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.must(&format!("systemctl show --value -p {name} {unit}"))
    }

    /// Whether limits can be set: not below a cgroup without controllers.
    fn has_controllers(&self) -> bool {
        !self.is_private()
    }

    fn is_v2(&self) -> bool {
        self.sh("test -e /sys/fs/cgroup/cgroup.controllers")
            .status
            .success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some((child, _, cgroup)) = &mut self.private {
            child.kill().unwrap();
            child.wait().unwrap();
            eventually("the cgroup of the private systemd goes", || remove(cgroup));
        }
    }
}

/// Removes a tree of cgroups; whether it is gone.
fn remove(dir: &Path) -> bool {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    std::fs::remove_dir(dir).is_ok() || !dir.exists()
}

/// A container in a unit of its own.
struct Unit<'a> {
    host: &'a Host,
    container: Container,
}

impl<'a> Unit<'a> {
    fn new(host: &'a Host, runtime: Runtime, script: &str) -> Self {
        let container = Container::new(runtime, script).with(|config| {
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "cgroup"}));
        });
        let path = format!("davit-test.slice:dt:{}", container.id);
        Self {
            host,
            container: container.with(|config| config["linux"]["cgroupsPath"] = path.into()),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.container.config);
        self
    }

    fn name(&self) -> String {
        format!("dt-{}.scope", self.container.id)
    }

    /// Any command: its exit code, stdout and stderr.
    fn call(&self, args: &[&str]) -> (Option<i32>, String, String) {
        self.container.write_config();
        let files = [0, 1].map(|_| tempfile::NamedTempFile::new().unwrap());
        let mut command = self.host.command(self.container.bundle());
        command
            .args([self.container.runtime.program(), "--root"])
            .arg(self.container.state_root());
        command.arg("--systemd-cgroup").args(args);
        command
            .stdout(files[0].reopen().unwrap())
            .stderr(files[1].reopen().unwrap());
        let code = command.status().unwrap().code();
        let [out, err] = files.map(|file| std::fs::read_to_string(file.path()).unwrap());
        (code, out, err)
    }

    fn must(&self, args: &[&str]) -> String {
        let (code, out, err) = self.call(args);
        assert_eq!(
            code,
            Some(0),
            "{:?} {args:?}: {out}{err}",
            self.container.runtime
        );
        out
    }

    fn start(&self) {
        self.must(&["create", &self.container.id]);
        self.must(&["start", &self.container.id]);
    }

    fn exec(&self, script: &str) -> (Option<i32>, String, String) {
        self.call(&["exec", &self.container.id, "sh", "-c", script])
    }

    fn is_active(&self) -> bool {
        self.host.property(&self.name(), "ActiveState") == "active"
    }

    fn assert_nothing_left(&self) {
        assert!(!self.is_active());
        let find = format!("find /sys/fs/cgroup -name {}", self.name());
        assert_eq!(self.host.must(&find), "");
        let states = std::fs::read_dir(self.container.state_root());
        assert_eq!(states.map_or(0, |dir| dir.flatten().count()), 0);
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        // The test has said already what was wrong; this only cleans up.
        drop(self.call(&["delete", "--force", &self.container.id]));
    }
}

/// This runtime, and runc where nothing keeps it from working: it refuses cgroup v2 without controllers.
fn runtimes(host: &Host) -> Vec<Runtime> {
    if host.is_private() {
        Runtime::ours()
    } else {
        Runtime::all()
    }
}

#[test]
fn a_container_is_a_delegated_scope_in_its_slice_until_it_is_deleted() {
    let Some(host) = Host::find() else { return };
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "sleep 1000");
        unit.start();
        let name = unit.name();
        let wanted = format!("/davit.slice/davit-test.slice/{name}");
        assert_eq!(host.property(&name, "ControlGroup"), wanted, "{runtime:?}");
        for (property, value) in [
            ("ActiveState", "active"),
            ("Slice", "davit-test.slice"),
            ("Delegate", "yes"),
            ("DefaultDependencies", "no"),
            ("MemoryAccounting", "yes"),
            ("CPUAccounting", "yes"),
            ("TasksAccounting", "yes"),
            ("DevicePolicy", "strict"),
        ] {
            assert_eq!(
                host.property(&name, property),
                value,
                "{runtime:?} {property}"
            );
        }
        // All of its processes are in it, those that exec adds too.
        let state: Value =
            serde_json::from_str(&unit.must(&["state", &unit.container.id])).unwrap();
        let own = host.must(&format!("cat /proc/{}/cgroup", state["pid"]));
        let everywhere =
            |line: &str| line.ends_with(&name) || (host.is_private() && !line.starts_with("0:"));
        assert!(own.lines().all(everywhere), "{runtime:?}: {own}");
        let (code, inside, _) = unit.exec("cut -d : -f 1,3 /proc/self/cgroup | grep ^0");
        if host.is_v2() {
            assert_eq!((code, inside.trim()), (Some(0), "0:/"), "{runtime:?}");
        }
        let (_, _, error) = unit.call(&["delete", &unit.container.id]);
        assert!(error.contains("not stopped"), "{error}");
        unit.must(&["kill", &unit.container.id, "KILL"]);
        eventually("the container stops", || {
            unit.must(&["state", &unit.container.id])
                .contains("\"stopped\"")
        });
        unit.must(&["delete", &unit.container.id]);
        unit.assert_nothing_left();
    }
}

#[test]
fn a_container_keeps_its_devices_when_systemd_reads_its_units_again() {
    let Some(host) = Host::find() else { return };
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["devices"] = json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}
            ]);
            let capabilities = &mut config["process"]["capabilities"];
            for set in ["bounding", "effective", "permitted"] {
                capabilities[set]
                    .as_array_mut()
                    .unwrap()
                    .push("CAP_MKNOD".into());
            }
        });
        unit.start();
        if runtime == Runtime::Davit {
            assert_eq!(host.property(&unit.name(), "NeedDaemonReload"), "no");
        }
        let denied = "mknod /dev/denied c 1 2; mknod /dev/fuse c 10 229; echo > /dev/null && cat /dev/denied";
        for _ in 0..2 {
            let (code, _, error) = unit.exec(denied);
            assert_eq!(code, Some(1), "{runtime:?}: {error}");
            assert!(
                error.contains("/dev/denied': Operation not permitted"),
                "{runtime:?}: {error}"
            );
            // Not there at all on most hosts, which is another refusal.
            let (_, _, error) = unit.exec("true < /dev/fuse");
            assert!(
                !error.contains("Operation not permitted"),
                "{runtime:?}: {error}"
            );
            host.must("systemctl daemon-reload");
        }
    }
}

#[test]
fn limits_are_known_to_systemd_and_outlive_its_reading_units_again() {
    let Some(host) = Host::find() else { return };
    if !host.has_controllers() {
        eprintln!("skipped: needs a host booted with systemd, for its controllers");
        return;
    }
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "sleep 1000").with(|config| {
            config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
            config["linux"]["resources"]["pids"] = json!({"limit": 17});
            config["linux"]["resources"]["cpu"] =
                json!({"quota": 33_333, "period": 100_000, "shares": 512, "cpus": "0"});
        });
        unit.start();
        let name = unit.name();
        let (memory, cpu, weight) = if host.is_v2() {
            ("MemoryMax", "CPUWeight", "59")
        } else {
            ("MemoryLimit", "CPUShares", "512")
        };
        // Another runtime may convert shares in another way.
        let weight = if runtime == Runtime::Davit {
            weight.to_owned()
        } else {
            host.property(&name, cpu)
        };
        for (property, value) in [
            (memory, "67108864"),
            (cpu, weight.as_str()),
            ("TasksMax", "17"),
            ("CPUQuotaPerSecUSec", "340ms"),
            ("CPUQuotaPeriodUSec", "100ms"),
            ("AllowedCPUs", "0"),
        ] {
            assert_eq!(
                host.property(&name, property),
                value,
                "{runtime:?} {property}"
            );
        }
        unit.must(&[
            "update",
            "--memory",
            "32m",
            "--pids-limit",
            "11",
            "--cpu-quota",
            "50000",
            &unit.container.id,
        ]);
        host.must("systemctl daemon-reload");
        assert_eq!(host.property(&name, memory), "33554432", "{runtime:?}");
        assert_eq!(
            host.property(&name, "CPUQuotaPerSecUSec"),
            "500ms",
            "{runtime:?}"
        );
        let value = |file: &str| {
            host.must(&format!(
                "cat $(find /sys/fs/cgroup -path '*/{name}/{file}' | head -1)"
            ))
        };
        assert_eq!(value("pids.max"), "11", "{runtime:?}");
        if host.is_v2() {
            assert_eq!(value("memory.max"), "33554432", "{runtime:?}");
            assert_eq!(value("cpu.max"), "50000 100000", "{runtime:?}");
        } else {
            assert_eq!(value("memory.limit_in_bytes"), "33554432", "{runtime:?}");
            assert_eq!(value("cpu.cfs_quota_us"), "50000", "{runtime:?}");
        }
        if runtime == Runtime::Davit {
            unit.must(&["pause", &unit.container.id]);
            unit.must(&["update", "--pids-limit", "12", &unit.container.id]);
            assert!(
                unit.must(&["state", &unit.container.id])
                    .contains("\"paused\"")
            );
            unit.must(&["resume", &unit.container.id]);
            assert_eq!(value("pids.max"), "12");
        }
    }
}

#[test]
fn a_unit_of_somebody_else_is_refused_and_left_alone() {
    let Some(host) = Host::find() else { return };
    // Genuine runc before 1.2 joins it with a warning.
    for runtime in Runtime::ours() {
        let first = Unit::new(&host, runtime, "sleep 1000");
        first.start();
        let path = first.container.config["linux"]["cgroupsPath"].clone();
        let second =
            Unit::new(&host, runtime, "true").with(|config| config["linux"]["cgroupsPath"] = path);
        let (code, _, error) = second.call(&["run", &second.container.id]);
        assert_eq!(code, Some(1), "{runtime:?}: {error}");
        assert!(first.is_active(), "{runtime:?}");
        assert_eq!(first.exec("true").0, Some(0), "{runtime:?}");
        // A unit that is no container's, in a cgroup that is not there yet.
        if runtime == Runtime::Davit {
            assert!(error.contains("not empty"), "{error}");
            let name = format!("{}-other", first.container.id);
            host.must(&format!(
                "systemd-run --unit dt-{name}.scope --scope --slice system.slice sleep 1000 >/dev/null 2>&1 &"
            ));
            let active = || host.property(&format!("dt-{name}.scope"), "ActiveState") == "active";
            eventually("the other unit", active);
            let third = Unit::new(&host, runtime, "true").with(|config| {
                config["linux"]["cgroupsPath"] = format!("davit-test.slice:dt:{name}").into()
            });
            let (code, _, error) = third.call(&["run", &third.container.id]);
            assert_eq!(code, Some(1), "{error}");
            assert!(
                error.contains("StartTransientUnit") && error.contains("UnitExists"),
                "{error}"
            );
            assert!(active(), "the other unit is gone");
            third.assert_nothing_left();
            host.must(&format!("systemctl kill -s KILL dt-{name}.scope"));
            eventually("the other unit goes", || !active());
        }
    }
}

#[test]
fn a_container_that_cannot_be_made_leaves_no_unit() {
    let Some(host) = Host::find() else { return };
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "true")
            .with(|config| config["process"]["args"] = json!(["/nothing"]));
        let (code, _, error) = unit.call(&["run", &unit.container.id]);
        assert_eq!(code, Some(1), "{runtime:?}: {error}");
        unit.assert_nothing_left();
        // A property that systemd does not know.
        let unit = Unit::new(&host, runtime, "true").with(|config| {
            config["annotations"] = json!({"org.systemd.property.NoSuchThing": "true"})
        });
        let (code, _, error) = unit.call(&["run", &unit.container.id]);
        assert_eq!(code, Some(1), "{runtime:?}: {error}");
        assert!(error.contains("NoSuchThing"), "{runtime:?}: {error}");
        unit.assert_nothing_left();
    }
}

#[test]
fn a_container_that_has_run_leaves_no_unit() {
    let Some(host) = Host::find() else { return };
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "echo hello");
        assert_eq!(
            unit.must(&["run", &unit.container.id]),
            "hello\n",
            "{runtime:?}"
        );
        unit.assert_nothing_left();
    }
}

#[test]
fn annotations_set_properties_of_the_unit() {
    let Some(host) = Host::find() else { return };
    for runtime in runtimes(&host) {
        let unit = Unit::new(&host, runtime, "sleep 1000").with(|config| {
            config["annotations"] = json!({
                "org.systemd.property.TimeoutStopUSec": "uint64 123456789",
                "org.systemd.property.CollectMode": "'inactive'",
                "org.systemd.property.After": "['davit-a.service', 'davit-b.service']"
            });
        });
        unit.start();
        assert_eq!(
            host.property(&unit.name(), "TimeoutStopUSec"),
            "2min 3.456789s",
            "{runtime:?}"
        );
        assert_eq!(
            host.property(&unit.name(), "CollectMode"),
            "inactive",
            "{runtime:?}"
        );
        let after = host.property(&unit.name(), "After");
        assert!(
            after.contains("davit-a.service") && after.contains("davit-b.service"),
            "{runtime:?}: {after}"
        );
    }
}

#[test]
fn a_cgroup_below_the_scope_can_be_the_containers_own() {
    let Some(host) = Host::find() else { return };
    if !host.is_v2() {
        eprintln!("skipped: needs cgroup v2, where delegation is safe");
        return;
    }
    let unit = Unit::new(&host, Runtime::Davit, "sleep 1000").with(|config| {
        config["annotations"] = json!({"run.oci.systemd.subgroup": "ctr", "run.oci.delegate-cgroup": "inner"});
        config["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev"]}
        ));
    });
    unit.start();
    let script = "grep ^0 /proc/1/cgroup; grep ^0 /proc/self/cgroup; mkdir /sys/fs/cgroup/inner/more && echo made";
    let (code, out, error) = unit.exec(script);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "0::/inner\n0::/inner\nmade\n"),
        "{error}"
    );
    let state: Value = serde_json::from_str(&unit.must(&["state", &unit.container.id])).unwrap();
    let own = host.must(&format!("grep ^0 /proc/{}/cgroup", state["pid"]));
    assert!(
        own.ends_with(&format!("{}/ctr/inner", unit.name())),
        "{own}"
    );
    unit.must(&["delete", "--force", &unit.container.id]);
    unit.assert_nothing_left();
}

#[test]
fn a_path_of_another_form_is_refused_in_runcs_words() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "true")
            .with(|config| config["linux"]["cgroupsPath"] = "/web".into());
        container.write_config();
        if runtime == Runtime::Runc && !Path::new("/run/systemd/system").is_dir() {
            // It asks for systemd first.
            continue;
        }
        let (code, _, error) = container.call(&["--systemd-cgroup", "create", &container.id]);
        assert_eq!(code, Some(1), "{runtime:?}");
        let wanted = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/web\" instead";
        assert!(
            error.replace('\\', "").contains(wanted),
            "{runtime:?}: {error}"
        );
    }
}

#[test]
fn a_host_without_systemd_says_so() {
    if Path::new("/run/systemd/system").is_dir() {
        eprintln!("skipped: this host has systemd");
        return;
    }
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.write_config();
        for flag in ["--systemd-cgroup", "--cgroup-manager=systemd"] {
            let (code, _, error) = container.call(&[flag, "run", &container.id]);
            assert_eq!(code, Some(1));
            let wanted = "systemd not running on this host, cannot use systemd cgroups manager";
            assert!(error.contains(wanted), "{error}");
            container.assert_nothing_left();
        }
    }
}

/// Starts the systemd of the user tester; where there is no PAM to open its session, without. Whether it runs.
fn start_users_systemd(host: &Host) -> bool {
    if !host.sh("id -u tester").status.success() {
        return false;
    }
    let start = "systemctl start user@1000.service";
    if host.sh(start).status.success() {
        return true;
    }
    let without_pam = "d=/run/systemd/system/user@1000.service.d; mkdir -p $d &&
        printf '[Service]\\nPAMName=\\nEnvironment=XDG_RUNTIME_DIR=/run/user/1000\\n' > $d/davit-test.conf &&
        systemctl daemon-reload";
    let started = host
        .sh(&format!("{without_pam} && {start}"))
        .status
        .success();
    host.sh(
        "rm /run/systemd/system/user@1000.service.d/davit-test.conf && systemctl daemon-reload",
    );
    started
}

/// A user's container is a unit of the user's own systemd.
#[test]
fn a_user_has_units_too() {
    let Some(host) = Host::find() else { return };
    let user = !host.is_private() && host.is_v2() && start_users_systemd(&host);
    if !user {
        eprintln!("skipped: needs a host booted with systemd and cgroup v2, and a user tester");
        return;
    }
    let unit = Unit::new(&host, Runtime::Davit, "sleep 1000").with(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        linux["gidMappings"] = linux["uidMappings"].clone();
        linux["cgroupsPath"] = linux["cgroupsPath"]
            .as_str()
            .unwrap()
            .replace("davit-test.slice", "user.slice")
            .into();
        linux["resources"]["pids"] = json!({"limit": 17});
        config["mounts"][2]["options"] = json!([
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620"
        ]);
    });
    unit.container.write_config();
    let bundle = unit.container.bundle().display().to_string();
    host.must(&format!("chown -R 1000:1000 {bundle}"));
    let oci = format!(
        "cd {bundle} && XDG_RUNTIME_DIR=/run/user/1000 setpriv --reuid 1000 --regid 1000 --clear-groups \
         {} --root {bundle}/state --systemd-cgroup",
        Runtime::Davit.program()
    );
    let id = &unit.container.id;
    host.must(&format!("{oci} run --detach {id} >/dev/null 2>{bundle}/error </dev/null || {{ cat {bundle}/error >&2; exit 1; }}"));
    let show = |name: &str| {
        host.must(&format!("XDG_RUNTIME_DIR=/run/user/1000 setpriv --reuid 1000 --regid 1000 --clear-groups systemctl --user show --value -p {name} {}", unit.name()))
    };
    assert_eq!(show("ActiveState"), "active");
    assert_eq!(show("TasksMax"), "17");
    let path = show("ControlGroup");
    assert!(path.contains("user@1000.service/user.slice/dt-"), "{path}");
    let inside = host.must(&format!(
        "{oci} exec {id} sh -c 'sleep 1000 & grep ^0 /proc/self/cgroup'"
    ));
    assert_eq!(inside, "0::/");
    let count = host.must(&format!("wc -l < /sys/fs/cgroup{path}/cgroup.procs"));
    assert_eq!(count, "2");
    host.must(&format!("{oci} update --pids-limit 12 {id}"));
    assert_eq!(
        host.must(&format!("cat /sys/fs/cgroup{path}/pids.max")),
        "12"
    );
    host.must(&format!("{oci} delete --force {id}"));
    assert!(!Path::new(&format!("/sys/fs/cgroup{path}")).exists());
    assert_eq!(show("ActiveState"), "inactive");
}
