//! Who the container's first process is: names looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files belong to whoever made the image: they are opened below the root file system with links kept
//! inside, and only regular files of a sane size are read. See passwd(5), group(5).

use std::io::Read;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sys::path::Root;

use crate::error::{Error, Result};
use crate::model::{ContainerSecurity, SupplementalGroupsPolicy};

/// The most that is read of a passwd or group file.
const LIMIT: u64 = 4 << 20;

const FIELD: &str = "linux.security_context";

/// The ids of a process, and its home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups, the first one being `gid`, as containerd has it.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The image's user database.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Database {
    /// Reads the files below `rootfs`; a file that is missing is empty.
    pub(crate) fn read(rootfs: &Path) -> Result<Self> {
        let root = Root::open(rootfs).map_err(|source| Error::Sys {
            action: "open the root file system".into(),
            source,
        })?;
        Ok(Self {
            passwd: read_file(&root, "/etc/passwd")?,
            group: read_file(&root, "/etc/group")?,
        })
    }

    fn by_name(&self, name: &str) -> Option<Account<'_>> {
        self.accounts().find(|one| one.name == name)
    }

    fn by_uid(&self, uid: u32) -> Option<Account<'_>> {
        self.accounts().find(|one| one.uid == uid)
    }

    /// The lines of passwd that make sense.
    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            let home = fields.nth(1).unwrap_or_default();
            (!name.is_empty()).then_some(Account {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    /// Name, gid and members of each group.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }

    fn gid_of(&self, name: &str) -> Option<u32> {
        self.groups()
            .find(|(group, _, _)| *group == name)
            .map(|(_, gid, _)| gid)
    }

    fn gids_of_member<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups()
            .filter(move |(_, _, members)| members.split(',').any(|member| member.trim() == user))
            .map(|(_, gid, _)| gid)
    }
}

/// A line of passwd.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Who the request and the image together say it is.
///
/// A uid in the request beats a name in the request beats the image's USER. `user:group` in an image
/// leaves the groups of `/etc/group` out
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md>, `User`).
pub(crate) fn resolve(
    security: &ContainerSecurity,
    image_user: &str,
    database: &Database,
) -> Result<ResolvedUser> {
    let named = security.run_as_user.is_some() || !security.run_as_username.is_empty();
    if security.run_as_group.is_some() && !named {
        return Err(Error::invalid(
            format!("{FIELD}.run_as_group"),
            "needs run_as_user or run_as_username: a group alone says nothing",
        ));
    }
    let (user, group) = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => (uid.to_string(), None),
        (None, "") => match image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (image_user.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    let (uid, account) = find_user(&user, database)?;
    let mut gid = account.as_ref().map_or(0, |one| one.gid);
    if let Some(group) = group.as_deref().filter(|group| !group.is_empty()) {
        gid = find_group(group, database)?;
    }
    if let Some(asked) = security.run_as_group {
        gid = id(asked, "run_as_group")?;
    }
    let mut groups = vec![gid];
    let mut add = |gid: u32| {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    };
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && group.is_none()
        && let Some(account) = &account
    {
        database.gids_of_member(account.name).for_each(&mut add);
    }
    for &asked in &security.supplemental_groups {
        add(id(asked, "supplemental_groups")?);
    }
    let home = account
        .map_or("/", |one| if one.home.is_empty() { "/" } else { one.home })
        .to_owned();
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home,
    })
}

/// The uid of a name or number, and its line in passwd if it has one. Empty is root.
fn find_user<'a>(user: &str, database: &'a Database) -> Result<(u32, Option<Account<'a>>)> {
    let user = if user.is_empty() { "0" } else { user };
    // A name wins over a number that looks the same, as in runc and docker.
    if let Some(account) = database.by_name(user) {
        return Ok((account.uid, Some(account)));
    }
    match user.parse::<i64>() {
        Ok(number) => {
            let uid = id(number, "run_as_user")?;
            Ok((uid, database.by_uid(uid)))
        }
        Err(_) => Err(Error::invalid(
            "user",
            format!("{user:?} is not in the image's /etc/passwd"),
        )),
    }
}

fn find_group(group: &str, database: &Database) -> Result<u32> {
    if let Some(gid) = database.gid_of(group) {
        return Ok(gid);
    }
    match group.parse::<i64>() {
        Ok(number) => id(number, "run_as_group"),
        Err(_) => Err(Error::invalid(
            "user",
            format!("group {group:?} is not in the image's /etc/group"),
        )),
    }
}

