//! Making the image: packages unpacked into a tree, the tree into a disk, and a kernel with an initramfs beside it.
//!
//! The packages' own scripts do not run. They would take minutes and set up what nobody uses here; what the guest
//! needs of their work is done in [`configure`], in a few lines.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::recipe::{self, Suite};

/// A kernel, an initramfs and a root disk, none of which a boot changes.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) disk: PathBuf,
}

// === impl Image ===

impl Image {
    /// The image of this suite, made now where `~/.cache/davit/vm` has none. Who comes meanwhile waits.
    ///
    /// # Errors
    /// Where making it fails: without root, a program that it needs, or Debian's archive.
    pub fn ready(suite: Suite) -> Result<Self> {
        let home = std::env::var_os("HOME")
            .context("HOME is not set: where should the image of the test host go?")?;
        let cache = Path::new(&home).join(".cache/davit/vm");
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let dir = cache.join(suite.key());
        let lock_path = cache.join(format!("{}.lock", suite.name()));
        let lock =
            File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock()
            .with_context(|| format!("lock {}", lock_path.display()))?;
        if !dir.is_dir() {
            make(suite, &cache, &dir)
                .with_context(|| format!("make the image of the test host ({})", suite.name()))?;
        }
        Ok(Self {
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs"),
            disk: dir.join("root.ext4"),
        })
    }
}

fn make(suite: Suite, cache: &Path, dir: &Path) -> Result<()> {
    eprintln!(
        "making the image of the test host from Debian's {}; the next one comes from {}",
        suite.name(),
        cache.display()
    );
    let work = tempfile::Builder::new()
        .prefix("making-")
        .tempdir_in(cache)
        .context("a directory to make the image in")?;
    let (packages, root, made) = (
        work.path().join("packages"),
        work.path().join("root"),
        work.path().join("made"),
    );
    fs::create_dir(&made).context("create the image's directory")?;
    download(suite, cache, &packages)?;
    unpack(&packages.join("var/cache/apt/archives"), &root)?;
    configure(&root)?;
    let version = kernel_version(&root)?;
    fs::rename(kernel(&root, &version), made.join("vmlinuz")).context("take the kernel")?;
    write_initramfs(&root, &version, &made.join("initramfs"))?;
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d"])
        .arg(&root)
        .arg(made.join("root.ext4"))
        .arg(recipe::DISK_SIZE))?;
    fs::rename(&made, dir).with_context(|| format!("put the image to {}", dir.display()))
}

/// Downloads the packages and all that they need; debootstrap resolves and verifies them.
fn download(suite: Suite, cache: &Path, into: &Path) -> Result<()> {
    let kept = cache.join("debs");
    fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
    let mut command = Command::new("debootstrap");
    command
        .args(["--download-only", "--variant=minbase", "--arch=amd64"])
        .arg(format!("--cache-dir={}", kept.display()));
    command
        .arg(format!("--include={}", recipe::PACKAGES.join(",")))
        .arg(suite.name())
        .arg(into)
        .arg(recipe::MIRROR)
        // An older debootstrap does not know newer names; what it does for them is the same.
        .arg("/usr/share/debootstrap/scripts/sid");
    run(&mut command)
}

fn unpack(packages: &Path, root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name))
            .with_context(|| format!("create /usr/{name}"))?;
        symlink(format!("usr/{name}"), root.join(name)).with_context(|| format!("link /{name}"))?;
    }
    let mut count = 0;
    for entry in fs::read_dir(packages).with_context(|| format!("read {}", packages.display()))? {
        let path = entry.context("read the packages' directory")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with(".deb")
            || recipe::LEFT_OUT
                .iter()
                .any(|prefix| name.starts_with(prefix))
        {
            continue;
        }
        unpack_one(&path, root).with_context(|| format!("unpack {name}"))?;
        count += 1;
    }
    ensure!(
        count > 0,
        "debootstrap left no packages in {}",
        packages.display()
    );
    Ok(())
}

fn unpack_one(package: &Path, root: &Path) -> Result<()> {
    let mut data = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("start dpkg-deb")?;
    let pipe = data.stdout.take().context("dpkg-deb has no stdout")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(root);
    tar.args(
        recipe::NOT_UNPACKED
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );
    let unpacked = run(tar.stdin(pipe));
    let status = data.wait().context("wait for dpkg-deb")?;
    ensure!(status.success(), "dpkg-deb ended with {status}");
    unpacked
}

