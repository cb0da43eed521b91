//! The result of an ADD, <https://www.cni.dev/docs/spec/#add-success>, in every version from 0.3.0 to 1.1.0.
//!
//! The versions share one shape. Before 1.0.0 each address also says its family (`"version": "4"`); 1.1.0 added
//! fields to interfaces and routes, which are dropped for an older reader.
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::version::Version;

/// What a network gave to a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AddResult {
    /// Interfaces made on the way, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses, in the order of the plugins.
    pub ips: Vec<IpConfig>,
    /// Routes of the container.
    pub routes: Vec<Route>,
    /// Resolver settings that the network asks for.
    pub dns: Dns,
    /// The last plugin's answer as it was, in the version of the configuration.
    pub raw: Value,
}

/// An interface that a plugin made or used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU (since 1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// A socket that stands for the interface (since 1.1.0).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The PCI device behind it (since 1.1.0).
    #[serde(skip_serializing_if = "String::is_empty", rename = "pciID")]
    pub pci_id: String,
}

/// An address of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with its prefix length, `10.89.0.2/16`.
    pub address: IpNet,
    /// The gateway of its subnet.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "negative_as_none"
    )]
    pub interface: Option<usize>,
}

/// A route of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; None means the gateway of the address.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub gw: Option<IpAddr>,
    /// Path MTU (since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise (since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric, lower is preferred (since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table (since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope as the kernel numbers it: 0 global, 253 link, 254 host (since 1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers in order of preference.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub nameservers: Vec<String>,
    /// Local domain for short names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub options: Vec<String>,
}

/// The typed part as it is on the wire.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    interfaces: Vec<Interface>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    ips: Vec<IpConfig>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    routes: Vec<Route>,
    #[serde(default, deserialize_with = "null_as_default")]
    dns: Dns,
}

// === impl AddResult ===

impl AddResult {
    /// Reads what a plugin printed, as the executor does; for the fuzz targets.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cfg(fuzzing)]
    pub fn read(text: &[u8], version: Version) -> Result<AddResult, String> {
        let value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        AddResult::parse(value, version)
    }

    /// Reads what a plugin answered and brings it to `version`, the version of the configuration.
    ///
    /// An answer that does not say its version is taken to be in the configuration's.
    pub(crate) fn parse(value: Value, version: Version) -> Result<AddResult, String> {
        let Value::Object(object) = &value else {
            return Err("not a JSON object".to_owned());
        };
        let spoken = match object.get("cniVersion") {
            None | Some(Value::Null) => version,
            Some(Value::String(text)) => Version::parse(text)
                .filter(|v| v.is_supported())
                .ok_or_else(|| {
                    format!(
                        "cniVersion {text:?} is not supported here ({})",
                        crate::SUPPORTED_VERSIONS.join(", ")
                    )
                })?,
            Some(other) => return Err(format!("cniVersion is not a string: {other}")),
        };
        let wire = Wire::deserialize(&value).map_err(|e| e.to_string())?;
        for ip in &wire.ips {
            if ip
                .interface
                .is_some_and(|index| index >= wire.interfaces.len())
            {
                return Err(format!(
                    "address {} refers to an interface that is not listed",
                    ip.address
                ));
            }
        }
        let Wire {
            interfaces,
            ips,
            routes,
            dns,
        } = wire;
        let mut result = AddResult {
            interfaces,
            ips,
            routes,
            dns,
            raw: Value::Null,
        };
        // Passing the answer on untouched keeps fields that this version of the types does not know.
        result.raw = if spoken == version {
            value
        } else {
            result.to_value(version)
        };
        if let Value::Object(raw) = &mut result.raw {
            raw.insert("cniVersion".to_owned(), Value::String(version.to_string()));
        }
        Ok(result)
    }

