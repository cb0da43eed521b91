use super::*;

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn pressure_has_both_lines_and_whole_numbers_as_go_writes_them() {
    let text = "some avg10=0.00 avg60=1.50 avg300=12.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    assert_eq!(
        json(&psi(text)),
        r#"{"some":{"avg10":0,"avg60":1.5,"avg300":12,"total":4711},"full":{"avg10":0,"avg60":0,"avg300":0,"total":0}}"#
    );
    assert_eq!(psi("some avg10=NaN avg60=inf total=x"), Psi::default());
}

#[test]
fn lists_of_processors_are_written_out() {
    assert_eq!(list("0-3,7"), [0, 1, 2, 3, 7]);
    assert_eq!(list("0"), [0]);
    assert_eq!(list(""), [0_u16; 0]);
    assert_eq!(list("3-1,x,5"), [5]);
}

#[test]
fn times_per_processor_leave_the_header_out() {
    let text = "cpu user system\n0 100 20\n1 7 9\n";
    assert_eq!(per_cpu(text), (vec![100, 7], vec![20, 9]));
}

#[test]
fn block_devices_of_v1_with_and_without_operations() {
    let text = "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n";
    assert_eq!(
        json(&blkio(text)),
        r#"[{"major":8,"op":"Read","value":4096},{"major":8,"op":"Write"}]"#
    );
    assert_eq!(
        json(&blkio("259:1 12\n")),
        r#"[{"major":259,"minor":1,"value":12}]"#
    );
}

#[test]
fn io_of_v2_takes_the_shape_of_v1() {
    let (bytes, operations) =
        io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n(unknown) rbytes=9\n");
    assert_eq!(
        json(&bytes),
        r#"[{"major":8,"minor":16,"op":"Read","value":1},{"major":8,"minor":16,"op":"Write","value":2}]"#
    );
    assert_eq!(operations.len(), 2);
}

#[test]
fn sizes_of_huge_pages_are_spelled_as_the_cgroup_files_do() {
    let table = [
        ("hugepages-2048kB", Some("2MB")),
        ("hugepages-1048576kB", Some("1GB")),
        ("hugepages-64kB", Some("64KB")),
        ("hugepages-2048", None),
        ("x", None),
    ];
    for (name, size) in table {
        assert_eq!(page_size(name).as_deref(), size, "{name}");
    }
}

#[test]
fn interfaces_are_those_of_the_container_but_the_loopback() {
    let text = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo:       1       2    0    0    0     0          0         0        1       2    0    0    0     0       0          0\n  \
        eth0:    10       2    3    4    0     0          0         0       50       6    7    8    0     0       0          0\n";
    let all = interfaces(text).unwrap();
    assert_eq!(
        json(&all),
        r#"[{"Name":"eth0","RxBytes":10,"RxPackets":2,"RxErrors":3,"RxDropped":4,"TxBytes":50,"TxPackets":6,"TxErrors":7,"TxDropped":8}]"#
    );
    assert_eq!(interfaces("").map(|all| all.len()), None);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_or_the_document_no_json(text in "(some|full|avg10=|8:0|[0-9]{1,22}|rbytes=|=|:|-|,| |\n|[a-z]|.){0,60}") {
        let document = json(&(psi(&text), keyed(&text), numbers(&text), blkio(&text), io_stat(&text), interfaces(&text)));
        proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&document).is_ok());
        per_cpu(&text);
        page_size(&text);
    }

    #[test]
    fn a_list_holds_exactly_its_ranges(first in 0_u16..200, length in 0_u16..50) {
        let last = first + length;
        proptest::prop_assert_eq!(list(&format!("{first}-{last}")), (first..=last).collect::<Vec<_>>());
    }

    #[test]
    fn keys_and_their_numbers_come_back(pairs in proptest::collection::btree_map("[a-z_]{1,12}", proptest::num::u64::ANY, 0..20)) {
        let text: String = pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        proptest::prop_assert_eq!(keyed(&text), pairs);
    }
}
