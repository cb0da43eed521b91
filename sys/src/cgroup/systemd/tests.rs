//! Requests against a service manager that is played by the test: what exactly is asked, and what becomes of every
//! kind of answer.
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use super::address::{Address, Socket};
use super::connection::Connection;
use super::message::{self, FIXED, Method};
use super::reader::Reader;
use super::value::Writer;
use super::*;

/// The other end of a connection.
struct Peer {
    stream: UnixStream,
    serial: u32,
}

/// A call that came in: its method and arguments, and what an answer refers to.
#[derive(Debug)]
struct Call {
    member: String,
    arguments: Vec<Value>,
    serial: u32,
}

impl Peer {
    /// The handshake.
    fn greet(&mut self, answer: &[u8]) {
        let wanted = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
        let mut got = vec![0; wanted.len()];
        self.stream.read_exact(&mut got).unwrap();
        assert_eq!(got, wanted);
        self.stream.write_all(answer).unwrap();
    }

    fn receive(&mut self) -> Call {
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes).unwrap();
        let (head, body) = message::lengths(&bytes).unwrap();
        bytes.resize(head, 0);
        self.stream.read_exact(&mut bytes[FIXED..]).unwrap();
        let mut arguments = vec![0; body];
        self.stream.read_exact(&mut arguments).unwrap();
        let header = message::Header::parse(&bytes).unwrap();
        let mut fixed = Reader::new(&bytes, false);
        let numbers = fixed.values("uuu").unwrap();
        let Value::U32(serial) = numbers[2] else {
            panic!("{numbers:?}")
        };
        Call {
            member: header.member.clone(),
            arguments: header.values(&arguments).unwrap(),
            serial,
        }
    }

    /// Receives a call of this method.
    fn expect(&mut self, member: &str) -> Call {
        let call = self.receive();
        assert_eq!(call.member, member, "{call:?}");
        call
    }

    fn send(&mut self, kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) {
        self.serial += 1;
        let mut values = Writer::default();
        body.iter().for_each(|one| values.value(one));
        let signature: String = body.iter().map(Value::signature).collect();
        let field =
            |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields: Vec<Value> = fields.into_iter().map(field).collect();
        fields.push(field((8, Value::Signature(signature))));
        let mut writer = Writer::default();
        writer.bytes.extend([b'l', kind, 1, 1]);
        writer.u32(u32::try_from(values.bytes.len()).unwrap());
        writer.u32(self.serial);
        writer.value(&Value::Array("(yv)".into(), fields));
        writer.align(8);
        writer.bytes.append(&mut values.bytes);
        self.stream.write_all(&writer.bytes).unwrap();
    }

    fn answer(&mut self, call: &Call, body: &[Value]) {
        self.send(2, vec![(5, Value::U32(call.serial))], body);
    }

    fn refuse(&mut self, call: &Call, name: &str, message: &str) {
        let fields = vec![
            (4, Value::Str(format!("org.freedesktop.systemd1.{name}"))),
            (5, Value::U32(call.serial)),
        ];
        self.send(3, fields, &[Value::str(message)]);
    }

    fn signal(&mut self, member: &str, body: &[Value]) {
        let fields = vec![
            (1, Value::Path("/org/freedesktop/systemd1".into())),
            (2, Value::str("org.freedesktop.systemd1.Manager")),
            (3, Value::str(member)),
        ];
        self.send(4, fields, body);
    }

    fn job_removed(&mut self, job: &str, result: &str) {
        let body = [
            Value::U32(7),
            Value::Path(job.into()),
            Value::str("web.scope"),
            Value::str(result),
        ];
        self.signal("JobRemoved", &body);
    }

    /// The handshake and the questions that everyone asks first.
    fn introduce(&mut self) {
        self.greet(b"DATA\r\nOK 1234\r\n");
        for value in ["252.36-1~deb12u1", ""] {
            let call = self.expect("Get");
            let text = Value::Variant(Box::new(Value::str(value)));
            self.answer(&call, &[text]);
        }
    }
}

/// A connection to a peer that acts on a thread of its own.
fn play(
    broker: bool,
    patience: Duration,
    act: impl FnOnce(&mut Peer) + Send + 'static,
) -> (Systemd, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        act(&mut Peer {
            stream: theirs,
            serial: 0,
        });
    });
    let address = Address {
        socket: Socket::Path("/test".into()),
        broker,
    };
    let connection = Connection::on(ours, address, patience).unwrap();
    (Systemd::on(connection), thread)
}

const LONG: Duration = Duration::from_secs(20);

/// Creates the unit `web.scope` against such a peer.
fn start(act: impl FnOnce(&mut Peer) + Send + 'static) -> Result<()> {
    let (mut systemd, thread) = play(false, LONG, |peer| {
        peer.introduce();
        act(peer);
    });
    systemd.greet().unwrap();
    let properties = vec![("Delegate".to_owned(), Value::Bool(true))];
    let started = systemd
        .start("web.scope", properties)
        .and_then(|starting| systemd.finish(&starting));
    drop(systemd);
    thread.join().unwrap();
    started
}

