//! Building what ships, and collecting it into one directory: `target/dist`, or `target/dist-test` for the suites.
//!
//! The small binaries are static, which needs RUSTFLAGS of their own: they get a target directory of their own,
//! so that no other build of the workspace is thrown away by the other flags.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{image, run, target, tools};

/// Static binaries must name their target, or build scripts would get these flags too.
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";
const SMALL: &[(&str, &str)] = &[
    ("oci-runtime", "davit-oci"),
    ("shim", "davit-shim"),
    ("cni", "davit-cni"),
    ("davit-sample", "davit-sample"),
];
const DAEMONS: &[(&str, &str)] = &[("cri-server", "davit-cri"), ("cli", "davit")];
/// The image that `davit up` imports.
const SAMPLE_IMAGE: &str = "davit-sample.tar";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// What ships.
    Release,
    /// The small binaries as they ship; the daemon and the command as `cargo test` builds them, with fail points.
    Test,
}

/// Builds everything and returns the directory that holds it.
pub(crate) fn build(workspace: &Workspace, flavour: Flavour) -> Result<PathBuf> {
    build_small(workspace)?;
    let (name, daemons) = match flavour {
        Flavour::Release => ("dist", build_daemons(workspace)?),
        Flavour::Test => ("dist-test", build_tests(workspace)?),
    };
    let dist = workspace.target.join(name);
    fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    let small = small_dir(workspace);
    for (_, binary) in SMALL {
        place(&small.join(binary), &dist.join(binary))?;
    }
    for (_, binary) in DAEMONS {
        place(&daemons.join(binary), &dist.join(binary))?;
    }
    image::write_sample(&dist.join("davit-sample"), &dist.join(SAMPLE_IMAGE))?;
    if flavour == Flavour::Release {
        write_pages(&dist.join("davit-oci"), &dist.join("share"))?;
    }
    Ok(dist)
}

/// The manual page and the completion scripts of the OCI runtime, where a package puts them below `/usr/share`.
fn write_pages(davit_oci: &Path, share: &Path) -> Result<()> {
    let pages: [(&[&str], &str); 4] = [
        (&["man"], "man/man8/davit-oci.8"),
        (
            &["completion", "bash"],
            "bash-completion/completions/davit-oci",
        ),
        (&["completion", "zsh"], "zsh/site-functions/_davit-oci"),
        (
            &["completion", "fish"],
            "fish/vendor_completions.d/davit-oci.fish",
        ),
    ];
    for (args, name) in pages {
        let output = Command::new(davit_oci)
            .args(args)
            .output()
            .with_context(|| format!("run {} {}", davit_oci.display(), args.join(" ")))?;
        if !output.status.success() {
            bail!(
                "{} {}: {}",
                davit_oci.display(),
                args.join(" "),
                output.status
            );
        }
        let path = share.join(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        fs::write(&path, output.stdout).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// `davit-oci` as it ships, alone.
pub(crate) fn davit_oci(workspace: &Workspace) -> Result<PathBuf> {
    build_static(workspace, &["--package", "oci-runtime"])?;
    Ok(small_dir(workspace).join("davit-oci"))
}

/// The program of bare system calls that benchmarks compare with, built as `davit-oci` is.
pub(crate) fn floor(workspace: &Workspace) -> Result<PathBuf> {
    build_static(workspace, &["--package", "sys", "--example", "floor"])?;
    Ok(small_dir(workspace).join("examples/floor"))
}

fn small_dir(workspace: &Workspace) -> PathBuf {
    let target = target::small(workspace);
    workspace.target.join("static").join(target).join("small")
}

fn build_small(workspace: &Workspace) -> Result<()> {
    let packages: Vec<&str> = SMALL
        .iter()
        .flat_map(|(package, _)| ["--package", package])
        .collect();
    build_static(workspace, &packages)
}

fn build_static(workspace: &Workspace, what: &[&str]) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .env("RUSTFLAGS", STATIC)
        .env("CARGO_TARGET_DIR", workspace.target.join("static"));
    command.args([
        "build",
        "--locked",
        "--profile",
        "small",
        "--target",
        target::small(workspace),
    ]);
    run::run(command.args(what))
}

fn build_daemons(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "--release"]);
    run::run(
        command.args(
            DAEMONS
                .iter()
                .flat_map(|(package, _)| ["--package", package]),
        ),
    )?;
    Ok(workspace.target.join("release"))
}

