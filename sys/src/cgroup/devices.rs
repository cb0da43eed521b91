//! Device rules: their meaning, independent of how a kernel enforces them, and v1's enforcement.
//!
//! Rules count in order, each one overriding what came before it for the devices and accesses it names; what no
//! rule names is denied (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list>).
//! [`DevicePolicy::allows`] is that meaning bit by bit; [`super::bpf`] compiles it for v2.

use std::fmt;

use super::{Error, Result, file};

/// Which device nodes a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceType {
    /// Block and character devices.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What may be done with a device: a set of `r`, `w` and `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    /// Make a node.
    pub const MKNOD: Self = Self(1);
    /// Open for reading.
    pub const READ: Self = Self(2);
    /// Open for writing.
    pub const WRITE: Self = Self(4);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Reads `rwm` in any order.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] at any other letter, and without any.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidValue {
            setting: format!("device access {text:?}"),
            why: "it is a set of r, w and m".into(),
        };
        let bits = text.chars().try_fold(0, |bits, letter| match letter {
            'm' => Ok(bits | Self::MKNOD.0),
            'r' => Ok(bits | Self::READ.0),
            'w' => Ok(bits | Self::WRITE.0),
            _ => Err(invalid()),
        })?;
        if bits == 0 {
            Err(invalid())
        } else {
            Ok(Self(bits))
        }
    }

    /// The access with these bits.
    #[cfg(test)]
    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits as BPF_DEVCG_ACC_* has them.
    pub(super) fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")];
        letters
            .iter()
            .filter(|(bit, _)| self.0 & bit.0 != 0)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// One rule of `linux.resources.devices`; a number of `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow, or deny.
    pub allow: bool,
    /// Which kind of node.
    pub kind: DeviceType,
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
    /// The accesses that it is about.
    pub access: DeviceAccess,
}

impl DeviceRule {
    const fn allow(
        kind: DeviceType,
        major: Option<u32>,
        minor: Option<u32>,
        access: DeviceAccess,
    ) -> Self {
        Self {
            allow: true,
            kind,
            major,
            minor,
            access,
        }
    }

    /// Whether it is about this node.
    fn covers(&self, kind: DeviceType, major: u32, minor: u32) -> bool {
        (self.kind == DeviceType::All || self.kind == kind)
            && self.major.is_none_or(|own| own == major)
            && self.minor.is_none_or(|own| own == minor)
    }

    /// Whether it is about every access to every device.
    pub(super) fn is_about_everything(&self) -> bool {
        self.kind == DeviceType::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == DeviceAccess::ALL
    }
}

/// What a runtime allows in every container, whatever the rules say: making any node, and using the default devices,
/// pseudo-terminals, the console, and tun (which runc dropped once, broke users, and took back).
#[must_use]
pub fn default_device_rules() -> Vec<DeviceRule> {
    let char_device =
        |major, minor| DeviceRule::allow(DeviceType::Char, Some(major), minor, DeviceAccess::ALL);
    let mut rules = vec![
        DeviceRule::allow(DeviceType::Char, None, None, DeviceAccess::MKNOD),
        DeviceRule::allow(DeviceType::Block, None, None, DeviceAccess::MKNOD),
    ];
    let nodes = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
        (10, 200),
    ];
    rules.extend(nodes.map(|(major, minor)| char_device(major, Some(minor))));
    rules.push(char_device(136, None));
    rules
}

/// Rules in order with the default of denying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePolicy {
    rules: Vec<DeviceRule>,
}

impl DevicePolicy {
    /// The rules of a bundle, and then those that every container has.
    #[must_use]
    pub fn for_container(rules: &[DeviceRule]) -> Self {
        Self::new(
            rules
                .iter()
                .copied()
                .chain(default_device_rules())
                .collect(),
        )
    }

    /// Exactly these rules. What a rule about everything overrides is dropped.
    #[must_use]
    pub fn new(mut rules: Vec<DeviceRule>) -> Self {
        if let Some(last) = rules.iter().rposition(DeviceRule::is_about_everything) {
            rules.drain(..last);
        }
        Self { rules }
    }

    /// The rules that matter, in order.
    pub(super) fn rules(&self) -> &[DeviceRule] {
        &self.rules
    }

    /// Whether nothing at all is denied, so that a kernel need not even ask.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.rules
            .first()
            .is_some_and(|first| first.allow && first.is_about_everything())
            && self.rules.iter().all(|r| r.allow)
    }

    /// The meaning of the rules: an access is allowed when the last rule about each of its parts allows it.
    /// An access of no part (`access(2)` with `F_OK`) needs any allowing rule about the device.
    #[must_use]
    pub fn allows(&self, kind: DeviceType, major: u32, minor: u32, access: DeviceAccess) -> bool {
        let mut needed = access.0;
        for rule in self
            .rules
            .iter()
            .rev()
            .filter(|rule| rule.covers(kind, major, minor))
        {
            if !rule.allow && needed & rule.access.0 != 0 {
                return false;
            }
            if rule.allow {
                needed &= !rule.access.0;
                if needed == 0 {
                    return true;
                }
            }
        }
        false
    }
}

