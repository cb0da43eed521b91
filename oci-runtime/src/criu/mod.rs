//! `checkpoint` and `restore` through criu, which is started as `criu swrk FD` and spoken to over that socket.
//!
//! ```text
//! davit-oci                               criu swrk FD
//!   ── request: DUMP or RESTORE, options ────▶
//!   ◀── NOTIFY "post-dump", "post-restore" … ──   waits for the answer
//!   ── NOTIFY, success ──────────────────────▶
//!   ◀── DUMP or RESTORE, success ─────────────   ends
//! ```
//! criu opens the directories of the request through `/proc/<our pid>/fd`; what a restored process shall have in the
//! place of something that it had (`inherit_fd`) are descriptors of criu itself. The messages are those of criu's
//! `images/rpc.proto`; what other programs write into images and read from them (keys of mounts and namespaces,
//! `descriptors.json`) is as runc has it, so that one runtime restores what another has saved.
mod descriptors;
mod flags;
mod log;
mod outside;
mod rpc;
mod session;
mod wire;

pub use descriptors::{Descriptors, read as read_descriptors};
pub use flags::{Directories, StatusFd, common};
pub use log::explain;
pub use outside::{dumped, inherit, joined, mounts_of_dump, mounts_of_restore};
pub use rpc::{Kind, Notify, Response, feature, opt, request};
pub use session::{Session, converse};
pub use wire::{Fields, Malformed, Message, Value};
