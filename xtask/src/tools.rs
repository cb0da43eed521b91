//! The genuine tools that Davit is tested against, each at a pinned version.
//!
//! Debian packages go where apt puts them; what is built goes to `~/.cache/davit/tools`, with a marker
//! `<name>.version` beside `bin/` that is written last, so that an interrupted build is done again.

mod debian;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::workspace::Workspace;

/// Debian packages that the integration suites start.
const PACKAGES: &[&str] = &[
    "runc",
    "crun",
    "podman",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "busybox-static",
    "skopeo",
    "nftables",
    "strace",
    "zstd",
    "iproute2",
    "e2fsprogs",
    // The test host.
    "qemu-system-x86",
    "debootstrap",
    "debian-archive-keyring",
    "cpio",
];

const CRICTL: &str = "1.36.0";
/// The reference plugins; cnitool's version is in the module beside them.
const CNI: &str = "1.9.1";
const CNI_PACKAGES: &[&str] = &[
    "github.com/containernetworking/cni/cnitool",
    "github.com/containernetworking/plugins/plugins/main/bridge",
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "github.com/containernetworking/plugins/plugins/meta/portmap",
    "github.com/containernetworking/plugins/plugins/meta/tuning",
];
const CARGO_DENY: &str = "0.20.2";

/// Installs all that is missing.
pub(crate) fn install_all(workspace: &Workspace) -> Result<()> {
    debian::install(PACKAGES)?;
    crictl(workspace)?;
    cni_reference(workspace)?;
    install_cargo_deny(workspace)?;
    eprintln!(
        "tools: all there; built ones are in {}",
        bin_dir()?.display()
    );
    Ok(())
}

/// Builds crictl from the Go module proxy, with the checksums in integration/tools/crictl/go.sum.
pub(crate) fn crictl(workspace: &Workspace) -> Result<()> {
    if is_installed("crictl", CRICTL)? {
        return Ok(());
    }
    let version_flag = format!("-X sigs.k8s.io/cri-tools/pkg/version.Version=v{CRICTL}");
    go_build(&GoBuild {
        module: &workspace.root.join("integration/tools/crictl"),
        flags: &["-ldflags", &version_flag],
        packages: &["sigs.k8s.io/cri-tools/cmd/crictl"],
        out: &bin_dir()?,
    })?;
    mark_installed("crictl", CRICTL)
}

/// Builds cnitool and the reference plugins. They have a directory of their own, because a directory of plugins is
/// what CNI programs take.
fn cni_reference(workspace: &Workspace) -> Result<()> {
    let out = tools_dir()?.join("cni");
    let marked = fs::read_to_string(marker("cni")?).is_ok_and(|v| v.trim() == CNI);
    if marked && out.join("cnitool").is_file() {
        return Ok(());
    }
    go_build(&GoBuild {
        module: &workspace.root.join("integration/tools/cni"),
        flags: &[],
        packages: CNI_PACKAGES,
        out: &out,
    })?;
    mark_installed("cni", CNI)
}

/// Packages of one pinned Go module, built into a directory.
struct GoBuild<'a> {
    module: &'a Path,
    flags: &'a [&'a str],
    packages: &'a [&'a str],
    out: &'a Path,
}

fn go_build(wanted: &GoBuild<'_>) -> Result<()> {
    if !run::on_path("go") {
        bail!(
            "{} is built with Go, and there is no `go` on PATH: `apt-get install golang-go` (1.26 or newer, or one that may fetch its toolchain), or see https://go.dev/dl",
            wanted.packages[0]
        );
    }
    // A copy, because `go build -mod=mod` writes the indirect requirements into go.mod.
    let name = wanted.module.file_name().context("a module's directory")?;
    let module = tools_dir()?.join("src").join(name);
    fs::create_dir_all(&module).with_context(|| format!("create {}", module.display()))?;
    for file in ["go.mod", "go.sum", "tools.go"] {
        let from = wanted.module.join(file);
        fs::copy(&from, module.join(file)).with_context(|| format!("copy {}", from.display()))?;
    }
    fs::create_dir_all(wanted.out).with_context(|| format!("create {}", wanted.out.display()))?;
    let mut build = Command::new("go");
    build
        .current_dir(&module)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=mod", "-trimpath"])
        // The cache directory may lie inside somebody's git repository.
        .arg("-buildvcs=false")
        .args(wanted.flags)
        .arg("-o")
        .arg(format!("{}/", wanted.out.display()))
        .args(wanted.packages);
    run::run(&mut build)
}

fn install_cargo_deny(workspace: &Workspace) -> Result<()> {
    if is_installed("cargo-deny", CARGO_DENY)? {
        return Ok(());
    }
    let mut install = workspace.cargo();
    // Its own target directory: cargo-deny shares no crate build with the workspace, and nothing of it is needed later.
    let build = tools_dir()?.join("build");
    install.env("CARGO_TARGET_DIR", &build).args([
        "install",
        "--locked",
        "--force",
        "--version",
        CARGO_DENY,
        "--root",
    ]);
    run::run(install.arg(tools_dir()?).arg("cargo-deny"))?;
    if let Err(error) = fs::remove_dir_all(&build) {
        eprintln!("warning: remove {}: {error}", build.display());
    }
    mark_installed("cargo-deny", CARGO_DENY)
}

/// Where cargo-deny is, if it is there.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    let own = bin_dir().ok()?.join("cargo-deny");
    own.is_file().then_some(own)
}

/// `~/.cache/davit/tools/bin`, to be put in front of PATH for the suites.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    let dir = tools_dir()?.join("bin");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// PATH with our tools in front.
pub(crate) fn path() -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(bin_dir()?).chain(std::env::split_paths(&path));
    std::env::join_paths(dirs).context("put the tools in front of PATH")
}

fn tools_dir() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set: where should the tools go?")?;
    Ok(Path::new(&home).join(".cache/davit/tools"))
}

fn is_installed(name: &str, version: &str) -> Result<bool> {
    let marked = fs::read_to_string(marker(name)?).is_ok_and(|v| v.trim() == version);
    Ok(marked && bin_dir()?.join(name).is_file())
}

fn mark_installed(name: &str, version: &str) -> Result<()> {
    let path = marker(name)?;
    fs::write(&path, format!("{version}\n")).with_context(|| format!("write {}", path.display()))
}

fn marker(name: &str) -> Result<PathBuf> {
    Ok(tools_dir()?.join(format!("{name}.version")))
}
