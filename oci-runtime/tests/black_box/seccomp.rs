//! `linux.seccomp`: what the kernel does with the filter, for the container's program and for those that are added.
//! Whether the filter decides as libseccomp's would is what `tests/seccomp` is about.
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::harness::{Container, Runtime};

const CONTAINERD: &str = include_str!("../seccomp/profiles/containerd.json");
const MOBY: &str = include_str!("../seccomp/profiles/moby.json");

/// A program that makes one system call, in any of the three ABIs of this machine. `DAVIT_PROBE` names one that is
/// built already, for hosts without a compiler.
static PROBE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    if let Some(ready) = std::env::var_os("DAVIT_PROBE") {
        return Some(ready.into());
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/black_box/probe.c");
    let program = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/probe"));
    let built = Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    built
        .is_ok_and(|status| status.success())
        .then_some(program)
});

/// Runtimes that can be tried here; none without the probe.
fn runtimes(mut all: Vec<Runtime>) -> Vec<Runtime> {
    if !cfg!(target_arch = "x86_64") || PROBE.is_none() {
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "needs x86_64, cc and a static libc"
        );
        eprintln!("skipped: needs x86_64, cc and a static libc");
        all.clear();
    }
    all
}

/// A container with this filter and the probe.
fn container(runtime: Runtime, script: &str, section: Value) -> Container {
    let container =
        Container::new(runtime, script).with(|config| config["linux"]["seccomp"] = section);
    std::fs::copy(PROBE.as_ref().unwrap(), container.inside("bin/probe")).unwrap();
    container
}

/// Everything is allowed but for one rule.
fn only(rule: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [rule]})
}

#[test]
fn each_action_is_what_happens() {
    let table = [
        ("SCMP_ACT_ALLOW", None, "0\n", 0),
        ("SCMP_ACT_LOG", None, "0\n", 0),
        ("SCMP_ACT_ERRNO", None, "-1\n", 0),
        ("SCMP_ACT_ERRNO", Some(95), "-95\n", 0),
        // There is no tracer.
        ("SCMP_ACT_TRACE", Some(95), "-38\n", 0),
        ("SCMP_ACT_TRAP", None, "", 159),
        ("SCMP_ACT_KILL", None, "", 159),
        ("SCMP_ACT_KILL_THREAD", None, "", 159),
        ("SCMP_ACT_KILL_PROCESS", None, "", 159),
    ];
    for runtime in runtimes(Runtime::all()) {
        for (action, errno, stdout, code) in table {
            // sched_yield(2)
            let mut rule = json!({"names": ["sched_yield"], "action": action});
            if let Some(errno) = errno {
                rule["errnoRet"] = errno.into();
            }
            let container = container(runtime, "probe x64 24", only(rule));
            let output = container.run();
            assert_eq!(
                (
                    output.status.code(),
                    String::from_utf8_lossy(&output.stdout).as_ref()
                ),
                (Some(code), stdout),
                "{runtime:?} {action}: {output:?}"
            );
        }
    }
}

#[test]
fn the_default_profiles_run_programs_and_stop_what_they_stop() {
    // Allowed, not allowed (reboot), newer than the profile, a condition that holds and one that does not (personality).
    let script = "probe x64 24; probe x64 169; probe x64 600; probe x64 135 0xffffffff; probe x64 135 1; \
                  probe i386 158; probe i386 88; probe i386 600; probe x32 24; probe x32 169; grep Seccomp: /proc/self/status";
    for runtime in runtimes(Runtime::all()) {
        for (name, text) in [("containerd", CONTAINERD), ("moby", MOBY)] {
            for no_new_privileges in [true, false] {
                let profile: Value = serde_json::from_str(text).unwrap();
                let container = container(runtime, script, profile).with(|config| {
                    config["process"]["noNewPrivileges"] = no_new_privileges.into();
                });
                let shown = container.output();
                let lines: Vec<&str> = shown.lines().collect();
                // x32 is not built into most kernels: what the filter lets through does not exist.
                assert_eq!(
                    lines,
                    [
                        "0",
                        "-1",
                        "-38",
                        "0",
                        "-1",
                        "0",
                        "-1",
                        "-38",
                        "-38",
                        "-1",
                        "Seccomp:\t2"
                    ],
                    "{runtime:?} {name} {no_new_privileges}"
                );
            }
        }
    }
}

