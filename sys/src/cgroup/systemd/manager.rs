//! systemd's own interface, `org.freedesktop.systemd1.Manager`: as much of it as a container's unit needs.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html>

use super::address::Bus;
use super::connection::{Connection, Pending};
use super::error::{Error, Result};
use super::message::Method;
use super::value::Value;

/// A property of a unit.
pub type Property = (String, Value);

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

const fn method(member: &'static str) -> Method {
    Method {
        destination: NAME,
        path: PATH,
        interface: INTERFACE,
        member,
    }
}

/// systemd, or a user's own one, at the other end of a connection.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
    version: u32,
    control_group: String,
}

/// A unit that systemd was asked to start.
#[derive(Debug)]
#[must_use = "the unit is there when finish() says so"]
pub struct Starting {
    unit: String,
    properties: Vec<Property>,
    pending: Pending,
}

impl Systemd {
    /// Connects. Nothing is waited for: the answers come with [`Systemd::greet`].
    ///
    /// # Errors
    /// [`Error::NotRunning`] or [`Error::Connect`] where nobody listens.
    pub fn connect(bus: Bus) -> Result<Self> {
        Connection::open(bus).map(Self::on)
    }

    pub(super) fn on(connection: Connection) -> Self {
        Self {
            connection,
            version: 0,
            control_group: String::new(),
        }
    }

    /// Asks for what decides about a unit's properties and place, and for news of jobs.
    ///
    /// # Errors
    /// Nobody answers, or it does not accept this user.
    pub fn greet(&mut self) -> Result<()> {
        let get = Method {
            interface: "org.freedesktop.DBus.Properties",
            ..method("Get")
        };
        let ask = |connection: &mut Connection, name: &str| {
            connection.send(&get, &[Value::str(INTERFACE), Value::str(name)])
        };
        let version = ask(&mut self.connection, "Version")?;
        let group = ask(&mut self.connection, "ControlGroup")?;
        if self.connection.has_broker() {
            // The socket of systemd itself tells everything to everyone.
            self.connection.add_match(&format!(
                "type='signal',sender='{NAME}',path='{PATH}',interface='{INTERFACE}',member='JobRemoved'"
            ))?;
            self.connection.send(&method("Subscribe"), &[])?;
        }
        self.version = parse_version(&text(self.connection.answer(version, "Get(Version)")?)?);
        self.control_group = text(self.connection.answer(group, "Get(ControlGroup)")?)?;
        Ok(())
    }

    /// The version; 0 where it has none that can be read.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The cgroup below which all units are: empty for the host's systemd.
    #[must_use]
    pub fn control_group(&self) -> &str {
        self.control_group.trim_end_matches('/')
    }

    /// Asks for a new unit.
    ///
    /// # Errors
    /// The connection broke.
    pub fn start(&mut self, unit: &str, properties: Vec<Property>) -> Result<Starting> {
        self.connection.restart_clock();
        self.connection.forget_jobs();
        let pending = self.ask_to_start(unit, &properties)?;
        Ok(Starting {
            unit: unit.to_owned(),
            properties,
            pending,
        })
    }

