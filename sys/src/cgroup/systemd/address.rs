//! Where the service manager listens.
//!
//! systemd has a socket of its own for root (and one for each user's manager), which needs no message bus: one hop
//! less, and it works while the bus is being restarted. Where it cannot be used, the bus is.
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#addresses>

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

/// Whose service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The host's.
    System,
    /// The caller's own.
    User,
}

/// One place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) socket: Socket,
    /// Whether a message bus is there, and not systemd itself.
    pub(super) broker: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Socket {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    fn direct(path: impl Into<PathBuf>) -> Self {
        Self {
            socket: Socket::Path(path.into()),
            broker: false,
        }
    }

    fn broker(path: impl Into<PathBuf>) -> Self {
        Self {
            socket: Socket::Path(path.into()),
            broker: true,
        }
    }

    pub(super) fn connect(&self) -> std::io::Result<UnixStream> {
        match &self.socket {
            Socket::Path(path) => UnixStream::connect(path),
            Socket::Abstract(name) => {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Socket::Path(path) => write!(f, "{}", path.display()),
            Socket::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// The variables of the environment that say where buses are.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The places to try, in order.
pub(super) fn candidates(bus: Bus, variable: Lookup<'_>) -> Vec<Address> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let explicit = match bus {
        Bus::System => variable("DBUS_SYSTEM_BUS_ADDRESS"),
        Bus::User => variable("DBUS_SESSION_BUS_ADDRESS"),
    };
    let explicit = explicit.map(|text| parse(&text.to_string_lossy(), runtime.as_deref()));
    match (bus, explicit, runtime) {
        (Bus::System, Some(explicit), _) => explicit,
        (Bus::System, None, _) => vec![
            Address::direct("/run/systemd/private"),
            Address::broker("/run/dbus/system_bus_socket"),
        ],
        (Bus::User, Some(mut explicit), Some(runtime)) => {
            // The usual bus of the session: its manager listens beside it.
            if explicit.first() == Some(&Address::broker(runtime.join("bus"))) {
                explicit.insert(0, Address::direct(runtime.join("systemd/private")));
            }
            explicit
        }
        (Bus::User, Some(explicit), None) => explicit,
        (Bus::User, None, Some(runtime)) => vec![
            Address::direct(runtime.join("systemd/private")),
            Address::broker(runtime.join("bus")),
        ],
        (Bus::User, None, None) => Vec::new(),
    }
}

/// Reads `unix:path=/run/bus;unix:abstract=x`; what is no unix socket is passed over.
fn parse(text: &str, runtime: Option<&Path>) -> Vec<Address> {
    let one = |part: &str| {
        let options = part.strip_prefix("unix:")?;
        let option = |wanted: &str| {
            let values = options.split(',').filter_map(|one| one.split_once('='));
            let value = values
                .into_iter()
                .find_map(|(key, value)| (key == wanted).then_some(value))?;
            unescape(value)
        };
        let socket = if let Some(path) = option("path") {
            Socket::Path(PathBuf::from(OsString::from_vec(path)))
        } else if let Some(name) = option("abstract") {
            Socket::Abstract(name)
        } else if option("runtime").as_deref() == Some(b"yes") {
            Socket::Path(runtime?.join("bus"))
        } else {
            return None;
        };
        Some(Address {
            socket,
            broker: true,
        })
    };
    text.split(';').filter_map(one).collect()
}

/// Undoes `%2f`; `None` where a `%` is no escape.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(bus: Bus, environment: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let show = |address: &Address| {
            let kind = if address.broker { "bus" } else { "direct" };
            format!("{kind} {address}")
        };
        candidates(bus, &variable).iter().map(show).collect()
    }

    #[test]
    fn the_manager_itself_comes_before_the_bus() {
        assert_eq!(
            places(Bus::System, &[("XDG_RUNTIME_DIR", "/run/user/0")]),
            [
                "direct /run/systemd/private",
                "bus /run/dbus/system_bus_socket"
            ]
        );
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        let both = ["direct /run/user/7/systemd/private", "bus /run/user/7/bus"];
        assert_eq!(places(Bus::User, &[runtime]), both);
        let usual = ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/7/bus");
        assert_eq!(places(Bus::User, &[runtime, usual]), both);
    }

    #[test]
    fn an_address_of_the_callers_is_all_that_is_tried() {
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        let table: [(&str, &[&str]); 7] = [
            ("unix:path=/tmp/a%20b,guid=12", &["bus /tmp/a b"]),
            ("unix:abstract=x;unix:path=/y", &["bus @x", "bus /y"]),
            (
                "unix:runtime=yes",
                &["direct /run/user/7/systemd/private", "bus /run/user/7/bus"],
            ),
            ("tcp:host=localhost;unix:path=/y", &["bus /y"]),
            ("unix:path=/bad%2", &[]),
            ("unix:path=/bad%zz", &[]),
            ("nonsense", &[]),
        ];
        for (text, wanted) in table {
            let found = places(Bus::User, &[runtime, ("DBUS_SESSION_BUS_ADDRESS", text)]);
            assert_eq!(found, wanted, "{text}");
        }
        let system = [("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/y")];
        assert_eq!(places(Bus::System, &system), ["bus /y"]);
    }

    #[test]
    fn a_user_without_a_session_has_nowhere_to_go() {
        assert_eq!(places(Bus::User, &[]), Vec::<String>::new());
        assert_eq!(
            places(Bus::User, &[("XDG_RUNTIME_DIR", "")]),
            Vec::<String>::new()
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_address_or_none(text in ".{0,60}") {
            drop(parse(&text, Some(Path::new("/run"))));
        }
    }
}
