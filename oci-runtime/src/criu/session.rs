//! One criu process: started, spoken to, waited for.
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use sys::process::{Child, Exit, Forked};

use super::rpc::{self, Kind, Notify, Response};
use super::wire::Message;
use crate::error::{Error, Result, Within};

/// Where criu is looked for without a `PATH`, as some callers have none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest message; runc takes as much.
const MAX_MESSAGE: usize = 40 * 1024;

/// How long the error of the start may be.
const MAX_ERROR: usize = 64 * 1024;

/// A criu that waits for its request.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    child: Child,
}

impl Session {
    /// Starts criu. Its stdio is ours, `keep` are descriptors that it gets under the same numbers, and `prepare` runs
    /// in its process before it does.
    ///
    /// # Errors
    /// "criu is not installed", or what `prepare` says.
    pub fn start(keep: &[RawFd], prepare: impl FnOnce() -> Result<()>) -> Result<Self> {
        let program = find()?;
        let (parcel, sender) = sys::fd::seqpacket_pair()?;
        let (errors, writer) = sys::fd::pipe()?;
        let forked = sys::process::fork()?;
        let Forked::Parent(child) = forked else {
            let error = become_criu(&program, &sender, keep, prepare);
            let text = error.map_or_else(|error| error.message, |never| match never {});
            // Where nobody reads there is nobody to tell.
            drop(sys::fd::write_all(&writer, text.as_bytes()));
            sys::process::exit_now(1);
        };
        drop((sender, writer));
        let error = sys::fd::read_to_end(&errors, MAX_ERROR)?;
        let socket = sys::socket::receive(&parcel, &mut [0_u8; 1])?.fds.pop();
        if let Some(socket) = socket.filter(|_| error.is_empty()) {
            return Ok(Self { socket, child });
        }
        sys::process::wait(&child.pidfd)?;
        Err(Error::new(if error.is_empty() {
            "criu failed: it ended before it began".to_owned()
        } else {
            String::from_utf8_lossy(&error).into_owned()
        }))
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Sends the request and handles what criu says until it is answered.
    ///
    /// # Errors
    /// As [`converse`].
    pub fn ask(
        &self,
        kind: Kind,
        request: &Message,
        on_notify: impl FnMut(&Notify, Vec<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        converse(&self.socket, kind, request, on_notify)
    }

    /// Hangs up and waits for its end: whatever it was doing, it takes back.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn finish(self) -> Result<Exit> {
        drop(self.socket);
        Ok(sys::process::wait(&self.child.pidfd)?)
    }

    /// The version of the installed criu, 31700 for 3.17.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn version() -> Result<i32> {
        let request = rpc::request(Kind::Version, None);
        let answer = Self::once(Kind::Version, &request)
            .within(|| "CRIU version check failed".to_owned())?;
        Ok(answer.version)
    }

    /// Refuses a criu, or a kernel, without these features.
    ///
    /// # Errors
    /// Which is missing.
    pub fn need(features: &[(u32, &str)]) -> Result<()> {
        let numbers: Vec<u32> = features.iter().map(|(number, _)| *number).collect();
        let request = rpc::feature_request(&numbers);
        let answer = Self::once(Kind::FeatureCheck, &request)
            .within(|| "CRIU feature check failed".to_owned())?;
        match features
            .iter()
            .find(|(number, _)| !answer.features.contains(number))
        {
            None => Ok(()),
            Some((_, name)) => Err(Error::new(format!("criu is missing features: [{name}]"))
                .hint("the kernel or the installed criu does not have it")),
        }
    }

    fn once(kind: Kind, request: &Message) -> Result<Response> {
        let session = Self::start(&[], || Ok(()))?;
        let answer = session.ask(kind, request, |_, _| Ok(()));
        session.finish()?;
        answer
    }
}

