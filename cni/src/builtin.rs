//! The network of a node on which nobody configured one.
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::json;

use crate::NetworkList;
use crate::config::BUILTIN_KEY;
use crate::plugin::{Failure, remove_network};

/// The built-in network: one bridge, addresses from one subnet of each family, masquerade to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinOptions {
    /// The network's name.
    pub name: String,
    /// The bridge's link name.
    pub bridge_name: String,
    /// Where pods get their addresses from; its first address is the bridge's.
    pub subnet: Ipv4Net,
    /// Where pods get a second address from, if they get one.
    pub subnet6: Option<Ipv6Net>,
    /// Where reservations are kept, as host-local does.
    pub data_dir: PathBuf,
    /// MTU of the bridge's ports; None leaves the kernel's 1500.
    pub mtu: Option<u32>,
}

impl Default for BuiltinOptions {
    fn default() -> BuiltinOptions {
        BuiltinOptions {
            name: "davit".to_owned(),
            bridge_name: "davit0".to_owned(),
            subnet: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 89, 0, 0), 16),
            subnet6: None,
            data_dir: "/var/lib/cni/networks".into(),
            mtu: None,
        }
    }
}

impl BuiltinOptions {
    /// Removes from the host what the network left after its last container: the bridge and the masquerade.
    /// Idempotent; forwarding stays on, for others may rely on it by now.
    ///
    /// # Errors
    /// What the kernel refused; every step is tried.
    pub fn remove_from_host(&self) -> Result<(), Failure> {
        remove_network(&self.name, &self.bridge_name)
    }
}

impl NetworkList {
    /// The network of a node without configuration.
    ///
    /// Its plugins come from the binary that [`crate::Executor::with_builtin`] names, whatever else is installed.
    #[must_use]
    pub fn builtin(options: &BuiltinOptions) -> NetworkList {
        let mut ranges = vec![json!([{"subnet": options.subnet.trunc().to_string()}])];
        ranges.extend(
            options
                .subnet6
                .map(|subnet| json!([{"subnet": subnet.trunc().to_string()}])),
        );
        let mut bridge = json!({
            "type": "bridge",
            "bridge": options.bridge_name,
            "isDefaultGateway": true,
            "forceAddress": false,
            "ipMasq": true,
            "acceptForward": true,
            "hairpinMode": true,
            "capabilities": {"ips": true, "mac": true, "ipRanges": true, "netnsDies": true},
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "dataDir": options.data_dir,
            },
        });
        if let Some(mtu) = options.mtu {
            bridge["mtu"] = mtu.into();
        }
        NetworkList::assemble(
            &options.name,
            vec![
                ("bridge", bridge),
                ("portmap", json!({"capabilities": {"portMappings": true}})),
            ],
            &[(BUILTIN_KEY, true.into())],
        )
    }
}