/// A device list as v1 keeps it: a default, and exceptions to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct V1List {
    allow_by_default: bool,
    /// In the order of the rules, which is the order in which the kernel's file lists them.
    exceptions: Vec<(Device, u8)>,
}

/// A kind with its numbers; `None` is every number.
type Device = (DeviceType, Option<u32>, Option<u32>);

impl V1List {
    /// # Errors
    /// [`Error::InvalidValue`] where a rule cuts a hole into an earlier, wider one: v1 cannot say that, and would
    /// silently ignore it.
    pub(super) fn from_policy(policy: &DevicePolicy) -> Result<Self> {
        let mut list = Self::default();
        for rule in policy.rules() {
            list.apply(rule)?;
        }
        Ok(list)
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<()> {
        if rule.is_about_everything() {
            *self = Self {
                allow_by_default: rule.allow,
                exceptions: Vec::new(),
            };
            return Ok(());
        }
        let kinds: &[DeviceType] = if rule.kind == DeviceType::All {
            &[DeviceType::Block, DeviceType::Char]
        } else {
            &[rule.kind]
        };
        for kind in kinds {
            if rule.allow == self.allow_by_default {
                self.remove_exception(rule, *kind)?;
            } else {
                self.add_exception((*kind, rule.major, rule.minor), rule.access.0);
            }
        }
        Ok(())
    }

    fn add_exception(&mut self, device: Device, access: u8) {
        match self.exceptions.iter_mut().find(|(of, _)| *of == device) {
            Some((_, of_device)) => *of_device |= access,
            None => self.exceptions.push((device, access)),
        }
    }

    /// Takes back what `rule` covers of the exceptions.
    fn remove_exception(&mut self, rule: &DeviceRule, kind: DeviceType) -> Result<()> {
        let wider = |own: Option<u32>, other: Option<u32>| own.is_none() || own == other;
        let apart = |own: Option<u32>, other: Option<u32>| matches!((own, other), (Some(a), Some(b)) if a != b);
        for ((of_kind, major, minor), access) in &mut self.exceptions {
            if *of_kind != kind
                || apart(*major, rule.major)
                || apart(*minor, rule.minor)
                || *access & rule.access.0 == 0
            {
                continue;
            }
            if !(wider(rule.major, *major) && wider(rule.minor, *minor)) {
                let exception = v1_entry(*of_kind, *major, *minor, *access);
                return Err(Error::InvalidValue {
                    setting: format!(
                        "device rule {:?}",
                        v1_entry(kind, rule.major, rule.minor, rule.access.0)
                    ),
                    why: format!(
                        "it takes back a part of the earlier rule {exception:?}, which cgroup v1 cannot do"
                    ),
                });
            }
            *access &= !rule.access.0;
        }
        self.exceptions.retain(|(_, access)| *access != 0);
        Ok(())
    }

    /// Whether what no exception names is allowed.
    pub(super) fn allows_by_default(&self) -> bool {
        self.allow_by_default
    }

    /// Whether nothing is denied.
    pub(super) fn allows_everything(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    /// What the default does not hold for: kind, major and minor number, accesses.
    pub(super) fn exceptions(
        &self,
    ) -> impl Iterator<Item = (DeviceType, Option<u32>, Option<u32>, DeviceAccess)> {
        self.exceptions
            .iter()
            .map(|((kind, major, minor), access)| (*kind, *major, *minor, DeviceAccess(*access)))
    }

    /// Writes the list to a devices cgroup: first the default, which clears the exceptions.
    pub(super) fn write(&self, dir: &std::path::Path) -> Result<()> {
        let (clear, except) = if self.allow_by_default {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        file::write(dir, clear, "a")?;
        self.entries()
            .iter()
            .try_for_each(|entry| file::write(dir, except, entry))
    }

    /// The exceptions as the kernel's files have them.
    fn entries(&self) -> Vec<String> {
        self.exceptions
            .iter()
            .map(|((kind, major, minor), access)| v1_entry(*kind, *major, *minor, *access))
            .collect()
    }
}

/// `c 136:* rwm`
fn v1_entry(kind: DeviceType, major: Option<u32>, minor: Option<u32>, access: u8) -> String {
    let letter = match kind {
        DeviceType::All => 'a',
        DeviceType::Block => 'b',
        DeviceType::Char => 'c',
    };
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    format!(
        "{letter} {}:{} {}",
        number(major),
        number(minor),
        DeviceAccess(access)
    )
}

#[cfg(test)]
mod tests;