#[test]
fn a_unit_is_there_when_its_job_is_done() {
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        let property = Value::Struct(vec![
            Value::str("Delegate"),
            Value::Variant(Box::new(Value::Bool(true))),
        ]);
        assert_eq!(
            call.arguments,
            [
                Value::str("web.scope"),
                Value::str("replace"),
                Value::Array("(sv)".into(), vec![property]),
                Value::Array("(sa(sv))".into(), vec![]),
            ]
        );
        // News of others, and of this job before its own answer.
        peer.signal(
            "UnitNew",
            &[Value::str("a.service"), Value::Path("/a".into())],
        );
        peer.job_removed("/job/6", "failed");
        peer.job_removed("/job/7", "done");
        peer.signal("Huge", &[Value::Str("x".repeat(3 << 20))]);
        peer.answer(&call, &[Value::Path("/job/7".into())]);
    });
    assert_eq!(started, Ok(()));
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.answer(&call, &[Value::Path("/job/7".into())]);
        peer.job_removed("/job/8", "failed");
        peer.job_removed("/job/7", "done");
    });
    assert_eq!(started, Ok(()));
}

#[test]
fn a_unit_that_failed_earlier_is_forgotten_once() {
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.refuse(&call, "UnitExists", "Unit web.scope already exists.");
        let call = peer.expect("ResetFailedUnit");
        assert_eq!(call.arguments, [Value::str("web.scope")]);
        peer.answer(&call, &[]);
        let call = peer.expect("StartTransientUnit");
        peer.job_removed("/job/7", "done");
        peer.answer(&call, &[Value::Path("/job/7".into())]);
    });
    assert_eq!(started, Ok(()));
    let started = start(|peer| {
        for _ in 0..2 {
            let call = peer.expect("StartTransientUnit");
            peer.refuse(&call, "UnitExists", "Unit web.scope already exists.");
            if call.serial < 5 {
                let call = peer.expect("ResetFailedUnit");
                peer.refuse(&call, "NoSuchUnit", "Unit web.scope not loaded.");
            }
        }
    });
    let error = started.unwrap_err();
    assert_eq!(
        error.to_string(),
        "StartTransientUnit(\"web.scope\"): Unit web.scope already exists. (org.freedesktop.systemd1.UnitExists)"
    );
    assert!(error.hint().unwrap().contains("systemctl status"));
}

#[test]
fn a_unit_that_systemd_cannot_make_is_an_error() {
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.answer(&call, &[Value::Path("/job/7".into())]);
        peer.job_removed("/job/7", "failed");
        let call = peer.expect("ResetFailedUnit");
        peer.answer(&call, &[]);
    });
    assert_eq!(
        started.unwrap_err().to_string(),
        "error creating systemd unit `web.scope`: got `failed`"
    );
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.refuse(
            &call,
            "Whatever",
            "Cannot set property Foo, or unknown property.",
        );
    });
    assert!(
        started
            .unwrap_err()
            .to_string()
            .contains("Cannot set property Foo")
    );
}

#[test]
fn a_connection_that_breaks_is_an_error_that_says_so() {
    let started = start(|peer| drop(peer.expect("StartTransientUnit")));
    assert_eq!(
        started.unwrap_err().to_string(),
        "StartTransientUnit(\"web.scope\"): systemd closed the connection"
    );
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.answer(&call, &[Value::Path("/job/7".into())]);
    });
    assert!(matches!(started, Err(Error::Closed { .. })), "{started:?}");
    let started = start(|peer| {
        peer.expect("StartTransientUnit");
        peer.stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    assert!(
        matches!(started, Err(Error::Malformed { .. })),
        "{started:?}"
    );
    let started = start(|peer| {
        let call = peer.expect("StartTransientUnit");
        peer.answer(&call, &[Value::U32(7)]);
    });
    assert!(
        matches!(started, Err(Error::Malformed { .. })),
        "{started:?}"
    );
}

#[test]
fn a_manager_that_does_not_answer_is_not_waited_for_without_end() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (mut systemd, thread) = play(false, Duration::from_millis(300), move |peer| {
        peer.introduce();
        peer.expect("StartTransientUnit");
        // Until the test has seen the time-out.
        wait.recv().unwrap_err();
    });
    systemd.greet().unwrap();
    let starting = systemd.start("web.scope", Vec::new()).unwrap();
    let error = systemd.finish(&starting).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("list-jobs"));
    drop(done);
    thread.join().unwrap();
}