/// What the packages' scripts would have done, as far as it is needed.
fn configure(root: &Path) -> Result<()> {
    for (file, more) in [("passwd", recipe::USERS), ("group", recipe::GROUPS)] {
        let master = root.join(format!("usr/share/base-passwd/{file}.master"));
        let base =
            fs::read_to_string(&master).with_context(|| format!("read {}", master.display()))?;
        write(&root.join("etc").join(file), &format!("{base}{more}"))?;
    }
    let nsswitch = root.join("usr/share/libc-bin/nsswitch.conf");
    if nsswitch.is_file() {
        fs::copy(&nsswitch, root.join("etc/nsswitch.conf")).context("copy nsswitch.conf")?;
    }
    for (path, text) in recipe::FILES {
        write(&root.join(path), text)?;
    }
    let agent = root.join("usr/local/sbin/davit-vm-agent");
    write(&agent, recipe::AGENT)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))
        .context("make the agent executable")?;
    let home = root.join("home/tester");
    fs::create_dir_all(&home).context("create the tester's home")?;
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).context("give the tester a home")?;
    link_if_absent("dash", &root.join("usr/bin/sh"))?;
    only_needed_units(root)?;
    run(Command::new("ldconfig").arg("-r").arg(root))
}

fn only_needed_units(root: &Path) -> Result<()> {
    let units = root.join("usr/lib/systemd/system");
    symlink(
        "davit-vm.target",
        root.join("etc/systemd/system/default.target"),
    )
    .context("link default.target")?;
    let generators = root.join("usr/lib/systemd/system-generators");
    let wanted = ["sysinit", "local-fs", "timers", "multi-user"]
        .map(|target| units.join(format!("{target}.target.wants")));
    for dir in wanted.iter().chain([&generators]) {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", dir.display()))?;
            if !recipe::BOOT_UNITS
                .iter()
                .any(|unit| entry.file_name() == *unit)
            {
                fs::remove_file(entry.path())
                    .with_context(|| format!("remove {}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}

/// Where the packages have it: newer ones leave it beside its modules.
fn kernel(root: &Path, version: &str) -> PathBuf {
    let beside = root.join(format!("usr/lib/modules/{version}/vmlinuz"));
    if beside.is_file() {
        return beside;
    }
    root.join(format!("boot/vmlinuz-{version}"))
}

fn kernel_version(root: &Path) -> Result<String> {
    let dir = root.join("usr/lib/modules");
    let mut names = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
    let only = names
        .next()
        .context("the kernel's package has no modules")?
        .context("read the kernel's modules")?;
    Ok(only.file_name().to_string_lossy().into_owned())
}

/// busybox, the modules that the root disk needs, and a script that loads them.
fn write_initramfs(root: &Path, version: &str, to: &Path) -> Result<()> {
    run(Command::new("chroot").arg(root).args(["depmod", version]))?;
    let dir = root.with_file_name("initramfs");
    for name in ["bin", "dev", "proc", "root", "modules"] {
        fs::create_dir_all(dir.join(name))
            .with_context(|| format!("create /{name} of the initramfs"))?;
    }
    fs::copy(root.join("usr/bin/busybox"), dir.join("bin/busybox")).context("copy busybox")?;
    write(&dir.join("init"), recipe::INITRAMFS_INIT)?;
    fs::set_permissions(dir.join("init"), fs::Permissions::from_mode(0o755))
        .context("make init executable")?;
    let mut order = String::new();
    for module in modules(root, version)? {
        let name = module
            .file_name()
            .context("a module without a name")?
            .to_string_lossy()
            .into_owned();
        let inside = root.join(module.strip_prefix("/").unwrap_or(&module));
        fs::copy(&inside, dir.join("modules").join(&name))
            .with_context(|| format!("copy {}", inside.display()))?;
        order.push_str(&name);
        order.push('\n');
    }
    write(&dir.join("modules/order"), &order)?;
    let mut pack = Command::new("sh");
    pack.current_dir(&dir)
        .args(["-ec", "find . | cpio --quiet -o -H newc > \"$1\"", "sh"]);
    run(pack.arg(to))
}

/// The early modules' files with all that they need, in the order of loading.
fn modules(root: &Path, version: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for module in recipe::EARLY_MODULES {
        let mut command = Command::new("chroot");
        command.arg(root).args([
            "modprobe",
            "--set-version",
            version,
            "--show-depends",
            module,
        ]);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .context("start chroot")?;
        ensure!(
            output.status.success(),
            "modprobe --show-depends {module} ended with {}",
            output.status
        );
        // insmod /lib/modules/6.1.0/kernel/virtio.ko, or: builtin ext4
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
    }
    Ok(files)
}

fn link_if_absent(target: &str, at: &Path) -> Result<()> {
    match symlink(target, at) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("link {}", at.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Runs a program that must succeed; what it prints is shown only where it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("start {program}; `cargo xtask tools` installs it"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        bail!("{program} ended with {}: {}", output.status, said.join(" "));
    }
    Ok(())
}
