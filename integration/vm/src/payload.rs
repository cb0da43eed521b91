//! What one boot gets besides the image: a tar archive that is the guest's second disk.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The command and the files that it needs.
#[derive(Debug, Clone)]
pub struct Payload {
    command: String,
    files: Vec<(PathBuf, PathBuf)>,
}

// === impl Payload ===

impl Payload {
    /// A command for the guest's shell, which runs as root in a service of systemd, with nothing on its stdin.
    #[must_use]
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            files: Vec::new(),
        }
    }

    /// Puts this machine's file at an absolute path of the guest, with its permissions.
    #[must_use]
    pub fn file(mut self, here: impl Into<PathBuf>, there: impl Into<PathBuf>) -> Self {
        self.files.push((here.into(), there.into()));
        self
    }

    pub(crate) fn write(&self, to: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        for (here, there) in &self.files {
            let there = there
                .strip_prefix("/")
                .with_context(|| format!("the guest's path {} is not absolute", there.display()))?;
            archive
                .append_path_with_name(here, there)
                .with_context(|| format!("send {} to the guest", here.display()))?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(
            self.command
                .len()
                .try_into()
                .context("the command's length")?,
        );
        archive
            .append_data(&mut header, "davit-vm/command", self.command.as_bytes())
            .context("send the command to the guest")?;
        archive.finish().context("write the test host's payload")
    }
}
