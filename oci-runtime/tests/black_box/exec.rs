//! `exec`: more processes in a running container.
use serde_json::json;

use crate::harness::{Container, Runtime, eventually};

#[test]
fn an_added_process_shares_everything_with_the_container() {
    for runtime in Runtime::all() {
        let container =
            Container::new(runtime, "sleep 1000").with(|config| config["hostname"] = "boat".into());
        container.start();
        let shown = container.must(&["exec", &container.id, "sh", "-c", "hostname; cat /proc/1/cmdline | head -c 5; readlink /proc/1/ns/net; readlink /proc/self/ns/net"]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "boat");
        assert!(lines[1].starts_with("sleep"), "{shown}");
        assert_eq!(
            lines[1].split_once("net:").unwrap().1,
            lines[2].split_once("net:").unwrap().1
        );
        let cgroup = |file: &str| std::fs::read_to_string(file).unwrap();
        let _own = cgroup(&format!("/proc/{}/cgroup", container.pid()));
    }
}

#[test]
fn its_exit_code_is_that_of_the_program() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        assert_eq!(
            container
                .call(&["exec", &container.id, "sh", "-c", "exit 3"])
                .0,
            Some(3)
        );
        for (program, expected) in [
            ("no-such", "executable file not found in $PATH"),
            ("/no/such", "no such file or directory"),
            ("/etc/passwd", "permission denied"),
        ] {
            let (code, _, stderr) = container.call(&["exec", &container.id, program]);
            assert_eq!(code, Some(255), "{program}");
            assert!(
                stderr.contains(expected) && stderr.contains(program),
                "{runtime:?}: {stderr}"
            );
        }
    }
}

#[test]
fn flags_change_what_the_configuration_says() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let script = "id -u; id -g; pwd; echo $A$B; grep NoNewPrivs /proc/self/status | cut -f 2";
        let args = [
            "exec",
            "--user",
            "5:6",
            "--cwd",
            "/tmp",
            "-e",
            "A=1",
            "-e",
            "B=2",
            "--no-new-privs",
            &container.id,
            "sh",
            "-c",
            script,
        ];
        assert_eq!(container.must(&args), "5\n6\n/tmp\n12\n1\n", "{runtime:?}");
    }
}

#[test]
fn an_added_capability_is_never_inheritable() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let shown = container.must(&[
            "exec",
            "--cap",
            "CAP_SYS_NICE",
            &container.id,
            "sh",
            "-c",
            "grep Cap /proc/self/status | cut -f 2",
        ]);
        let sets: Vec<u64> = shown
            .lines()
            .map(|line| u64::from_str_radix(line, 16).unwrap())
            .collect();
        let nice = 1 << 23;
        assert_eq!(
            sets.iter().map(|set| set & nice != 0).collect::<Vec<_>>(),
            [false, true, true, true, false],
            "{shown}"
        );
    }
}

#[test]
fn a_process_file_says_all() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let file = container.bundle().join("process.json");
        let process = json!({
            "args": ["sh", "-c", "id -u; id -G; pwd; echo $X; umask > /tmp/umask; exit 4"],
            "env": ["PATH=/bin", "X=y"], "cwd": "/bin",
            "user": {"uid": 0, "gid": 9, "additionalGids": [7]}
        });
        std::fs::write(&file, process.to_string()).unwrap();
        let (code, stdout, stderr) =
            container.call(&["exec", "--process", file.to_str().unwrap(), &container.id]);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(4), "0\n9 7\n/bin\ny\n"),
            "{runtime:?}: {stderr}"
        );
    }
}

#[test]
fn a_detached_process_has_a_pid_file_and_outlives_the_command() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let pid_file = container.bundle().join("exec.pid");
        container.must(&[
            "exec",
            "--detach",
            "--pid-file",
            pid_file.to_str().unwrap(),
            &container.id,
            "sleep",
            "1001",
        ]);
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let comm = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        eventually("it runs", || comm() == b"sleep\x001001\x00");
        let cgroup = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(
            cgroup(&pid),
            cgroup(&container.pid().to_string()),
            "{runtime:?}: the same cgroups"
        );
    }
}

#[test]
fn a_bad_process_is_refused_by_the_name_of_the_field() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let file = container.bundle().join("process.json");
        let table = [
            (json!({"args": [], "cwd": "/"}), "process.args"),
            (json!({"args": ["true"], "cwd": ""}), "process.cwd"),
            (
                json!({"args": ["true"], "cwd": "/", "apparmorProfile": "x"}),
                "process.apparmorProfile",
            ),
            (
                json!({"args": ["true"], "cwd": "/", "user": {"uid": "x"}}),
                "invalid type",
            ),
            (
                json!({"args": ["true"], "cwd": "/", "terminal": true}),
                "cannot allocate tty",
            ),
        ];
        for (process, expected) in table {
            std::fs::write(&file, process.to_string()).unwrap();
            let (code, _, stderr) = container.call(&[
                "exec",
                "--detach",
                "--process",
                file.to_str().unwrap(),
                &container.id,
            ]);
            assert_eq!(code, Some(255), "{process}");
            assert!(stderr.contains(expected), "{process}: {stderr}");
        }
        for user in ["root", "1:", "-1", "0x0", "4294967295"] {
            let (code, _, stderr) =
                container.call(&["exec", "--user", user, &container.id, "true"]);
            assert_eq!(code, Some(255), "{user}");
            assert!(stderr.contains("--user"), "{stderr}");
        }
    }
}

/// What the kernel refuses only at the very end is the error of `exec`, not of the container.
#[test]
fn a_program_that_the_kernel_cannot_start_is_an_error_of_exec() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        std::fs::write(container.inside("no-program"), "\0\0\0\0").unwrap();
        std::fs::set_permissions(
            container.inside("no-program"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        container.start();
        let (code, stdout, stderr) = container.call(&["exec", &container.id, "/no-program"]);
        assert_eq!(code, Some(255), "{stdout} {stderr}");
        assert!(
            stderr.contains("exec: \"/no-program\": exec format error (ENOEXEC)"),
            "{stderr}"
        );
    }
}
