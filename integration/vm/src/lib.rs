//! The test host: a small Debian in QEMU with systemd as PID 1, cgroup v2 with every controller, and AppArmor.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let image = vm::Image::ready(vm::Suite::Bookworm)?;
//! let payload = vm::Payload::new("davit-oci --version").file("target/dist/davit-oci", "/usr/local/bin/davit-oci");
//! let code = vm::Machine::boot(&image, &payload, &vm::Options::default())?.finish(|line| println!("{line}"))?;
//! # assert_eq!(code, 0); Ok(()) }
//! ```
//!
//! - [`Image`] is made once from Debian's packages and then comes from `~/.cache/davit/vm`. It is never written to.
//! - [`Payload`] is what one boot gets besides: files and the command.
//! - [`Machine`] is one running QEMU. It ends with its command, at its deadline, when it is dropped, and when the
//!   process that started it dies, however that happens.
//!
//! Several machines can run at once: they share nothing but the image, and have no network.
#![forbid(unsafe_code)]

mod image;
mod machine;
mod payload;
mod recipe;

pub use image::Image;
pub use machine::{Cgroups, Machine, Options};
pub use payload::Payload;
pub use recipe::Suite;
