//! What a person reads when something is wrong, whole and exact: what was done, with what, why not, and what helps.
//! A change of a text is a change of this table; read it as somebody who knows nothing of the code and is tired.
use serde_json::{Value, json};

use crate::harness::{Container, Runtime, eventually};

/// Without what differs from run to run: the container's id and place, numbers of descriptors, processes, and inodes.
fn common(container: &Container, stderr: &str) -> String {
    let stderr = stderr
        .replace(container.bundle().to_str().unwrap(), "BUNDLE")
        .replace(&container.id, "ID");
    let mut text = String::new();
    let mut rest = stderr.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, tail) = rest.split_at(at);
        let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = tail.split_at(digits);
        text.push_str(before);
        let descriptor =
            before.ends_with('(') && (after.starts_with('<') || after.starts_with(','));
        let inode = before.ends_with(":[");
        let process = before.ends_with(".pid.");
        text.push_str(if descriptor || inode || process {
            "N"
        } else {
            number
        });
        rest = after;
    }
    text.push_str(rest);
    text.trim_end().to_owned()
}

/// Changes of the configuration, by JSON pointer, and what `create` says then, after `davit-oci: create "ID": `.
fn broken_bundles() -> Vec<(Vec<(&'static str, Value)>, &'static str)> {
    let bind = |from: &str, to: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["bind"]});
    let one = |pointer: &'static str, value: Value| vec![(pointer, value)];
    let users = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    vec![
        (
            one("/ociVersion", json!("3.0.0")),
            "config.json: ociVersion: unsupported version \"3.0.0\", this runtime knows 1.x",
        ),
        (
            one("/root/path", json!("nowhere")),
            "config.json: root.path: \"BUNDLE/nowhere\": no such file or directory (ENOENT)",
        ),
        (
            one("/root/path", json!("config.json")),
            "config.json: root.path: \"BUNDLE/config.json\": not a directory (ENOTDIR)",
        ),
        (
            one("/mounts/1", bind("/no/such", "/x")),
            "mounts[1] at \"/x\": open_tree(AT_FDCWD, \"/no/such\", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC): no such file or directory (ENOENT)\nhint: the source of a bind mount must be there on the host",
        ),
        (
            one("/mounts/1", bind("/bin/busybox", "/tmp")),
            "mounts[1] at \"/tmp\": not a directory (ENOTDIR): the source is a file, the destination a directory",
        ),
        (
            one("/mounts/1", bind("/tmp", "/etc/passwd")),
            "mounts[1] at \"/etc/passwd\": openat2(N<BUNDLE/rootfs>, \"/etc/passwd\", O_CLOEXEC|O_DIRECTORY|O_PATH, 0o0, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS): not a directory (ENOTDIR)\nhint: \"/etc/passwd\", or a name on the way to it, is a file in the container, and this needs a directory",
        ),
        (
            one("/mounts/1/destination", json!("/etc/passwd/x")),
            "mounts[1] at \"/etc/passwd/x\": openat2(N<BUNDLE/rootfs>, \"/etc/passwd/x\", O_CLOEXEC|O_DIRECTORY|O_PATH, 0o0, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS): not a directory (ENOTDIR)\nhint: \"/etc/passwd/x\", or a name on the way to it, is a file in the container, and this needs a directory",
        ),
        (
            one("/mounts/1/type", json!("nofs")),
            "mounts[1] at \"/dev\": fsopen(\"nofs\", FSOPEN_CLOEXEC): no such device (ENODEV)\nhint: /proc/filesystems lists the filesystems that this kernel has; a bind mount needs the option bind or rbind",
        ),
        (
            one("/mounts/1/destination", json!("")),
            "config.json: mounts[1].destination: mount destination is empty or holds a NUL byte",
        ),
        (
            one("/linux/cgroupsPath", json!("/../x")),
            "config.json: linux.cgroupsPath: cgroup path \"/../x\" must not hold \"..\"",
        ),
        (
            one("/linux/namespaces/1", json!({"type": "netwrk"})),
            "config.json: linux.namespaces[1].type: namespace \"netwrk\" does not exist",
        ),
        (
            one(
                "/linux/namespaces/1",
                json!({"type": "network", "path": "/no/ns"}),
            ),
            "linux.namespaces[net].path: openat2(AT_FDCWD, \"/no/ns\", O_CLOEXEC, 0o0, 0): no such file or directory (ENOENT)",
        ),
        (
            one(
                "/linux/namespaces/1",
                json!({"type": "network", "path": "/proc/self/ns/uts"}),
            ),
            "linux.namespaces[net].path: setns(N<uts:[N]>): a uts namespace, not net: invalid argument (EINVAL)",
        ),
        (
            one(
                "/linux/namespaces/1",
                json!({"type": "network", "path": "/etc/passwd"}),
            ),
            "linux.namespaces[net].path: ioctl(N</etc/passwd>, NS_GET_NSTYPE): not a namespace file: invalid argument (EINVAL)",
        ),
        (
            one("/linux/namespaces/1", json!({"type": "pid"})),
            "config.json: linux.namespaces[1]: malformed spec file: duplicated ns \"pid\"",
        ),
        (
            one(
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            ),
            "config.json: process.rlimits[0].type: invalid rlimit type \"RLIMIT_NOPE\"",
        ),
        (
            one(
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]),
            ),
            "config.json: process.rlimits[0]: soft limit 20 is above the hard limit 10",
        ),
        (
            vec![
                ("/linux/namespaces/1", json!({"type": "user"})),
                ("/linux/uidMappings", users.clone()),
                ("/linux/gidMappings", users),
                ("/process/user/uid", json!(50)),
            ],
            "config.json: process.user.uid: 50 is not mapped by linux.uidMappings",
        ),
        (
            one("/process/args", json!([])),
            "config.json: process.args: args must not be empty",
        ),
        (
            one("/process/args", json!(["nope"])),
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            one("/process/args", json!(["/no/program"])),
            "exec: \"/no/program\": no such file or directory (ENOENT)",
        ),
        (
            one("/process/args", json!(["/etc/passwd"])),
            "exec: \"/etc/passwd\": permission denied (EACCES)",
        ),
        (
            one("/process/args", json!(["/etc/passwd/x"])),
            "exec: \"/etc/passwd/x\": not a directory (ENOTDIR)",
        ),
        (
            one("/process/args", json!(["/etc"])),
            "exec: \"/etc\": is a directory (EISDIR)",
        ),
        (
            one("/process/cwd", json!("x")),
            "config.json: process.cwd: Cwd must be an absolute path",
        ),
        (
            one("/process/cwd", json!("/etc/passwd")),
            "process.cwd \"/etc/passwd\": openat2(N<BUNDLE/rootfs>, \"/etc/passwd\", O_CLOEXEC|O_DIRECTORY|O_PATH, 0o0, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS): not a directory (ENOTDIR)",
        ),
        (
            one("/process/oomScoreAdj", json!(-2000)),
            "config.json: process.oomScoreAdj: outside -1000 to 1000",
        ),
        (
            one("/process/terminal", json!(true)),
            "cannot allocate tty if runc will detach without setting console socket\nhint: process.terminal is true: give --console-socket, or set it to false",
        ),
        (
            one("/hooks", json!({"createRuntime": [{"path": "x"}]})),
            "config.json: hooks.createRuntime[0].path: \"x\" is not an absolute path",
        ),
        (
            one("/hooks", json!({"createRuntime": [{"path": "/no/hook"}]})),
            "hooks.createRuntime[0] \"/no/hook\": execve(\"/no/hook\", [\"/no/hook\"]): no such file or directory (ENOENT)",
        ),
        (
            one(
                "/hooks",
                json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo sad >&2; exit 3"]}]}),
            ),
            "hooks.createRuntime[0] \"/bin/sh\": exit status 3, stderr: sad",
        ),
        (
            one(
                "/hooks",
                json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}),
            ),
            "hooks.createRuntime[0] \"/bin/sleep\": no end after 1 s, killed",
        ),
        (
            one("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"})),
            "config.json: linux.seccomp.defaultAction: string SCMP_ACT_NOPE is not a valid action for seccomp",
        ),
        (
            one("/linux/devices", json!([{"path": "/dev/x", "type": "?"}])),
            "config.json: linux.devices[0].type: invalid device type \"?\"",
        ),
        (
            one(
                "/linux/devices",
                json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]),
            ),
            "linux.devices \"/etc/passwd\": something else is there already",
        ),
        (
            one("/linux/sysctl", json!({"kernel.panic": "1"})),
            "config.json: linux.sysctl[\"kernel.panic\"]: not in a separate kernel namespace",
        ),
        (
            one("/linux/sysctl", json!({"net.ipv4.nope": "1"})),
            "linux.sysctl[\"net.ipv4.nope\"]: openat2(N</>, \"sys/net/ipv4/nope\", O_CLOEXEC|O_WRONLY, 0o0, RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_XDEV): no such file or directory (ENOENT)\nhint: this kernel has no such parameter, or its module is not loaded",
        ),
        (
            one("/linux/sysctl", json!({"net.ipv4.ip_forward": "x"})),
            "linux.sysctl[\"net.ipv4.ip_forward\"]: write(N</sys/net/ipv4/ip_forward>, 1 bytes): invalid argument (EINVAL)",
        ),
        (
            vec![
                ("/linux/namespaces", json!([{"type": "mount"}])),
                ("/hostname", json!("h")),
            ],
            "config.json: hostname: cannot be set without a UTS namespace of its own",
        ),
    ]
}

