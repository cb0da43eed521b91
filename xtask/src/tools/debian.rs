//! Packages from Debian's archive. A package's service is never started: the suites start their own instances.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// Debian policy: a program of this name that exits 101 forbids every service start by package scripts.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Packages with a service of their name. Where one was installed before us, its service is somebody's and stays.
const SERVICES: [&str; 4] = ["containerd", "docker-registry", "docker", "nginx"];

/// Installs those of the packages that are absent.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|p| !is_installed(p))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install {}", missing.join(" "));
    if !run::on_path("apt-get") {
        bail!(
            "these tools are missing and there is no apt-get here: {}; install them by hand",
            missing.join(", ")
        );
    }
    if !run::is_root() {
        bail!("installing packages needs root: run `sudo {command}`, or this command as root");
    }
    let _policy = NoServices::declare()?;
    run::run(apt().arg("update"))?;
    run::run(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing),
    )?;
    let is_new = |service: &str| {
        missing
            .iter()
            .any(|one| one.trim_end_matches(".io") == service)
    };
    for service in SERVICES.iter().filter(|service| is_new(service)) {
        // Its unit is enabled on installation and would start at the next boot.
        if run::on_path("systemctl") {
            run::run(Command::new("systemctl").args(["--quiet", "disable", service]))?;
        }
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "--quiet",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    command
}

fn is_installed(package: &str) -> bool {
    let query = ["--show", "--showformat", "${db:Status-Status}", package];
    run::output(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
}

/// Keeps package scripts from starting services for as long as it lives.
struct NoServices {
    /// The administrator's own policy stays as it is.
    is_ours: bool,
}

impl NoServices {
    fn declare() -> Result<NoServices> {
        if Path::new(POLICY).exists() {
            return Ok(NoServices { is_ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        let guard = NoServices { is_ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {POLICY} executable"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!(
                "warning: remove {POLICY}: {error}; remove it by hand, or no package starts its service"
            );
        }
    }
}