/// Sends a request over `socket` and answers what criu notifies of until it answers the request itself.
///
/// # Errors
/// criu failed, hung up or talks nonsense; what `on_notify` says.
pub fn converse(
    socket: impl AsFd,
    kind: Kind,
    request: &Message,
    mut on_notify: impl FnMut(&Notify, Vec<OwnedFd>) -> Result<()>,
) -> Result<Response> {
    let socket = socket.as_fd();
    let within = || format!("criu failed: type {kind}");
    sys::socket::send(socket, request.as_bytes(), &[]).within(within)?;
    let mut buffer = vec![0_u8; MAX_MESSAGE];
    loop {
        let received = sys::socket::receive(socket, &mut buffer).within(within)?;
        if received.len == 0 {
            return Err(Error::new("unexpected EOF").within(within()));
        }
        if received.truncated {
            return Err(Error::new("a message is too long").within(within()));
        }
        let response = Response::parse(&buffer[..received.len])
            .map_err(|_| Error::new("a message makes no sense").within(within()))?;
        if !response.success {
            let mut text = format!(
                "criu failed: type {} errno {}",
                response.kind, response.errno
            );
            if !response.text.is_empty() {
                text = format!("{text}: {}", response.text.trim());
            }
            return Err(Error::new(text));
        }
        match (response.kind, &response.notify) {
            (Kind::Notify, Some(notify)) => {
                on_notify(notify, received.fds)?;
                sys::socket::send(socket, rpc::notified().as_bytes(), &[]).within(within)?;
            }
            (answered, _) if answered == kind => return Ok(response),
            (other, _) => {
                return Err(
                    Error::new(format!("unexpected answer of type {other}")).within(within())
                );
            }
        }
    }
}

/// The last steps of the forked process. Returns only to say why not.
///
/// criu takes the maker of its socket for its client, and opens the directories of a request through that one's
/// descriptors. It must be its own client where it has a mount namespace of its own: it mounts in those directories.
fn become_criu(
    program: &CString,
    sender: &OwnedFd,
    keep: &[RawFd],
    prepare: impl FnOnce() -> Result<()>,
) -> Result<std::convert::Infallible> {
    prepare()?;
    let (theirs, socket) = sys::fd::seqpacket_pair()?;
    sys::socket::send(sender, b"s", &[theirs.as_fd()])?;
    drop(theirs);
    for number in keep.iter().chain([&socket.as_raw_fd()]) {
        sys::fd::keep_on_exec(*number)?;
    }
    sys::process::reset_signals()?;
    let number = socket.as_raw_fd().to_string();
    let words = ["criu", "swrk", &number];
    let argv: Vec<CString> = words
        .into_iter()
        .filter_map(|word| CString::new(word).ok())
        .collect();
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let both = [name.into_vec(), b"=".to_vec(), value.into_vec()].concat();
        CString::new(both).ok()
    };
    let env: Vec<CString> = std::env::vars_os().filter_map(variable).collect();
    Err(sys::process::execve(program, &argv, &env).into())
}

