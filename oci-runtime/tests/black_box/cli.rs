//! The command line itself: runc's, with what crun adds.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Container, Runtime, eventually, text};

#[test]
fn the_written_configuration_is_that_of_runc() {
    for runtime in Runtime::ours() {
        let Some(runc) = Runtime::all().into_iter().find(|one| *one != runtime) else {
            eprintln!("skipped: needs runc");
            return;
        };
        for flags in [&["spec"][..], &["spec", "--rootless"]] {
            let written = |runtime: Runtime| {
                let container = Container::new(runtime, "");
                container.must(flags);
                std::fs::read_to_string(container.bundle().join("config.json")).unwrap()
            };
            // Changed since the runc of Debian 12: the version, and no ambient capabilities.
            let mut expected: Value = serde_json::from_str(&written(runc)).unwrap();
            expected["ociVersion"] = "1.3.0".into();
            let sets = expected["process"]["capabilities"].as_object_mut().unwrap();
            sets.remove("ambient");
            let ours = written(runtime);
            assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), expected);
            let lines = |text: &str| {
                let lines = text.lines().filter(|line| !line.contains("ociVersion"));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            // And in the same form, but for those lines.
            let ambient = ["\t\t\t],", "\t\t\t\"ambient\": ["];
            let theirs = lines(&written(runc));
            let start = theirs.iter().position(|line| line == ambient[1]).unwrap();
            let expected = [&theirs[..start - 1], &theirs[start + 4..]].concat();
            assert_eq!(lines(&ours), expected);
        }
    }
}

#[test]
fn lists_and_states_have_the_form_that_runc_gives_them() {
    for runtime in Runtime::all() {
        let container = Container::new(runtime, "sleep 1000");
        std::fs::create_dir(container.state_root()).unwrap();
        assert_eq!(container.must(&["list", "-f", "json"]), "null\n");
        let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(container.must(&["list"]), header, "{runtime:?}");
        assert_eq!(container.must(&["list", "-q"]), "");
        container.start();
        let list = container.must(&["list", "--format", "json"]);
        assert!(list.ends_with("]\n"), "{runtime:?}: {list:?}");
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list[0]["owner"], "root");
        let shown = container.must(&["state", &container.id]);
        let keys: Vec<&str> = shown
            .lines()
            .filter_map(|line| line.strip_prefix("  \"")?.split('"').next())
            .collect();
        let expected = [
            "ociVersion",
            "id",
            "pid",
            "status",
            "bundle",
            "rootfs",
            "created",
            "owner",
        ];
        assert_eq!(keys, expected, "{runtime:?}");
        assert!(shown.ends_with('}'), "{runtime:?}");
        container.must(&["kill", &container.id, "KILL"]);
        eventually("it stops", || container.status() == "stopped");
        let state: Value =
            serde_json::from_str(&container.must(&["state", &container.id])).unwrap();
        assert_eq!(state["pid"], 0, "{runtime:?}");
    }
}

#[test]
fn arguments_that_are_not_text_reach_the_program_and_are_refused_elsewhere() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let bytes = OsStr::from_bytes(b"\xff\xfe");
        let output = container
            .command(&["exec", &container.id, "printf", "%s"])
            .arg(bytes)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"\xff\xfe");
        let table: [&[&str]; 4] = [
            &["state"],
            &["exec"],
            &["exec", "--cwd"],
            &["create", "--bundle"],
        ];
        for before in table {
            let output = container
                .command(before)
                .arg(bytes)
                .args([&container.id, "true"])
                .output()
                .unwrap();
            assert!(!output.status.success());
            let stderr = text(&output.stderr);
            assert!(stderr.contains("is not UTF-8: \"\\xff\\xfe\""), "{stderr}");
        }
    }
}

#[test]
fn patterns_choose_the_containers_that_are_killed_and_deleted() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        let names = ["one", "two", "three"].map(|name| format!("{}-{name}", container.id));
        for name in &names {
            container.must(&["create", name]);
            container.must(&["start", name]);
        }
        let pattern = format!("^{}-t(wo|hree)$", container.id);
        container.must(&["kill", "--regex", &pattern, "KILL"]);
        let status = |name: &str| {
            let state: Value = serde_json::from_str(&container.must(&["state", name])).unwrap();
            state["status"].as_str().unwrap().to_owned()
        };
        for name in &names[1..] {
            eventually("it stops", || status(name) == "stopped");
        }
        assert_eq!(status(&names[0]), "running");
        let (code, _, stderr) = container.call(&["delete", "-r", &container.id]);
        assert_eq!(code, Some(1), "one still runs");
        assert!(stderr.contains("that is not stopped"), "{stderr}");
        assert_eq!(container.must(&["list", "-q"]), format!("{}\n", names[0]));
        container.must(&["delete", "--force", "--regex", "."]);
        container.assert_nothing_left();
        let (code, _, stderr) = container.call(&["delete", "-r", "("]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("--regex \"(\""), "{stderr}");
    }
}