/// Puts `value` at the place `pointer`, which need not be there yet.
fn place(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[key] = value,
    }
}

#[test]
fn what_is_said_of_each_broken_bundle() {
    for runtime in Runtime::ours() {
        for (changes, expected) in broken_bundles() {
            let container = Container::new(runtime, "true").with(|config| {
                for (pointer, value) in &changes {
                    place(config, pointer, value.clone());
                }
            });
            container.write_config();
            let (code, stdout, stderr) = container.call(&["create", &container.id]);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{changes:?}");
            let said = common(&container, &stderr);
            assert_eq!(
                said,
                format!("davit-oci: create \"ID\": {expected}"),
                "{changes:?}"
            );
            container.assert_nothing_left();
        }
    }
}

const HELP: &str = "hint: \"davit-oci --help\" shows the command line";

#[test]
fn what_is_said_of_each_broken_command_line() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        let call = |args: &[&str]| {
            let (code, stdout, stderr) = container.call(args);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}");
            common(&container, &stderr)
        };
        assert_eq!(
            call(&["create", "a"]),
            "davit-oci: create \"a\": read(\"BUNDLE/config.json\"): no such file or directory (ENOENT)\n\
             hint: \"davit-oci spec\" writes a config.json to start from"
        );
        std::fs::write(container.bundle().join("config.json"), "{\"process\": ").unwrap();
        assert_eq!(
            call(&["create", "a"]),
            "davit-oci: create \"a\": config.json: EOF while parsing a value at line 1 column 12"
        );
        container.write_config();
        let table: [(&[&str], &str); 14] = [
            (
                &["create", "--bundle", "/no/bundle", "a"],
                "create \"a\": --bundle: realpath(\"/no/bundle\"): no such file or directory (ENOENT)",
            ),
            (
                &["--log", "/no/dir/log", "create", "a"],
                "--log: write(\"/no/dir/log\"): no such file or directory (ENOENT)",
            ),
            (
                &["--root", "/proc/nope", "create", "a"],
                "create \"a\": mkdir(\"/proc/nope/a\", 0711): no such file or directory (ENOENT)\nhint: the state of containers must be writable; --root DIR says where it is",
            ),
            (
                &["create", "--pid-file", "/no/dir/pid", "a"],
                "create \"a\": --pid-file: /no/dir/pid: write(\"/no/dir/.pid.N\"): no such file or directory (ENOENT)",
            ),
            (
                &["create", "a/b"],
                "create \"a/b\": invalid container ID format: \"a/b\" (letters, digits, \"_\", \"+\", \"-\" and \".\" are allowed, but not \".\" or \"..\" alone)",
            ),
            (&["create"], "create: wants ID, got 0 operands"),
            (&["create", "a", "b"], "create: wants ID, got 2 operands"),
            (
                &["create", "--nope", "a"],
                "flag provided but not defined: -nope\nHELP",
            ),
            (&["craete", "a"], "no such command: \"craete\"\nHELP"),
            (
                &["create", "--bundle"],
                "flag needs an argument: --bundle\nHELP",
            ),
            (
                &["--log-format", "xml", "create", "a"],
                "invalid log-format: \"xml\" is neither text nor json",
            ),
            (
                &["create", "--preserve-fds", "x", "a"],
                "create \"a\": invalid value \"x\" for --preserve-fds: not a number in range",
            ),
            (
                &["--cgroup-manager", "x", "create", "a"],
                "--cgroup-manager: \"x\" is neither cgroupfs, systemd nor disabled",
            ),
            (
                &["create", "--console-socket", "/no/socket", "a"],
                "create \"a\": cannot use console socket if runc will not detach or allocate tty\nhint: process.terminal is false: leave --console-socket out, or set it to true",
            ),
        ];
        for (args, expected) in table {
            let expected = expected.replace("HELP", HELP);
            assert_eq!(call(args), format!("davit-oci: {expected}"), "{args:?}");
        }
        for verb in [
            "state", "start", "kill", "delete", "pause", "resume", "ps", "update", "events",
        ] {
            let expected = format!("davit-oci: {verb} \"nope\": container \"nope\" does not exist");
            assert_eq!(call(&[verb, "nope"]), expected);
        }
        let terminal = Container::new(runtime, "true")
            .with(|config| config["process"]["terminal"] = true.into());
        terminal.write_config();
        let (_, _, stderr) = terminal.call(&["create", "--console-socket", "/no/socket", "a"]);
        assert_eq!(
            stderr,
            "davit-oci: create \"a\": --console-socket: connect(AF_UNIX, Stream, \"/no/socket\"): no such file or directory (ENOENT)\n\
             hint: the caller must listen there before it calls\n"
        );
        container.assert_nothing_left();
    }
}

