//! The genuine tools that Davit is tested against, each at a pinned version.
//!
//! Debian packages go where apt puts them; what is built goes to `~/.cache/davit/tools`, with a marker
//! `<name>.version` beside `bin/` that is written last, so that an interrupted build is done again.

mod busybox;
mod debian;
pub(crate) mod peers;

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
    "libseccomp-dev",
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
    "buildah",
    "catatonit",
    "docker.io",
    "nginx",
    "procps",
    "util-linux",
    "uidmap",
    "systemd",
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
const CRITEST: &str = "1.36.0";
/// The newest version of the suite that the module proxy has; its last tag is of 2019.
const RUNTIME_TOOLS: &str = "0.9.1-0.20251114084447-edf4cb3d2116";
const CARGO_DENY: &str = "0.20.2";

/// Installs all that is missing.
pub(crate) fn install_all(workspace: &Workspace) -> Result<()> {
    debian::install(PACKAGES)?;
    busybox::unpack()?;
    crictl(workspace)?;
    cni_reference(workspace)?;
    critest(workspace)?;
    runtime_tools(workspace)?;
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

/// Builds the conformance suite of the CRI, and ginkgo, which runs several processes of it beside each other.
fn critest(workspace: &Workspace) -> Result<()> {
    if is_installed("critest", CRITEST)? {
        return Ok(());
    }
    let module = &workspace.root.join("integration/tools/critest");
    go_build(&GoBuild {
        module,
        flags: &SMALL,
        packages: &["github.com/onsi/ginkgo/v2/ginkgo"],
        out: &bin_dir()?,
    })?;
    let mut build = go(&copied(module)?, "test", &SMALL);
    build.arg("-c").arg("-o").arg(bin_dir()?.join("critest"));
    run::run(build.arg("sigs.k8s.io/cri-tools/cmd/critest"))?;
    mark_installed("critest", CRITEST)
}

/// Builds the validation suite of the OCI runtime specification into a directory of its own, one program per test,
/// with the root filesystem that they unpack.
fn runtime_tools(workspace: &Workspace) -> Result<()> {
    const MODULE: &str = "github.com/opencontainers/runtime-tools";
    let out = tools_dir()?.join("runtime-tools");
    let marked = fs::read_to_string(marker("runtime-tools")?);
    if marked.is_ok_and(|v| v.trim() == RUNTIME_TOOLS) && out.join("runtimetest").is_file() {
        return Ok(());
    }
    let module = &workspace.root.join("integration/tools/runtime-tools");
    let listed = fs::read_to_string(module.join("tools.go"));
    let listed = listed.with_context(|| format!("read {}", module.display()))?;
    let packages: Vec<&str> = listed
        .split('"')
        .filter(|part| part.starts_with(MODULE))
        .collect();
    go_build(&GoBuild {
        module,
        flags: &SMALL,
        packages: &packages,
        out: &out,
    })?;
    let source = copied(module)?;
    let mut list = go(&source, "list", &["-m", "-f", "{{.Dir}}"]);
    let source = run::output(list.arg(MODULE))?;
    let rootfs = "rootfs-amd64.tar.gz";
    fs::copy(Path::new(source.trim()).join(rootfs), out.join(rootfs))
        .with_context(|| format!("copy {rootfs} of {MODULE}"))?;
    mark_installed("runtime-tools", RUNTIME_TOOLS)
}

/// Without symbols: nobody debugs these programs.
const SMALL: [&str; 2] = ["-ldflags", "-s -w"];

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
    fs::create_dir_all(wanted.out).with_context(|| format!("create {}", wanted.out.display()))?;
    let mut build = go(&copied(wanted.module)?, "build", wanted.flags);
    build
        .arg("-o")
        .arg(format!("{}/", wanted.out.display()))
        .args(wanted.packages);
    run::run(&mut build)
}

/// A copy of a module among the tools, because `go build -mod=mod` writes the indirect requirements into go.mod.
fn copied(module: &Path) -> Result<PathBuf> {
    let name = module.file_name().context("a module's directory")?;
    let copy = tools_dir()?.join("src").join(name);
    fs::create_dir_all(&copy).with_context(|| format!("create {}", copy.display()))?;
    for file in ["go.mod", "go.sum", "tools.go"] {
        let from = module.join(file);
        fs::copy(&from, copy.join(file)).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(copy)
}

/// A command of Go in a module.
fn go(module: &Path, verb: &str, flags: &[&str]) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .args([verb, "-mod=mod"]);
    if verb != "list" {
        // The cache directory may lie inside somebody's git repository.
        command.args(["-trimpath", "-buildvcs=false"]);
    }
    command.args(flags);
    command
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