/// Builds every test and binary in one go, so that all of them share one build of each dependency.
fn build_tests(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command
        .args(["build", "--locked", "--workspace", "--bins", "--tests"])
        .args(test_features(workspace));
    run::run(&mut command)?;
    Ok(workspace.target.join("debug"))
}

/// Fail points are armed for tests only; every build of a test run has them, so that nothing is built twice.
pub(crate) fn test_features(workspace: &Workspace) -> Vec<String> {
    let has = [
        "sys",
        "engine",
        "snapshotter",
        "cri-server",
        "shim",
        "oci-runtime",
    ]
    .into_iter()
    .filter(|p| workspace.has_feature(p, "failpoints"));
    let features: Vec<String> = has.map(|package| format!("{package}/failpoints")).collect();
    if features.is_empty() {
        Vec::new()
    } else {
        vec!["--features".to_owned(), features.join(",")]
    }
}

/// Puts a finished binary into the dist directory: a new inode by rename, so that a running one is not disturbed.
/// One that is there already stays, and with it the node that runs it.
fn place(from: &Path, to: &Path) -> Result<()> {
    if is_copy(from, to) {
        return Ok(());
    }
    let temporary = to.with_extension("new");
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("remove {}", temporary.display()));
    }
    fs::copy(from, &temporary)
        .with_context(|| format!("copy {} to {}", from.display(), temporary.display()))?;
    fs::rename(&temporary, to)
        .with_context(|| format!("rename {} to {}", temporary.display(), to.display()))
}

/// Whether `to` was copied from `from` as it is now.
fn is_copy(from: &Path, to: &Path) -> bool {
    let (Ok(from), Ok(to)) = (fs::metadata(from), fs::metadata(to)) else {
        return false;
    };
    match (from.modified(), to.modified()) {
        (Ok(built), Ok(copied)) => copied > built && from.len() == to.len(),
        _ => false,
    }
}

/// `cargo xtask up`: build, then `davit up`. crictl is a help to look around, not a need.
pub(crate) fn up(workspace: &Workspace, args: &[String]) -> Result<()> {
    needs_root("up")?;
    let dist = build(workspace, Flavour::Release)?;
    if let Err(error) = tools::crictl(workspace) {
        eprintln!("note: no crictl to look at the node with: {error:#}");
    }
    davit(&dist, "up", args)
}

/// `cargo xtask down`: `davit down` with the binary that `up` left; building it again would be a strange way to stop.
pub(crate) fn down(workspace: &Workspace, args: &[String]) -> Result<()> {
    needs_root("down")?;
    let dist = workspace.target.join("dist");
    let dist = if dist.join("davit").is_file() {
        dist
    } else {
        build(workspace, Flavour::Release)?
    };
    davit(&dist, "down", args)
}

fn davit(dist: &Path, verb: &str, args: &[String]) -> Result<()> {
    let mut command = Command::new(dist.join("davit"));
    run::run(command.env("PATH", tools::path()?).arg(verb).args(args))
}

pub(crate) fn needs_root(verb: &str) -> Result<()> {
    if run::is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {verb}` makes namespaces, mounts and cgroups on this machine: it needs root"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_binary_is_replaced_by_a_new_file_when_it_was_built_anew_and_else_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("built"), dir.path().join("davit"));
        let inode = || fs::metadata(&to).unwrap().ino();
        let built_at = |age: u64| {
            let file = fs::File::options().write(true).open(&from).unwrap();
            file.set_modified(
                SystemTime::now() - Duration::from_secs(60) + Duration::from_secs(age),
            )
            .unwrap();
        };
        fs::write(&from, "one").unwrap();
        built_at(0);
        place(&from, &to).unwrap();
        let first = inode();
        place(&from, &to).unwrap();
        assert_eq!(inode(), first);
        fs::write(&from, "two").unwrap();
        built_at(120);
        place(&from, &to).unwrap();
        assert_ne!(inode(), first);
        assert_eq!(fs::read(&to).unwrap(), b"two");
    }
}