#[test]
fn who_is_not_accepted_is_told_where() {
    let (mut systemd, thread) = play(false, LONG, |peer| {
        peer.greet(b"REJECTED EXTERNAL\r\nERROR\r\n")
    });
    assert_eq!(
        systemd.greet().unwrap_err().to_string(),
        "/test does not accept this user: \"REJECTED EXTERNAL\""
    );
    thread.join().unwrap();
}

#[test]
fn an_older_manager_accepts_twice() {
    let (mut systemd, thread) = play(false, LONG, |peer| {
        peer.greet(b"OK 1234\r\nOK 1234\r\n");
        for _ in 0..2 {
            let call = peer.expect("Get");
            peer.answer(
                &call,
                &[Value::Variant(Box::new(Value::str("v239 (239-1)")))],
            );
        }
    });
    systemd.greet().unwrap();
    assert_eq!(systemd.version(), 239);
    thread.join().unwrap();
}

#[test]
fn on_a_bus_news_has_to_be_asked_for() {
    let (mut systemd, thread) = play(true, LONG, |peer| {
        peer.greet(b"DATA\r\nOK 1234\r\n");
        let call = peer.expect("Hello");
        peer.answer(&call, &[Value::str(":1.5")]);
        let calls = ["Get", "Get", "AddMatch", "Subscribe"].map(|member| peer.expect(member));
        let Value::Str(rule) = &calls[2].arguments[0] else {
            panic!()
        };
        assert!(rule.contains("member='JobRemoved'"), "{rule}");
        for (call, value) in calls
            .iter()
            .zip(["257", "/user.slice/user-7.slice/user@7.service"])
        {
            peer.answer(call, &[Value::Variant(Box::new(Value::str(value)))]);
        }
        peer.answer(&calls[2], &[]);
        peer.refuse(
            &calls[3],
            "AlreadySubscribed",
            "Client is already subscribed.",
        );
        let call = peer.expect("StopUnit");
        assert_eq!(
            call.arguments,
            [Value::str("web.scope"), Value::str("replace")]
        );
        peer.answer(&call, &[Value::Path("/job/9".into())]);
        peer.job_removed("/job/9", "done");
        let call = peer.expect("ResetFailedUnit");
        peer.refuse(&call, "NoSuchUnit", "Unit web.scope not loaded.");
    });
    systemd.greet().unwrap();
    assert_eq!(
        systemd.control_group(),
        "/user.slice/user-7.slice/user@7.service"
    );
    systemd.stop("web.scope").unwrap();
    thread.join().unwrap();
}

#[test]
fn a_unit_that_is_gone_needs_no_stopping() {
    let (mut systemd, thread) = play(false, LONG, |peer| {
        peer.introduce();
        let call = peer.expect("StopUnit");
        peer.refuse(&call, "NoSuchUnit", "Unit web.scope not loaded.");
    });
    systemd.greet().unwrap();
    assert_eq!(systemd.stop("web.scope"), Ok(()));
    thread.join().unwrap();
}

#[test]
fn properties_are_changed_until_the_next_boot() {
    let (mut systemd, thread) = play(false, LONG, |peer| {
        peer.introduce();
        let call = peer.expect("SetUnitProperties");
        assert_eq!(
            call.arguments[..2],
            [Value::str("web.scope"), Value::Bool(true)]
        );
        peer.answer(&call, &[]);
        let call = peer.expect("SetUnitProperties");
        peer.refuse(&call, "NoSuchUnit", "Unit web.scope not found.");
    });
    systemd.greet().unwrap();
    assert_eq!(systemd.set_properties("web.scope", &[]), Ok(()));
    let properties = [("TasksMax".to_owned(), Value::U64(5))];
    assert_eq!(systemd.set_properties("web.scope", &properties), Ok(()));
    let refused = systemd
        .set_properties("web.scope", &properties)
        .unwrap_err();
    assert!(refused.to_string().contains("not found"), "{refused}");
    thread.join().unwrap();
}

#[test]
fn a_scope_is_delegated_and_a_slice_is_not() {
    let names = |path: &str, version| {
        let unit = Unit::new(path, "web", Bus::System).unwrap();
        let target = Target { v2: true, version };
        let extra = [("CollectMode".to_owned(), Value::str("inactive"))];
        let list = unit_properties(&unit, 7, &Resources::default(), target, &extra);
        list.into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names("a.slice:p:x", 252),
        "Description Slice Delegate PIDs MemoryAccounting CPUAccounting IOAccounting TasksAccounting \
         DefaultDependencies CollectMode CollectMode"
    );
    assert_eq!(
        names("a.slice:p:x.slice", 219),
        "Description Wants MemoryAccounting CPUAccounting IOAccounting TasksAccounting DefaultDependencies CollectMode"
    );
}

#[test]
fn a_method_of_the_bus_names_the_bus() {
    let method = Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
    };
    let bytes = message::call(1, &method, &[]);
    assert!(bytes.len().is_multiple_of(8));
    assert!(message::Header::parse(&bytes).unwrap().signature.is_empty());
}