#[test]
fn a_configuration_may_lie_elsewhere() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.write_config();
        let elsewhere = container.bundle().join("other.json");
        std::fs::rename(container.bundle().join("config.json"), &elsewhere).unwrap();
        container.must(&["create", "--config", "other.json", &container.id]);
        container.must(&["start", &container.id]);
        assert_eq!(container.must(&["exec", &container.id, "pwd"]), "/\n");
    }
}

#[test]
fn errors_are_on_stderr_and_in_the_log_and_a_success_says_nothing() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.write_config();
        let log = container.bundle().join("log");
        let spelled = format!("file:{}", log.display());
        for flags in [["--log", log.to_str().unwrap()], ["-log", &spelled]] {
            let args = [&flags[..], &["state", "no-such"]].concat();
            let (code, stdout, stderr) = container.call(&args);
            assert_eq!((code, stdout.as_str()), (Some(1), ""));
            let entry = std::fs::read_to_string(&log).unwrap();
            assert!(entry.starts_with("time=\"20"), "{entry}");
            assert!(entry.contains(" level=error msg=\""), "{entry}");
            assert!(stderr.contains("does not exist") && entry.contains("does not exist"));
            std::fs::remove_file(&log).unwrap();
        }
        for args in [
            &["create", &container.id][..],
            &["state", &container.id],
            &["start", &container.id],
            &["delete", "--force", &container.id],
        ] {
            let (code, _, stderr) = container.call(args);
            assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        }
    }
}

/// The XDG base directory specification: what is not sticky may be swept away.
#[test]
fn without_privileges_the_state_is_below_the_runtime_directory_of_the_user() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "");
        let dir = container.bundle().join("xdg");
        std::fs::create_dir(&dir).unwrap();
        let listed = |before: &[&str], user: &str| {
            let mut command = Command::new(before[0]);
            command
                .args(&before[1..])
                .args([runtime.program(), "list", "-q"])
                .env("XDG_RUNTIME_DIR", &dir)
                .env("USER", user);
            assert!(command.status().unwrap().success());
            let made = dir.join("davit-oci");
            let mode = std::fs::metadata(&made).map(|meta| meta.permissions().mode() & 0o7777);
            drop(std::fs::remove_dir(made));
            mode.ok()
        };
        let in_userns = ["unshare", "--user", "--map-root-user"];
        assert_eq!(listed(&["env"], "me"), None, "root of the host");
        assert_eq!(listed(&in_userns, "me"), Some(0o1700));
        assert_eq!(listed(&in_userns, "root"), None);
    }
}

#[test]
fn every_spelling_of_a_flag_is_taken() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "true");
        container.write_config();
        let bundle = container.bundle().to_str().unwrap().to_owned();
        let with = format!("-bundle={bundle}");
        for flags in [
            &["--bundle", bundle.as_str()][..],
            &["-b", &bundle],
            &[&with],
            &["-no-subreaper", "-keep=false"],
        ] {
            container.must(&[&["run"], flags, &[&container.id]].concat());
        }
    }
}

#[test]
fn the_completion_of_bash_completes() {
    for runtime in Runtime::ours() {
        let container = Container::new(runtime, "sleep 1000");
        container.start();
        let script = container.must(&["completion", "bash"]);
        std::fs::write(container.bundle().join("completion"), script).unwrap();
        let root = container.state_root();
        let program = runtime.program();
        let complete = |words: &[&str]| {
            let all = words.iter().map(|word| format!("'{word}'"));
            let words = all.collect::<Vec<_>>().join(" ");
            let script = format!(
                "source ./completion; COMP_WORDS=({program} --root '{}' {words}); \
                COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _davit_oci; echo \"${{COMPREPLY[*]}}\"",
                root.display()
            );
            let output = Command::new("bash")
                .args(["-c", &script])
                .current_dir(container.bundle())
                .output()
                .unwrap();
            assert_eq!(text(&output.stderr), "");
            text(&output.stdout).trim().to_owned()
        };
        assert_eq!(complete(&["fea"]), "features");
        assert_eq!(complete(&["exec", "--pidfd"]), "--pidfd-socket");
        assert_eq!(complete(&["--log-f"]), "--log-format");
        assert_eq!(complete(&["exec", "-t", "--user", "5", ""]), container.id);
        assert_eq!(complete(&["create", "--bundle", "compl"]), "completion");
        assert_eq!(complete(&["create", ""]), "");
        assert!(container.must(&["man"]).starts_with(".TH DAVIT\\-OCI 8"));
    }
}