    fn ask_to_start(&mut self, unit: &str, properties: &[Property]) -> Result<Pending> {
        let arguments = [
            Value::str(unit),
            Value::str("replace"),
            property_list(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        self.connection
            .send(&method("StartTransientUnit"), &arguments)
    }

    /// Waits until the unit is there. One that failed earlier and kept its name is forgotten first.
    ///
    /// # Errors
    /// systemd refuses a property, the unit exists, or nothing happens in time.
    pub fn finish(&mut self, starting: &Starting) -> Result<()> {
        let unit = &starting.unit;
        let what = format!("StartTransientUnit({unit:?})");
        let answered = match self.connection.answer(starting.pending, &what) {
            Err(error) if error.is("UnitExists") => {
                // Whether it could be reset shows in the second try.
                self.reset_failed(unit).ok();
                let again = self.ask_to_start(unit, &starting.properties)?;
                self.connection.answer(again, &what)
            }
            answered => answered,
        };
        let job = text(answered?)?;
        match self.connection.job_result(&job, &what)?.as_str() {
            "done" => Ok(()),
            result => {
                let result = result.to_owned();
                // The failure is what is reported; a unit that stays is reset by the next one of its name.
                self.reset_failed(unit).ok();
                Err(Error::Job {
                    doing: "creating",
                    unit: unit.clone(),
                    result,
                })
            }
        }
    }

    /// Stops a unit and waits until it is gone. One that is gone already is success.
    ///
    /// # Errors
    /// systemd refuses, or nothing happens in time.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        self.connection.restart_clock();
        self.connection.forget_jobs();
        let what = format!("StopUnit({unit:?})");
        let pending = self.connection.send(
            &method("StopUnit"),
            &[Value::str(unit), Value::str("replace")],
        )?;
        let stopped = match self.connection.answer(pending, &what) {
            Err(error) if error.is("NoSuchUnit") => return Ok(()),
            Err(error) => return Err(error),
            Ok(values) => {
                let job = text(values)?;
                self.connection.job_result(&job, &what)?
            }
        };
        // A unit that failed keeps its name until it is reset; one that did not is unknown by now.
        self.reset_failed(unit).or_else(tolerate_unknown)?;
        match stopped.as_str() {
            "done" => Ok(()),
            result => Err(Error::Job {
                doing: "removing",
                unit: unit.to_owned(),
                result: result.to_owned(),
            }),
        }
    }

    /// Forgets that a unit failed.
    ///
    /// # Errors
    /// systemd does not know the unit.
    pub fn reset_failed(&mut self, unit: &str) -> Result<()> {
        let pending = self
            .connection
            .send(&method("ResetFailedUnit"), &[Value::str(unit)])?;
        let what = format!("ResetFailedUnit({unit:?})");
        self.connection.answer(pending, &what).map(drop)
    }

    /// Moves a process into a unit, where the caller itself has no right to: `below` is a cgroup of the unit, `/` for
    /// its own.
    ///
    /// # Errors
    /// systemd refuses, for example because the unit is not delegated.
    pub fn attach(&mut self, unit: &str, below: &str, pid: u32) -> Result<()> {
        self.connection.restart_clock();
        let arguments = [
            Value::str(unit),
            Value::str(below),
            Value::Array("u".into(), vec![Value::U32(pid)]),
        ];
        let pending = self
            .connection
            .send(&method("AttachProcessesToUnit"), &arguments)?;
        let what = format!("AttachProcessesToUnit({unit:?})");
        self.connection.answer(pending, &what).map(drop)
    }

    /// Changes properties of a unit until the next boot.
    ///
    /// # Errors
    /// systemd refuses one of them.
    pub fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        self.connection.restart_clock();
        let arguments = [
            Value::str(unit),
            Value::Bool(true),
            property_list(properties),
        ];
        let pending = self
            .connection
            .send(&method("SetUnitProperties"), &arguments)?;
        let what = format!("SetUnitProperties({unit:?})");
        self.connection.answer(pending, &what).map(drop)
    }
}

fn tolerate_unknown(error: Error) -> Result<()> {
    if error.is("NoSuchUnit") {
        Ok(())
    } else {
        Err(error)
    }
}

fn property_list(properties: &[Property]) -> Value {
    let one = |(name, value): &Property| {
        Value::Struct(vec![
            Value::str(name),
            Value::Variant(Box::new(value.clone())),
        ])
    };
    Value::Array("(sv)".into(), properties.iter().map(one).collect())
}

/// The one text of an answer: a string, a path, or a variant of one.
fn text(values: Vec<Value>) -> Result<String> {
    let value = match values.into_iter().next() {
        Some(Value::Variant(inner)) => *inner,
        Some(other) => other,
        None => Value::Bool(false),
    };
    match value {
        Value::Str(text) | Value::Path(text) => Ok(text),
        _ => Err(Error::Malformed {
            why: "an answer has another type than documented",
        }),
    }
}

/// `252.36-1~deb12u1`, `v245`, `"v245-1.fc32"`: the first number.
fn parse_version(text: &str) -> u32 {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_first_number() {
        for (text, number) in [
            ("252.36-1~deb12u1", 252),
            ("v245", 245),
            ("\"v245-1.fc32\"", 245),
            ("258~rc1", 258),
            ("", 0),
            ("unknown", 0),
        ] {
            assert_eq!(parse_version(text), number, "{text}");
        }
    }
}
