//! CNI: the executor that runs any CNI plugin, and the plugins of this project.
//!
//! The executor is the runtime's side of <https://www.cni.dev/docs/spec/> 1.1: it loads network
//! configurations as libcni does, runs the chain of plugins for ADD and DEL, and keeps libcni's result cache,
//! so that a network made by one runtime can be taken down by another. The plugins ([`plugin`]) are compiled
//! into one multi-call binary, `davit-cni`, and speak the same protocol as everyone else's.
//!
//! ```no_run
//! # fn main() -> Result<(), cni::Error> {
//! use cni::{Attachment, BuiltinOptions, Executor, NetworkList};
//! let executor = Executor::new(vec!["/opt/cni/bin".into()]).with_builtin("/usr/local/bin/davit-cni");
//! let network = match NetworkList::load_dir("/etc/cni/net.d".as_ref())? {
//!     Some(network) => network,
//!     None => NetworkList::builtin(&BuiltinOptions::default()),
//! };
//! let pod = Attachment::new("pod-1").in_netns("/run/davit/pods/pod-1/ns/net");
//! let result = executor.add(&network, &pod)?; // on Err: still call `del`
//! println!("{}", result.ips[0].address);
//! executor.del(&network, &pod)?;
//! # Ok(()) }
//! ```
//!
//! Everything here blocks; an async caller wraps it in its own blocking task.
#![forbid(unsafe_code)]

mod attachment;
mod builtin;
mod cache;
mod config;
mod error;
mod executor;
mod invoke;
mod names;
pub mod plugin;
mod result;
mod version;

pub use attachment::Attachment;
pub use builtin::BuiltinOptions;
pub use cache::CachedAttachment;
pub use config::{NetworkList, PluginConfig, Scan, Skipped};
pub use error::{Error, PluginError};
pub use executor::{Executor, PluginVersions};
pub use result::{AddResult, Dns, Interface, IpConfig, Route};
pub use version::{SUPPORTED_VERSIONS, Version};