#[test]
fn calls_of_an_architecture_that_is_not_in_the_profile_end_the_program() {
    for runtime in runtimes(Runtime::all()) {
        for call in ["probe i386 158", "probe x32 24"] {
            let mut section = only(json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}));
            section["architectures"] = json!(["SCMP_ARCH_X86_64"]);
            let container = container(runtime, call, section);
            assert_eq!(
                container.run().status.code(),
                Some(159),
                "{runtime:?} {call}"
            );
        }
    }
}

#[test]
fn both_halves_of_an_argument_are_compared() {
    let table = [
        ("SCMP_CMP_EQ", 0x1_0000_0001_u64, 0, ["0", "-95", "0"]),
        ("SCMP_CMP_NE", 0x1_0000_0001, 0, ["-95", "0", "-95"]),
        ("SCMP_CMP_LT", 0x1_0000_0001, 0, ["-95", "0", "0"]),
        ("SCMP_CMP_LE", 0x1_0000_0001, 0, ["-95", "-95", "0"]),
        ("SCMP_CMP_GE", 0x1_0000_0001, 0, ["0", "-95", "-95"]),
        ("SCMP_CMP_GT", 0x1_0000_0001, 0, ["0", "0", "-95"]),
        (
            "SCMP_CMP_MASKED_EQ",
            0xf_0000_000f,
            0x1_0000_0001_u64,
            ["0", "-95", "0"],
        ),
    ];
    for runtime in runtimes(Runtime::all()) {
        for (operator, value, second, expected) in table {
            let script = "probe x64 24 7 1; probe x64 24 7 0x100000001; probe x64 24 7 0x200000001";
            let arg = json!({"index": 1, "op": operator, "value": value, "valueTwo": second});
            let rule = json!({"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [arg]});
            let shown = container(runtime, script, only(rule)).output();
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(lines, expected, "{runtime:?} {operator}");
        }
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold_and_of_several_on_one_any() {
    let arg = |index: u32, value: u64| json!({"index": index, "op": "SCMP_CMP_EQ", "value": value});
    let table = [
        (json!([arg(0, 1), arg(1, 2)]), ["-1", "0", "0"]),
        (json!([arg(0, 1), arg(0, 3), arg(1, 2)]), ["-1", "-1", "0"]),
    ];
    for runtime in runtimes(Runtime::all()) {
        for (args, expected) in &table {
            let script = "probe x64 24 1 2; probe x64 24 3 5; probe x64 24 5 5";
            let rule = json!({"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "args": args});
            let shown = container(runtime, script, only(rule)).output();
            assert_eq!(
                shown.lines().collect::<Vec<_>>(),
                expected,
                "{runtime:?} {args}"
            );
        }
    }
}

/// Without the line of the effective capabilities, which never have CAP_SYS_ADMIN.
fn without_capabilities(shown: &str) -> String {
    let is_set = |line: &&str| line.len() == 16;
    for set in shown.lines().filter(is_set) {
        assert_eq!(
            u64::from_str_radix(set, 16).unwrap() & 1 << 21,
            0,
            "{shown}"
        );
    }
    let lines = shown.lines().filter(|line| !is_set(line));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_added_process_is_filtered_like_the_first() {
    for runtime in runtimes(Runtime::all()) {
        for no_new_privileges in [true, false] {
            let profile: Value = serde_json::from_str(MOBY).unwrap();
            let container = container(runtime, "sleep 1000", profile).with(|config| {
                config["process"]["noNewPrivileges"] = no_new_privileges.into();
            });
            container.start();
            let script = "probe x64 24; probe x64 169; grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status | cut -f 2";
            let expected = format!("0\n-1\n{}\n2\n", u8::from(no_new_privileges));
            let shown = container.must(&["exec", &container.id, "sh", "-c", script]);
            let shown = without_capabilities(&shown);
            assert_eq!(shown, expected, "{runtime:?} {no_new_privileges}");
            // As another user, who has no capability to load it with.
            let shown =
                container.must(&["exec", "--user", "33:33", &container.id, "sh", "-c", script]);
            assert_eq!(without_capabilities(&shown), expected, "{runtime:?}");
            let file = container.bundle().join("process.json");
            let process = json!({
                "args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/",
                "user": {"uid": 0, "gid": 0}, "noNewPrivileges": no_new_privileges
            });
            std::fs::write(&file, process.to_string()).unwrap();
            let shown =
                container.must(&["exec", "--process", file.to_str().unwrap(), &container.id]);
            assert_eq!(without_capabilities(&shown), expected, "{runtime:?}");
        }
    }
}

#[test]
fn a_process_that_waits_for_start_has_no_more_than_its_program_will_have() {
    for runtime in runtimes(Runtime::ours()) {
        for (no_new_privileges, early) in [(false, "2"), (true, "0")] {
            let profile: Value = serde_json::from_str(MOBY).unwrap();
            let container = container(runtime, "sleep 1000", profile).with(|config| {
                config["process"]["noNewPrivileges"] = no_new_privileges.into();
                config["process"]["user"] = json!({"uid": 33, "gid": 33});
            });
            container.write_config();
            container.must(&["create", &container.id]);
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().to_owned()
            };
            assert_eq!(
                field("Seccomp:"),
                early,
                "noNewPrivileges {no_new_privileges}"
            );
            let admin = 1 << 21;
            for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
                let bits = u64::from_str_radix(&field(set), 16).unwrap();
                assert_eq!(bits & admin, 0, "{set} {status}");
            }
            let filter = container
                .state_root()
                .join(&container.id)
                .join("seccomp.bpf");
            let mode = filter.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the filter is its owner's");
        }
    }
}

/// What the probe itself calls; nothing of the runtime but what is inevitable.
fn strict(more: &[&str]) -> Value {
    let mut names = vec![
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "fstat",
        "newfstatat",
        "write",
        "exit_group",
        "sched_yield",
        "ioctl",
        "uname",
        "mmap",
    ];
    names.extend(more);
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
}

#[test]
fn a_profile_of_the_program_s_own_calls_is_enough() {
    for runtime in runtimes(Runtime::ours()) {
        for no_new_privileges in [true, false] {
            // To let go of the right to load it, and to wait for `start`.
            let more = ["capset", "read", "close", "rt_sigaction", "rt_sigprocmask"];
            let more = if no_new_privileges {
                &more[..0]
            } else {
                &more[..]
            };
            let container = container(runtime, "", strict(more)).with(|config| {
                config["process"]["args"] = json!(["/bin/probe", "x64", "24"]);
                config["process"]["noNewPrivileges"] = no_new_privileges.into();
            });
            assert_eq!(
                container.output(),
                "0\n",
                "noNewPrivileges {no_new_privileges}"
            );
        }
    }
}

#[test]
fn start_hooks_are_filtered_as_well() {
    for runtime in runtimes(Runtime::all()) {
        let rule = json!({"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
        let container = container(runtime, "cat /tmp/hook", only(rule)).with(|config| {
            config["hooks"] = json!({"startContainer": [
                {"path": "/bin/sh", "args": ["sh", "-c", "probe x64 24 > /tmp/hook"], "env": ["PATH=/bin"]}
            ]});
        });
        assert_eq!(container.output(), "-95\n", "{runtime:?}");
    }
}

#[test]
fn every_flag_is_taken() {
    let sets = [
        json!(null),
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!([
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
        ]),
    ];
    for runtime in runtimes(Runtime::ours()) {
        for flags in &sets {
            let mut section = only(json!({"names": ["sched_yield"], "action": "SCMP_ACT_ERRNO"}));
            section["flags"] = flags.clone();
            let container = container(
                runtime,
                "probe x64 24; grep Speculation_Store_Bypass /proc/self/status",
                section,
            );
            let shown = container.output();
            assert!(shown.starts_with("-1\n"), "{flags}: {shown}");
        }
    }
}

#[test]
fn a_filter_of_ones_own_is_loaded_in_place_of_the_section() {
    // ld nr; jeq sched_yield, 0, 1; ret ERRNO(95); ret ALLOW
    let filter = "IAAAAAAAAAAVAAABGAAAAAYAAABfAAUABgAAAAAA/38=";
    for runtime in runtimes(Runtime::ours()) {
        let rule = json!({"names": ["sched_yield"], "action": "SCMP_ACT_KILL"});
        let container = container(runtime, "probe x64 24", only(rule));
        let container = container.with(|config| {
            config["annotations"] = json!({"run.oci.seccomp_bpf_data": filter});
        });
        assert_eq!(container.output(), "-95\n");
    }
}

#[test]
fn a_bad_section_is_refused_by_the_name_of_the_field() {
    let rule = |rule: Value| only(rule);
    let allow = |more: Value| {
        let mut section = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        section
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        section
    };
    let table = [
        (
            json!({"defaultAction": "SCMP_ACT_NOPE"}),
            "linux.seccomp.defaultAction: string SCMP_ACT_NOPE is not a valid action",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            allow(json!({"architectures": ["SCMP_ARCH_NOPE"]})),
            "linux.seccomp.architectures[0]",
        ),
        (
            allow(json!({"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]})),
            "linux.seccomp.architectures[1]",
        ),
        (
            allow(json!({"flags": ["SECCOMP_FILTER_FLAG_NOPE"]})),
            "linux.seccomp.flags[0]",
        ),
        (
            allow(json!({"listenerMetadata": "x"})),
            "linux.seccomp.listenerMetadata",
        ),
        (
            rule(json!({"names": ["read"], "action": ""})),
            "linux.seccomp.syscalls[0].action",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536})),
            "linux.seccomp.syscalls[0].action",
        ),
        (
            rule(json!({"names": [""], "action": "SCMP_ACT_ERRNO"})),
            "empty string is not a valid syscall",
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "SCMP_CMP_XX"}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].op",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
    ];
    for runtime in Runtime::ours() {
        for (section, expected) in &table {
            let container = Container::new(runtime, "true")
                .with(|config| config["linux"]["seccomp"] = section.clone());
            container.write_config();
            let (code, _, stderr) = container.call(&["run", &container.id]);
            assert_eq!(code, Some(1), "{section}");
            assert!(stderr.contains(expected), "{section}: {stderr}");
            container.assert_nothing_left();
        }
        let names = json!({"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"});
        let container =
            Container::new(runtime, "true").with(|config| config["linux"]["seccomp"] = only(names));
        assert!(
            container.run().status.success(),
            "unknown calls are nobody's business"
        );
        let container = container.with(|config| {
            config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"});
        });
        container.write_config();
        let (code, _, stderr) = container.call(&["run", &container.id]);
        assert!(
            code == Some(1) && stderr.contains("unknown seccomp syscall \"no_such_call\""),
            "{stderr}"
        );
    }
}

/// Who answers for `sched_yield`: with an error that is the first argument. Returns what came with each descriptor.
fn answer(
    listener: std::os::unix::net::UnixListener,
    times: usize,
) -> std::thread::JoinHandle<Vec<Value>> {
    use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
    use std::os::fd::AsRawFd;
    std::thread::spawn(move || {
        let mut states = Vec::new();
        for _ in 0..times {
            let (connection, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 65536];
            let received = sys::socket::receive(&connection, &mut buffer).unwrap();
            states.push(serde_json::from_slice(&buffer[..received.len]).unwrap());
            let fd = received.fds[0].as_raw_fd();
            let request = ScmpNotifReq::receive(fd).unwrap();
            assert_eq!(request.data.syscall.as_raw_syscall(), 24);
            let errno = i32::try_from(request.data.args[0]).unwrap();
            let answer = ScmpNotifResp::new_error(request.id, -errno, ScmpNotifRespFlags::empty());
            answer.respond(fd).unwrap();
        }
        states
    })
}

fn notify(path: &std::path::Path, flags: Value) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "what for",
        "flags": flags,
        "syscalls": [{"names": ["sched_yield"], "action": "SCMP_ACT_NOTIFY"}]
    })
}

#[test]
fn another_process_answers_for_the_first_process_and_for_added_ones() {
    for runtime in runtimes(Runtime::all()) {
        for no_new_privileges in [true, false] {
            let flags = match runtime {
                Runtime::Davit => json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
                // The Debian package is older than the flag.
                Runtime::Runc => json!([]),
            };
            let container = container(
                runtime,
                "probe x64 24 77 > /tmp/first; sleep 1000",
                json!(null),
            );
            let socket = container.bundle().join("agent.sock");
            let container = container.with(|config| {
                config["linux"]["seccomp"] = notify(&socket, flags);
                config["process"]["noNewPrivileges"] = no_new_privileges.into();
                config["annotations"] = json!({"a": "b"});
            });
            let agent = answer(std::os::unix::net::UnixListener::bind(&socket).unwrap(), 2);
            container.start();
            crate::harness::eventually("the first process got its answer", || {
                std::fs::read_to_string(container.inside("tmp/first"))
                    .is_ok_and(|text| text == "-77\n")
            });
            let shown = container.must(&["exec", &container.id, "probe", "x64", "24", "78"]);
            assert_eq!(shown, "-78\n", "{runtime:?}");
            let states = agent.join().unwrap();
            let pid = container.pid();
            for (state, status) in states.iter().zip(["creating", "running"]) {
                assert_eq!(state["fds"], json!(["seccompFd"]), "{runtime:?}");
                assert_eq!(state["metadata"], "what for");
                assert_eq!(state["state"]["id"], container.id.as_str());
                assert_eq!(state["state"]["pid"], pid);
                assert_eq!(state["state"]["status"], status);
                assert_eq!(state["state"]["annotations"]["a"], "b");
                assert_eq!(
                    state["state"]["bundle"],
                    container.bundle().to_str().unwrap()
                );
            }
            assert_eq!(states[0]["pid"], pid);
            assert_ne!(states[1]["pid"], pid, "that of the added process");
        }
    }
}

#[test]
fn the_annotation_names_a_receiver_too_and_nobody_there_is_an_error() {
    for runtime in runtimes(Runtime::ours()) {
        let container = container(runtime, "probe x64 24 77", json!(null));
        let socket = container.bundle().join("agent.sock");
        let container = container.with(|config| {
            config["linux"]["seccomp"] = notify(std::path::Path::new(""), json!(null));
            config["linux"]["seccomp"]["listenerMetadata"] = json!("");
            config["annotations"] = json!({"run.oci.seccomp.receiver": socket});
        });
        container.write_config();
        let (code, _, stderr) = container.call(&["run", &container.id]);
        let expected = "failed to connect with seccomp agent specified in the seccomp profile";
        assert!(code == Some(1) && stderr.contains(expected), "{stderr}");
        container.assert_nothing_left();
        let agent = answer(std::os::unix::net::UnixListener::bind(&socket).unwrap(), 1);
        assert_eq!(container.output(), "-77\n");
        assert!(agent.join().unwrap()[0].get("metadata").is_none());
    }
}
