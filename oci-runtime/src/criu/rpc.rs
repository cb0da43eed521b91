//! The messages: <https://github.com/checkpoint-restore/criu/blob/criu-dev/images/rpc.proto>.
use super::wire::{Fields, Malformed, Message};

/// What is asked for, or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that could be understood.
    Empty,
    /// Saves processes.
    Dump,
    /// Makes processes again.
    Restore,
    /// Saves memory only.
    PreDump,
    /// Says what happens.
    Notify,
    /// Which features there are.
    FeatureCheck,
    /// Which version it is.
    Version,
    /// One that is not asked for here.
    Other(i32),
}

/// Their numbers and names.
const KINDS: [(Kind, i32, &str); 7] = [
    (Kind::Empty, 0, "EMPTY"),
    (Kind::Dump, 1, "DUMP"),
    (Kind::Restore, 2, "RESTORE"),
    (Kind::PreDump, 4, "PRE_DUMP"),
    (Kind::Notify, 6, "NOTIFY"),
    (Kind::FeatureCheck, 9, "FEATURE_CHECK"),
    (Kind::Version, 10, "VERSION"),
];

impl Kind {
    /// Its number in messages.
    pub fn number(self) -> i32 {
        match self {
            Self::Other(number) => number,
            known => KINDS
                .iter()
                .find(|(kind, ..)| *kind == known)
                .map_or(0, |(_, number, _)| *number),
        }
    }

    fn of(number: i32) -> Self {
        KINDS
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(Self::Other(number), |(kind, ..)| *kind)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = KINDS.iter().find(|(kind, ..)| kind == self);
        match name {
            Some((.., name)) => f.write_str(name),
            None => write!(f, "{}", self.number()),
        }
    }
}

/// Fields of `criu_opts`.
#[expect(missing_docs, reason = "the names are those of rpc.proto")]
pub mod opt {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    /// `address` = 1, `port` = 2
    pub const PS: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    /// `key` = 1, `val` = 2
    pub const EXT_MNT: u32 = 23;
    pub const MANAGE_CGROUPS: u32 = 24;
    /// `ctrl` = 1, `path` = 2
    pub const CG_ROOT: u32 = 25;
    pub const RST_SIBLING: u32 = 26;
    /// `key` = 1, `fd` = 2
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    /// `ns` = 1, `ns_file` = 2
    pub const JOIN_NS: u32 = 39;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const STATUS_FD: u32 = 49;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const TCP_CLOSE: u32 = 52;
    pub const LSM_PROFILE: u32 = 53;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
    pub const NETWORK_LOCK: u32 = 64;
}

/// Fields of `criu_features`.
#[expect(missing_docs, reason = "the names are those of rpc.proto")]
pub mod feature {
    pub const MEM_TRACK: u32 = 1;
    pub const LAZY_PAGES: u32 = 2;
}

/// `criu_req` without anything but options.
pub fn request(kind: Kind, options: Option<&Message>) -> Message {
    let mut message = Message::default();
    message.int(1, kind.number());
    if let Some(options) = options {
        message.message(2, options);
    }
    message
}

/// The answer to a notification.
pub(super) fn notified() -> Message {
    let mut message = request(Kind::Notify, None);
    message.bool(3, true);
    message
}

/// Asks for these features.
pub(super) fn feature_request(features: &[u32]) -> Message {
    let mut asked = Message::default();
    for feature in features {
        asked.bool(*feature, true);
    }
    let mut message = request(Kind::FeatureCheck, None);
    message.message(5, &asked);
    message
}

/// `criu_notify`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    /// What happens.
    pub script: String,
    /// The first process.
    pub pid: i32,
}

/// `criu_resp`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// What is answered.
    pub kind: Kind,
    /// Whether it was done.
    pub success: bool,
    /// What happens.
    pub notify: Option<Notify>,
    /// Why it was not done; often 0.
    pub errno: i32,
    /// Why it was not done, in words; often empty.
    pub text: String,
    /// The features that there are, of those that were asked for.
    pub features: Vec<u32>,
    /// The version, 31700 for 3.17.
    pub version: i32,
}

