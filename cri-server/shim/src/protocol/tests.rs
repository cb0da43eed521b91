use super::*;
use proptest::prelude::*;

fn decode(text: &str) -> Result<Request, Malformed> {
    decode_request(text.as_bytes())
}

#[test]
fn the_wire_form_of_a_request_is_fixed() {
    let request = Request {
        seq: 7,
        op: Op::Start {
            container_id: "c1".into(),
        },
    };
    let packet = encode(&request).unwrap();
    assert_eq!(packet, br#"{"seq":7,"op":{"start":{"container_id":"c1"}}}"#);
    assert_eq!(
        encode(&Request {
            seq: 1,
            op: Op::Status {}
        })
        .unwrap(),
        br#"{"seq":1,"op":{"status":{}}}"#
    );
}

#[test]
fn optional_fields_may_be_absent_and_unknown_ones_are_ignored() {
    let text = r#"{"seq":1,"op":{"create":{"container_id":"c","runtime":{"path":"/r"},"bundle":"/b","later":true}},"trace":"x"}"#;
    let Request {
        op: Op::Create(create),
        ..
    } = decode(text).unwrap()
    else {
        panic!("another operation")
    };
    assert_eq!(
        (create.log_path, create.terminal, create.create_args),
        (None, false, vec![])
    );
}

#[test]
fn an_unknown_operation_is_answerable_and_named() {
    let error = decode(r#"{"seq":9,"op":{"teleport":{"to":1}}}"#).unwrap_err();
    let Malformed::Operation { seq: 9, message } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        message,
        "unknown operation \"teleport\" (this shim speaks version 1)"
    );
}

#[test]
fn wrong_operands_are_answerable_and_name_the_field() {
    let error = decode(r#"{"seq":9,"op":{"start":{}}}"#).unwrap_err();
    let Malformed::Operation { message, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(message, "operation \"start\": missing field `container_id`");
}

#[test]
fn what_is_no_request_is_garbage() {
    for text in [
        "",
        "x",
        "[]",
        "{}",
        r#"{"seq":1}"#,
        r#"{"seq":-1,"op":{"status":{}}}"#,
        r#"{"seq":1,"op":"status"}"#,
        r#"{"seq":1,"op":{}}"#,
        r#"{"seq":1,"op":{"status":{},"start":{}}}"#,
    ] {
        assert!(matches!(decode(text), Err(Malformed::Garbage(_))), "{text}");
    }
    let deep = format!(r#"{{"seq":1,"op":{{"a":{}"#, "[".repeat(60_000));
    assert!(matches!(decode(&deep), Err(Malformed::Garbage(_))));
}

#[test]
fn a_kind_of_a_newer_shim_is_read_as_unknown() {
    let text = r#"{"seq":1,"err":{"kind":"haunted","message":"boo"}}"#;
    let Message::Err { err, .. } = serde_json::from_str(text).unwrap() else {
        panic!("no error")
    };
    assert_eq!(err.kind, ErrorKind::Unknown);
}

#[test]
fn a_message_beyond_a_packet_is_not_encoded() {
    let request = Request {
        seq: 1,
        op: Op::Start {
            container_id: "c".repeat(MAX_PACKET),
        },
    };
    assert_eq!(encode(&request), None);
}

proptest! {
    #[test]
    fn no_packet_makes_the_decoder_panic(packet in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(decode_request(&packet));
    }

    #[test]
    fn no_json_makes_the_decoder_panic(seq in any::<i64>(), name in "\\PC{0,12}", value in "\\PC{0,40}") {
        let text = serde_json::json!({"seq": seq, "op": {name: {"container_id": value}}}).to_string();
        drop(decode(&text));
    }

    #[test]
    fn every_request_survives_the_wire(seq in any::<u64>(), id in "\\PC{0,20}", signal in any::<i32>(), all in any::<bool>()) {
        let request = Request { seq, op: Op::Signal { container_id: id, signal, all } };
        let packet = encode(&request).unwrap();
        prop_assert_eq!(decode_request(&packet).unwrap(), request);
    }
}