fn find() -> Result<CString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let executable = |path: &Path| {
        nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
    };
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("criu"))
        .find(|path| executable(path))
        .and_then(|path| CString::new(path.as_os_str().as_bytes()).ok())
        .ok_or_else(|| {
            Error::new("criu is not installed: not found in $PATH")
                .hint("checkpoint and restore are done by criu: install the package criu")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::wire::Fields;

    /// Plays criu: hears the request, then sends each of `words` and returns what came back.
    fn fake(socket: OwnedFd, words: Vec<(Message, bool)>) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let hear = || {
            let mut buffer = vec![0; MAX_MESSAGE];
            let received = sys::socket::receive(&socket, &mut buffer).unwrap();
            buffer[..received.len].to_vec()
        };
        heard.push(hear());
        for (word, with_fd) in words {
            let null = std::fs::File::open("/dev/null").unwrap();
            let fds = [null.as_fd()];
            let fds = if with_fd { &fds[..] } else { &[] };
            sys::socket::send(&socket, word.as_bytes(), fds).unwrap();
            heard.push(hear());
        }
        heard
    }

    fn response(kind: Kind, success: bool) -> Message {
        let mut message = rpc::request(kind, None);
        message.bool(2, success);
        message
    }

    fn notify(script: &str, pid: i32) -> Message {
        let mut inner = Message::default();
        inner.bytes(1, script).int(2, pid);
        let mut message = response(Kind::Notify, true);
        message.message(5, &inner);
        message
    }

    type Seen = Vec<(String, i32, usize)>;

    /// A restore with a criu that says `words`: what was seen of it, how it ended, what criu heard.
    fn talk(words: Vec<(Message, bool)>) -> (Seen, Result<Response>, Vec<Vec<u8>>) {
        let (ours, theirs) = sys::fd::seqpacket_pair().unwrap();
        let criu = std::thread::spawn(move || fake(theirs, words));
        let mut seen = Vec::new();
        let request = rpc::request(Kind::Restore, Some(&Message::default()));
        let result = converse(&ours, Kind::Restore, &request, |notify, fds| {
            seen.push((notify.script.clone(), notify.pid, fds.len()));
            Ok(())
        });
        drop(ours);
        (seen, result, criu.join().unwrap())
    }

    #[test]
    fn notifications_are_handled_in_order_and_each_is_answered() {
        let (seen, result, heard) = talk(vec![
            (notify("setup-namespaces", 12), false),
            (notify("orphan-pts-master", 0), true),
            (notify("post-restore", 12), false),
            (response(Kind::Restore, true), false),
        ]);
        assert!(result.is_ok(), "{result:?}");
        let scripts: Vec<_> = seen
            .iter()
            .map(|(script, pid, fds)| (script.as_str(), *pid, *fds))
            .collect();
        assert_eq!(
            scripts,
            [
                ("setup-namespaces", 12, 0),
                ("orphan-pts-master", 0, 1),
                ("post-restore", 12, 0)
            ]
        );
        for answer in &heard[1..4] {
            assert_eq!(answer, rpc::notified().as_bytes());
        }
        assert_eq!(
            Fields::new(&heard[0]).next().unwrap().unwrap().1.int(),
            Some(2)
        );
    }

    #[test]
    fn a_failure_has_its_type_number_and_words() {
        let mut failure = response(Kind::Restore, false);
        failure.int(7, 17).bytes(9, "Error (criu/x.c:1): no\n");
        let (_, result, _) = talk(vec![(failure, false)]);
        let wanted = "criu failed: type RESTORE errno 17: Error (criu/x.c:1): no";
        assert_eq!(result.unwrap_err().message, wanted);
    }

    #[test]
    fn a_criu_that_hangs_up_or_answers_something_else_is_a_failure() {
        let (ours, theirs) = sys::fd::seqpacket_pair().unwrap();
        let criu = std::thread::spawn(move || {
            let mut buffer = vec![0; 100];
            sys::socket::receive(&theirs, &mut buffer).unwrap();
        });
        let request = rpc::request(Kind::Dump, None);
        let error = converse(&ours, Kind::Dump, &request, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.message, "criu failed: type DUMP: unexpected EOF");
        criu.join().unwrap();
        let (_, result, _) = talk(vec![(response(Kind::Dump, true), false)]);
        assert_eq!(
            result.unwrap_err().message,
            "criu failed: type RESTORE: unexpected answer of type DUMP"
        );
    }

    #[test]
    fn a_refused_notification_ends_the_conversation_without_an_answer() {
        let (ours, theirs) = sys::fd::seqpacket_pair().unwrap();
        let criu =
            std::thread::spawn(move || fake(theirs, vec![(notify("setup-namespaces", 1), false)]));
        let request = rpc::request(Kind::Restore, None);
        let error = converse(&ours, Kind::Restore, &request, |_, _| {
            Err(Error::new("hook"))
        })
        .unwrap_err();
        drop(ours);
        assert_eq!(error.message, "hook");
        assert_eq!(criu.join().unwrap()[1], b"");
    }
}
