//! Debian's buildah, which runs the steps of a build in containers.

use std::process::Command;

use integration::bin;
use integration::command::{Outcome, outcome};

use crate::place::Place;
use crate::{Runtime, Transcript, expect, line, same};

fn buildah(place: &Place, args: &[&str]) -> Outcome {
    let mut command = Command::new(bin::genuine("buildah").unwrap());
    command
        .env("TMPDIR", place.at(""))
        .args(["--storage-driver", "vfs"]);
    for (flag, name) in [("--root", "root"), ("--runroot", "run")] {
        command.arg(flag).arg(place.at(name));
    }
    outcome(command.args(args))
}

fn steps(runtime: &Runtime) -> Transcript {
    let place = Place::new("buildah");
    let path = runtime.path.to_string_lossy().into_owned();
    let rootfs = place.at("rootfs").to_string_lossy().into_owned();
    let mut transcript = Transcript::new();
    // More than buildah may ask for on a machine without CAP_SYS_RESOURCE.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=20000:20000"];
    let from = [&["from", "--name=box"], &limits[..], &["scratch"]].concat();
    buildah(&place, &from).ok();
    buildah(&place, &["add", "box", &rootfs, "/"]).ok();
    let isolation = ["--isolation=oci", "--runtime", &path, "--network=none"];
    let run = |flags: &[&str], script: &str| {
        let args = [
            &["run"],
            &isolation[..],
            flags,
            &["box", "--", "sh", "-c", script],
        ];
        buildah(&place, &args.concat())
    };
    transcript.push(line("run", &run(&[], "echo out; id -u; exit 5")));
    transcript.push(line(
        "seccomp",
        &run(&[], "grep Seccomp: /proc/self/status"),
    ));
    transcript.push(line("user", &run(&["--user=33"], "id -u")));
    transcript.push(line("no such program", &run(&[], "exec /no/such/program")));
    let file = place.at("Containerfile").to_string_lossy().into_owned();
    let text = "FROM scratch\nADD rootfs /\nENV A=b\nRUN echo $A > /data/built\nRUN [\"/bin/cat\", \"/data/built\"]\n";
    std::fs::write(&file, text).unwrap();
    let context = place.at("").to_string_lossy().into_owned();
    std::fs::write(place.at(".containerignore"), "*\n!rootfs\n").unwrap();
    let build = [
        &["build", "--quiet", "--tag=built", "--file", &file],
        &isolation[..],
        &limits[..],
        &[&context],
    ];
    let built = buildah(&place, &build.concat());
    assert_eq!(built.code, 0, "{built}");
    let failing = text.replace("/data/built\"]", "/no/such/file\"]");
    std::fs::write(&file, failing).unwrap();
    let failed = buildah(&place, &build.concat());
    transcript.push((
        "a step that fails".to_owned(),
        i32::from(failed.code != 0),
        String::new(),
    ));
    buildah(&place, &["rm", "--all"]).ok();
    transcript
}

#[test]
fn buildah_does_with_davit_oci_what_it_does_with_runc() {
    same(&["buildah"], |runtime| {
        let transcript = steps(runtime);
        eprintln!("buildah with {}", runtime.name);
        let expected = [
            ("run", 5, "out\n0\n"),
            ("user", 0, "33\n"),
            ("a step that fails", 1, ""),
        ];
        expect(&transcript, &expected);
        transcript
    });
}