    /// The result as JSON of the given version.
    pub(crate) fn to_value(&self, version: Version) -> Value {
        let mut interfaces = self.interfaces.clone();
        let mut routes = self.routes.clone();
        if version < Version::V1_1_0 {
            for i in &mut interfaces {
                *i = Interface {
                    name: std::mem::take(&mut i.name),
                    mac: std::mem::take(&mut i.mac),
                    sandbox: std::mem::take(&mut i.sandbox),
                    ..Interface::default()
                };
            }
            for r in &mut routes {
                *r = Route::new(r.dst, r.gw);
            }
        }
        let wire = Wire {
            interfaces,
            ips: self.ips.clone(),
            routes,
            dns: self.dns.clone(),
        };
        let mut object = match serde_json::to_value(wire) {
            Ok(Value::Object(object)) => object,
            // Strings, numbers and lists of them always have a JSON form.
            _ => Map::new(),
        };
        object.insert("cniVersion".to_owned(), Value::String(version.to_string()));
        if version < Version::V1_0_0 {
            add_families(&mut object);
        }
        Value::Object(object)
    }
}

/// Adds `"version": "4"` or `"6"` to each address.
fn add_families(object: &mut Map<String, Value>) {
    let Some(Value::Array(ips)) = object.get_mut("ips") else {
        return;
    };
    for ip in ips.iter_mut().filter_map(Value::as_object_mut) {
        let v6 = ip
            .get("address")
            .and_then(Value::as_str)
            .is_some_and(|a| a.contains(':'));
        ip.insert(
            "version".to_owned(),
            Value::from(if v6 { "6" } else { "4" }),
        );
    }
}

// === impl Route ===

impl Route {
    /// A route without the optional properties.
    #[must_use]
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Route {
        Route {
            dst,
            gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

/// Go prints an absent `net.IP` as `""` or leaves it out, and an absent slice as `null`.
fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn negative_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.and_then(|index| usize::try_from(index).ok()))
}

pub(crate) fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn v(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    /// The example of the specification, section "ADD success".
    #[test]
    fn an_old_result_is_read_and_given_in_the_new_version() {
        let old = json!({"cniVersion": "0.4.0", "interfaces": [{"name": "cni0", "mac": "00:11:22:33:44:55"}, {"name": "eth0", "sandbox": "/run/ns"}],
            "ips": [{"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.1.0.1"]}});
        let result = AddResult::parse(old, v("1.0.0")).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.1.0.5/16");
        assert_eq!(result.raw["cniVersion"], "1.0.0");
        assert_eq!(
            result.raw["ips"],
            json!([{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1}])
        );
    }

    #[test]
    fn a_new_result_loses_what_an_old_reader_does_not_know() {
        let new = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1400, "sandbox": "/run/ns", "pciID": "0000:00"}],
            "ips": [{"address": "fd00::5/64", "interface": 0}], "routes": [{"dst": "::/0", "gw": "fd00::1", "priority": 5}]});
        let result = AddResult::parse(new, v("0.3.1")).unwrap();
        assert_eq!(
            result.raw,
            json!({"cniVersion": "0.3.1", "interfaces": [{"name": "eth0", "sandbox": "/run/ns"}],
            "ips": [{"version": "6", "address": "fd00::5/64", "interface": 0}], "routes": [{"dst": "::/0", "gw": "fd00::1"}], "dns": {}})
        );
    }

    #[test]
    fn fields_of_the_same_version_pass_through_untouched() {
        let own = json!({"cniVersion": "1.0.0", "ips": null, "vendor": {"a": 1}});
        assert_eq!(AddResult::parse(own.clone(), v("1.0.0")).unwrap().raw, own);
    }

    #[test]
    fn answers_that_are_no_result_are_refused_with_the_reason() {
        for (answer, reason) in [
            (json!([]), "not a JSON object"),
            (json!({"cniVersion": "0.2.0"}), "not supported"),
            (json!({"cniVersion": 1}), "not a string"),
            (
                json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.300/8"}]}),
                "invalid IP",
            ),
            (
                json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.3/8", "interface": 2}]}),
                "not listed",
            ),
        ] {
            let error = AddResult::parse(answer.clone(), v("1.0.0")).unwrap_err();
            assert!(error.contains(reason), "{answer}: {error}");
        }
    }
}