/// The kernel's ids are 32 bits wide, and the last one means "none".
fn id(value: i64, field: &str) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if id < u32::MAX => Ok(id),
        _ => Err(Error::invalid(
            format!("{FIELD}.{field}"),
            format!("{value} is no id"),
        )),
    }
}

/// The text of a regular file below `root`, or nothing when it is missing or no text file.
fn read_file(root: &Root, path: &str) -> Result<String> {
    // A FIFO or device in its place must not block or act.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = match root.open_at(Path::new(path), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(error)
            if matches!(
                error.errno(),
                nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR
            ) =>
        {
            return Ok(String::new());
        }
        Err(source) => {
            return Err(Error::Sys {
                action: format!("read {path} of the image"),
                source,
            });
        }
    };
    let file = std::fs::File::from(fd);
    let failed = |source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/sh\n\nbroken\nnum:x:x:1::/:\n".into(),
            group: "root:x:0:\nweb:x:1001:\nlogs:x:50:web,other\nextra:x:51:other, web\n".into(),
        }
    }

    fn user(image: &str, change: impl FnOnce(&mut ContainerSecurity)) -> Result<ResolvedUser> {
        let mut security = ContainerSecurity::default();
        change(&mut security);
        resolve(&security, image, &database())
    }

    fn ids(user: Result<ResolvedUser>) -> (u32, u32, Vec<u32>, String) {
        let user = user.expect("a user");
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn each_way_to_name_a_user_gives_the_ids_of_docker_and_containerd() {
        type Ids = (u32, u32, Vec<u32>, &'static str);
        let table: [(&str, Ids); 8] = [
            ("", (0, 0, vec![0], "/root")),
            ("web", (1000, 1001, vec![1001, 50, 51], "/srv/web")),
            ("1000", (1000, 1001, vec![1001, 50, 51], "/srv/web")),
            ("web:logs", (1000, 50, vec![50], "/srv/web")),
            ("1000:7", (1000, 7, vec![7], "/srv/web")),
            ("4242", (4242, 0, vec![0], "/")),
            ("4242:web", (4242, 1001, vec![1001], "/")),
            ("web:", (1000, 1001, vec![1001], "/srv/web")),
        ];
        for (image, want) in table {
            let got = ids(user(image, |_| {}));
            assert_eq!(
                got,
                (want.0, want.1, want.2, want.3.to_owned()),
                "USER {image:?}"
            );
        }
    }

    #[test]
    fn the_request_beats_the_image() {
        assert_eq!(ids(user("web", |s| s.run_as_user = Some(0))).0, 0);
        assert_eq!(ids(user("0", |s| s.run_as_username = "web".into())).0, 1000);
        let with_group = ids(user("", |s| {
            s.run_as_user = Some(1000);
            s.run_as_group = Some(9);
        }));
        assert_eq!(with_group, (1000, 9, vec![9, 50, 51], "/srv/web".into()));
    }

    #[test]
    fn strict_takes_only_the_groups_that_are_asked_for() {
        let strict = ids(user("web", |s| {
            s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
            s.supplemental_groups = vec![60_000, 60_000];
        }));
        assert_eq!(strict.2, vec![1001, 60_000]);
    }

    #[test]
    fn wrong_users_are_named_in_the_error() {
        let group_alone = user("web", |s| s.run_as_group = Some(1)).expect_err("no user");
        assert!(
            group_alone.report().contains("run_as_group"),
            "{group_alone}"
        );
        let unknown = user("nobody-here", |_| {}).expect_err("unknown");
        assert!(unknown.report().contains("\"nobody-here\""), "{unknown}");
        assert!(user("", |s| s.run_as_user = Some(-1)).is_err());
        assert!(user("", |s| s.run_as_user = Some(i64::from(u32::MAX))).is_err());
    }

    #[test]
    fn a_link_out_of_the_image_ends_inside_it() {
        let image = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(image.path().join("etc")).expect("etc");
        std::os::unix::fs::symlink("/../../../../etc/passwd", image.path().join("etc/passwd"))
            .expect("link");
        let database = Database::read(image.path());
        // The link leads to itself: a loop inside the image, never the host's file.
        assert!(database.is_err() || database.is_ok_and(|one| one.passwd.is_empty()));
    }
}