impl Response {
    /// Reads it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut response = Self {
            kind: Kind::Empty,
            success: false,
            notify: None,
            errno: 0,
            text: String::new(),
            features: Vec::new(),
            version: 0,
        };
        for field in Fields::new(bytes) {
            let (number, value) = field?;
            match number {
                1 => response.kind = Kind::of(value.int().ok_or(Malformed)?),
                2 => response.success = value.is_true(),
                5 => response.notify = Some(notify(value.bytes().ok_or(Malformed)?)?),
                7 => response.errno = value.int().ok_or(Malformed)?,
                8 => response.features = features(value.bytes().ok_or(Malformed)?)?,
                9 => response.text = value.text().ok_or(Malformed)?,
                10 => response.version = version(value.bytes().ok_or(Malformed)?)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

fn notify(bytes: &[u8]) -> Result<Notify, Malformed> {
    let mut notify = Notify::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => notify.script = value.text().ok_or(Malformed)?,
            (2, value) => notify.pid = value.int().ok_or(Malformed)?,
            _ => {}
        }
    }
    Ok(notify)
}

fn features(bytes: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut features = Vec::new();
    for field in Fields::new(bytes) {
        let (number, value) = field?;
        features.extend(value.is_true().then_some(number));
    }
    Ok(features)
}

/// As libcriu and go-criu count: a build from git is what the next minor version will be.
fn version(bytes: &[u8]) -> Result<i32, Malformed> {
    let (mut major, mut minor, mut sublevel, mut git) = (0_i32, 0_i32, 0_i32, false);
    for field in Fields::new(bytes) {
        let (number, value) = field?;
        match number {
            1 => major = value.int().ok_or(Malformed)?,
            2 => minor = value.int().ok_or(Malformed)?,
            3 => git = true,
            4 => sublevel = value.int().ok_or(Malformed)?,
            _ => {}
        }
    }
    if git {
        (minor, sublevel) = (minor.saturating_add(1), 0);
    }
    let version = major.saturating_mul(10_000);
    Ok(version
        .saturating_add(minor.saturating_mul(100))
        .saturating_add(sublevel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A response as criu writes it.
    fn response(kind: Kind, more: impl FnOnce(&mut Message)) -> Message {
        let mut message = request(kind, None);
        message.bool(2, true);
        more(&mut message);
        message
    }

    #[test]
    fn a_notification_says_what_happens_and_to_which_process() {
        let message = response(Kind::Notify, |message| {
            let mut notify = Message::default();
            notify.bytes(1, "post-restore").int(2, 4711);
            message.message(5, &notify);
        });
        let read = Response::parse(message.as_bytes()).unwrap();
        assert_eq!(read.kind, Kind::Notify);
        let notify = read.notify.unwrap();
        assert_eq!((notify.script.as_str(), notify.pid), ("post-restore", 4711));
    }

    #[test]
    fn a_version_is_one_number_and_git_is_the_next_minor() {
        let of = |git: bool| {
            let message = response(Kind::Version, |message| {
                let mut version = Message::default();
                version.int(1, 3).int(2, 17).int(4, 1);
                if git {
                    version.bytes(3, "v3.17.1-42-gabcdef");
                }
                message.message(10, &version);
            });
            Response::parse(message.as_bytes()).unwrap().version
        };
        assert_eq!(of(false), 31_701);
        assert_eq!(of(true), 31_800);
    }

    #[test]
    fn only_features_that_are_there_count() {
        let message = response(Kind::FeatureCheck, |message| {
            let mut features = Message::default();
            features.bool(1, true).bool(2, false);
            message.message(8, &features);
        });
        let read = Response::parse(message.as_bytes()).unwrap();
        assert_eq!(read.features, [feature::MEM_TRACK]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_response_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Response::parse(&bytes));
        }

        #[test]
        fn any_numbers_are_a_version(major in any::<i32>(), minor in any::<i32>(), sublevel in any::<i32>()) {
            let mut message = Message::default();
            message.int(1, major).int(2, minor).int(4, sublevel);
            prop_assert!(version(message.as_bytes()).is_ok());
        }
    }
}
