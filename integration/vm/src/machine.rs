//! One running QEMU.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Image, Payload};

/// Which cgroup hierarchies systemd mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// cgroup2 alone.
    #[default]
    V2,
    /// Every controller on v1, and cgroup2 without any beside them.
    Hybrid,
    /// v1 alone.
    V1,
}

/// How a machine is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which cgroups it has.
    pub cgroups: Cgroups,
    /// It is killed when it takes longer, boot included.
    pub deadline: Duration,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// More words for the kernel's command line.
    pub cmdline: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cgroups: Cgroups::default(),
            deadline: Duration::from_secs(600),
            memory_mib: 1024,
            cpus: 2,
            cmdline: String::new(),
        }
    }
}

/// A booted image that runs its payload's command.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    output: Option<ChildStdout>,
    deadline: Duration,
    files: Files,
}

/// What passes between the guest and us besides its output. The files have no names, so that nothing is left of them
/// however this process ends; QEMU opens them through our descriptors.
#[derive(Debug)]
struct Files {
    payload: File,
    status: File,
    console: File,
}

// === impl Cgroups ===

impl Cgroups {
    fn cmdline(self) -> &'static str {
        match self {
            Self::V2 => "systemd.unified_cgroup_hierarchy=1",
            Self::Hybrid => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0"
            }
            Self::V1 => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
            }
        }
    }
}

// === impl Machine ===

impl Machine {
    /// Starts QEMU; the command's output can be read as soon as there is any.
    ///
    /// # Errors
    /// Where the payload cannot be written or QEMU not started.
    pub fn boot(image: &Image, payload: &Payload, options: &Options) -> Result<Self> {
        let files = Files::with(payload)?;
        let mut command = qemu(image, &files, options);
        // QEMU opens its stdout anew, and the guest writes to that alone: what QEMU itself says goes to stderr.
        command
            .args(["-chardev", "file,id=output,path=/dev/stdout"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Self::start(command, files, options)
    }

    /// Boots with the guest's console `/dev/hvc0` on this process's terminal, and waits for the end.
    ///
    /// # Errors
    /// As [`Machine::boot`] and [`Machine::finish`].
    pub fn on_terminal(image: &Image, payload: &Payload, options: &Options) -> Result<i32> {
        let files = Files::with(payload)?;
        let mut command = qemu(image, &files, options);
        command.args([
            "-chardev",
            "null,id=output",
            "-chardev",
            "stdio,id=terminal,signal=off",
        ]);
        command.args(["-device", "virtconsole,chardev=terminal"]);
        Self::start(command, files, options)?.finish(|_| {})
    }

    fn start(mut command: Command, files: Files, options: &Options) -> Result<Self> {
        let mut qemu = command
            .spawn()
            .context("start QEMU; `cargo xtask tools` installs it")?;
        Ok(Self {
            output: qemu.stdout.take(),
            qemu,
            deadline: options.deadline,
            files,
        })
    }

    /// Hands over the output line by line and returns the command's exit status.
    ///
    /// # Errors
    /// Where the machine ended without one: at its deadline, or because it crashed. The error ends with the console.
    pub fn finish(mut self, mut seen: impl FnMut(&str)) -> Result<i32> {
        if let Some(output) = self.output.take() {
            for line in BufReader::new(output).split(b'\n') {
                seen(&String::from_utf8_lossy(
                    &line.context("read the guest's output")?,
                ));
            }
        }
        let ended = self.qemu.wait().context("wait for QEMU")?;
        if let Ok(status) = read_back(&mut self.files.status)?.trim().parse() {
            return Ok(status);
        }
        let console = read_back(&mut self.files.console)?;
        let tail: Vec<&str> = console.lines().rev().take(30).collect();
        let why = match ended.code() {
            Some(124 | 137) => format!("did not end within {} s", self.deadline.as_secs()),
            _ => format!("ended without an exit status of the command (QEMU: {ended})"),
        };
        bail!(
            "the test host {why}; its console:\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Gone already in most cases. QEMU follows its parent.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}

// === impl Files ===

impl Files {
    fn with(payload: &Payload) -> Result<Self> {
        let file = || tempfile::tempfile().context("a file for the test host");
        let mut archive = file()?;
        payload.write(&mut archive)?;
        archive.flush().context("write the test host's payload")?;
        Ok(Self {
            payload: archive,
            status: file()?,
            console: file()?,
        })
    }
}

fn read_back(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .context("read what the test host left")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A path by which QEMU can open our descriptor.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// QEMU with all but the chardev "output".
///
/// Its parents end it: `timeout` at the deadline, and `setpriv` asks the kernel to kill each when its parent dies.
fn qemu(image: &Image, files: &Files, options: &Options) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "timeout",
            "--foreground",
            "--kill-after=5",
        ])
        .arg(options.deadline.as_secs().to_string());
    command.args(["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    // Not KVM: it hangs where this machine is a guest itself.
    command.args([
        "-machine",
        "pc",
        "-accel",
        "tcg,thread=multi,tb-size=512",
        "-cpu",
        "max",
    ]);
    command.args([
        "-smp",
        &options.cpus.to_string(),
        "-m",
        &options.memory_mib.to_string(),
    ]);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs);
    // no_timer_check: on a busy machine the kernel misses the ticks by which it tests its timer, and panics.
    let cmdline = format!(
        "console=ttyS0 loglevel=4 panic=-1 no_timer_check mitigations=off random.trust_cpu=on apparmor=1 \
         security=apparmor {} {}",
        options.cgroups.cmdline(),
        options.cmdline
    );
    command.args(["-append", &cmdline]);
    command.args(["-drive", &drive(&image.disk, "snapshot=on,cache=unsafe")]);
    command.args([
        "-drive",
        &drive(Path::new(&path_of(&files.payload)), "readonly=on"),
    ]);
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    command.args(["-serial", &format!("file:{}", path_of(&files.console))]);
    command.args([
        "-chardev",
        &format!("file,id=status,path={}", path_of(&files.status)),
    ]);
    command.args(["-device", "virtserialport,chardev=output,name=davit.output"]);
    command.args(["-device", "virtserialport,chardev=status,name=davit.status"]);
    command
}

fn drive(file: &Path, how: &str) -> String {
    format!("file={},format=raw,if=virtio,{how}", comma_doubled(file))
}

/// In QEMU's options a comma separates, and two are one.
fn comma_doubled(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