#[test]
fn what_is_said_of_commands_that_a_container_cannot_take() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        let id = container.id.as_str();
        // `ID` is where the command wants the container.
        let says = |code: i32, args: &str, expected: &str| {
            let args: Vec<&str> = args
                .split(' ')
                .map(|arg| if arg == "ID" { id } else { arg })
                .collect();
            let (found, _, stderr) = container.call(&args);
            let said = common(&container, &stderr);
            assert_eq!(
                said,
                format!("davit-oci: {} \"ID\": {expected}", args[0]),
                "{args:?}"
            );
            assert_eq!(found, Some(code), "{args:?}");
        };
        container.start();
        says(1, "create ID", "container with given ID already exists");
        says(1, "start ID", "cannot start an already running container");
        says(
            1,
            "delete ID",
            "cannot delete container ID that is not stopped: running\nhint: \"kill\" it first, or use --force",
        );
        says(1, "kill ID NOPE", "unknown signal \"NOPE\"");
        says(1, "resume ID", "container not paused");
        says(
            1,
            "ps -f xml ID",
            "invalid format option\nhint: --format is table or json",
        );
        says(
            1,
            "update --memory lots ID",
            "--memory: \"lots\" is no size",
        );
        says(
            1,
            "update -r /no/file ID",
            "--resources /no/file: read(\"/no/file\"): no such file or directory (ENOENT)",
        );
        says(
            255,
            "exec ID nope",
            "exec: \"nope\": executable file not found in $PATH",
        );
        says(
            255,
            "exec ID /no/program",
            "exec: \"/no/program\": no such file or directory (ENOENT)",
        );
        says(
            255,
            "exec ID /etc/passwd",
            "exec: \"/etc/passwd\": permission denied (EACCES)",
        );
        says(
            255,
            "exec ID /etc",
            "exec: \"/etc\": is a directory (EISDIR)",
        );
        says(
            255,
            "exec ID /etc/passwd/x",
            "exec: \"/etc/passwd/x\": not a directory (ENOTDIR)",
        );
        says(
            255,
            "exec --cwd x ID true",
            "process.cwd: Cwd must be an absolute path",
        );
        says(
            255,
            "exec --cwd /etc/passwd ID true",
            "process.cwd \"/etc/passwd\": openat2(N, \"/etc/passwd\", O_CLOEXEC|O_DIRECTORY|O_PATH, 0o0, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS): not a directory (ENOTDIR)",
        );
        says(
            255,
            "exec --user web ID true",
            "--user: \"web\" is not UID or UID:GID, in numbers",
        );
        says(
            255,
            "exec --env NOPE ID true",
            "process.env[1]: \"NOPE\" is not of the form NAME=value",
        );
        says(
            255,
            "exec ID",
            "process args cannot be empty\nhint: give a COMMAND, or --process FILE",
        );
        says(
            255,
            "exec --process /no/file ID",
            "--process: read(\"/no/file\"): no such file or directory (ENOENT)",
        );
        says(
            255,
            "exec -d -t ID true",
            "cannot allocate tty if runc will detach without setting console socket",
        );
        container.must(&["pause", id]);
        says(
            255,
            "exec ID true",
            "cannot exec in a paused container (use --ignore-paused to override)",
        );
        says(
            1,
            "pause ID",
            "container not running\nhint: it is paused already",
        );
        container.must(&["resume", id]);
        container.must(&["kill", id, "KILL"]);
        eventually("it stops", || container.status() == "stopped");
        says(1, "start ID", "cannot start a container that has stopped");
        says(1, "kill ID", "container not running");
        says(1, "pause ID", "container not running");
        says(1, "update --pids-limit 5 ID", "container not running");
        says(255, "exec ID true", "cannot exec in a stopped container");
        container.must(&["delete", id]);
        says(1, "delete ID", "container \"ID\" does not exist");
        container.assert_nothing_left();
    }
}

/// Of what does no harm there is a warning, and the container is made.
#[test]
fn what_is_said_of_a_capability_that_nobody_knows() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true").with(|config| {
            config["process"]["capabilities"]["bounding"] = json!(["CAP_NOPE"]);
        });
        let output = container.run();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            crate::harness::text(&output.stderr),
            "davit-oci: warning: process.capabilities: ignoring unknown or unavailable capability \"CAP_NOPE\"\n"
        );
    }
}
