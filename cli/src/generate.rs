//! Completion scripts and manual pages, from the same definition as the help.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::format::print;
use crate::{Error, Result};

pub(crate) fn completion(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "davit", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub(crate) fn man(out: Option<&Path>) -> Result<u8> {
    match out {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
            clap_mangen::generate_to(Args::command(), dir).map_err(Error::io(format!(
                "write manual pages to {}",
                dir.display()
            )))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command())
                .render(&mut page)
                .map_err(Error::io("render the manual page"))?;
            print(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(0)
}
