//! Moving interfaces of the host into the container's network namespace. The parent's part: the child has no rights
//! over the namespace that they come from.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use sys::Errno;
use sys::namespace::{self, NamespaceKind};
use sys::rtnetlink::{Address, Routing};

use crate::error::{Error, Result, Within};
use crate::plan::NetDevicePlan;
use crate::undo::Undo;

/// An interface in one of the two namespaces.
struct Place<'a> {
    namespace: &'a OwnedFd,
    name: &'a str,
}

/// Moves them all. With the container itself they stay in its namespace, whose end the kernel deals with; should making
/// the container fail, they come back as they were.
///
/// # Errors
/// Which interface, and what the kernel says.
pub fn move_all(devices: &[NetDevicePlan], inside: OwnedFd, undo: &mut Undo<'_>) -> Result<()> {
    let inside = Arc::new(inside);
    let outside = Arc::new(namespace::of_process(sys::Pid::this(), NamespaceKind::Net)?);
    for device in devices {
        let field = || format!("linux.netDevices[{:?}]", device.name);
        let name = free_name(&inside, &outside, &device.name_inside).within(field)?;
        let from = Place {
            namespace: &outside,
            name: &device.name,
        };
        let to = Place {
            namespace: &inside,
            name: &name,
        };
        let mut routing = Routing::open().within(field)?;
        let link = routing.link(&device.name).map_err(|error| {
            Error::from(error)
                .within(format!(
                    "link not found for interface {} on runtime namespace",
                    device.name
                ))
                .within(field())
        })?;
        // Before the move: it takes an interface down, and with that its addresses go.
        let addresses = routing.addresses(link).within(field)?;
        let home = Home {
            inside: Arc::clone(&inside),
            outside: Arc::clone(&outside),
            name: device.name.clone(),
            name_inside: name.clone(),
            addresses: addresses.clone(),
            up: link.up,
        };
        // The kernel renames after the move: it may fail half done.
        undo.push("the network device", move || {
            home.bring().map_err(|error| error.message)
        });
        send(&from, &to, &outside).within(field)?;
        settle(&to, &addresses, true, &outside).within(field)?;
    }
    Ok(())
}

/// Where an interface came from, and as what.
struct Home {
    inside: Arc<OwnedFd>,
    outside: Arc<OwnedFd>,
    name: String,
    name_inside: String,
    addresses: Vec<Address>,
    up: bool,
}

impl Home {
    /// Brings it back, if it has left.
    fn bring(&self) -> Result<()> {
        let mut routing = connect(&self.inside, &self.outside)?;
        if Routing::open()?.link(&self.name).is_ok() {
            return Ok(());
        }
        // With its new name, unless that was refused; what it is now tells its own name, which nobody else had there.
        let mut names = [&self.name, &self.name_inside].into_iter();
        let Some(name) = names.find(|name| routing.link(name).is_ok()) else {
            return Ok(());
        };
        let from = Place {
            namespace: &self.inside,
            name,
        };
        let to = Place {
            namespace: &self.outside,
            name: &self.name,
        };
        send(&from, &to, &self.outside)?;
        settle(&to, &self.addresses, self.up, &self.outside)
    }
}

/// Moves one interface from one namespace into the other; the caller's own is `home`.
fn send(from: &Place<'_>, to: &Place<'_>, home: &OwnedFd) -> Result<()> {
    let mut routing = connect(from.namespace, home)?;
    let link = routing.link(from.name)?;
    routing
        .move_link(link, to.name, to.namespace.as_fd())
        .map_err(|error| {
            let hint = match error.errno {
                Errno::EINVAL => {
                    Some("some interfaces, such as lo, belong to their network namespace")
                }
                Errno::EPERM => {
                    Some("moving an interface needs CAP_NET_ADMIN over both network namespaces")
                }
                _ => None,
            };
            let error = Error::from(error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })
}

/// Gives an interface its addresses and brings it up.
fn settle(at: &Place<'_>, addresses: &[Address], up: bool, home: &OwnedFd) -> Result<()> {
    let mut routing = connect(at.namespace, home)?;
    let link = routing.link(at.name)?;
    for address in addresses {
        routing.add_address(link, address)?;
    }
    if up {
        routing.set_up(link)?;
    }
    Ok(())
}

/// A connection to a namespace, which it keeps: the caller is in it for a moment only.
fn connect(namespace: &OwnedFd, home: &OwnedFd) -> Result<Routing> {
    let kind = NamespaceKind::Net.flag();
    namespace::setns(namespace, kind)?;
    let routing = Routing::open();
    namespace::setns(home, kind)?;
    Ok(routing?)
}

/// A name that nobody has there: of a template the first free number, as the kernel would choose it. Asked before the
/// move, since the kernel renames only afterwards.
fn free_name(inside: &OwnedFd, home: &OwnedFd, template: &str) -> Result<String> {
    let mut routing = connect(inside, home)?;
    let numbers = if template.contains("%d") { u16::MAX } else { 1 };
    for number in 0..numbers {
        let name = template.replacen("%d", &number.to_string(), 1);
        match routing.link(&name) {
            Ok(_) => {}
            Err(error) if error.errno == Errno::ENODEV => return Ok(name),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(format!("{template:?}: file exists (EEXIST)")).hint("the container's network namespace has an interface of this name already; give another one, or a template such as eth%d"))
}
