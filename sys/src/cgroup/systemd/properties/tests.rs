//! What each limit becomes, as runc translates it.
use super::*;

const V2: Target = Target {
    v2: true,
    version: 257,
};
const V1: Target = Target {
    v2: false,
    version: 252,
};

/// The properties as `Name=number`, or the debug text of another value.
fn translate(resources: &Resources, target: Target) -> Vec<String> {
    let show = |(name, value): Property| match value {
        Value::U64(INFINITY) => format!("{name}=infinity"),
        Value::U64(number) => format!("{name}={number}"),
        Value::Array(_, values) => {
            let byte = |value: &Value| match value {
                Value::Byte(byte) => format!("{byte:02x}"),
                other => format!("{other:?}"),
            };
            format!("{name}={}", values.iter().map(byte).collect::<String>())
        }
        other => format!("{name}={other:?}"),
    };
    let list = for_resources(resources, target).unwrap();
    list.into_iter().map(show).collect()
}

fn memory(limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) -> Resources {
    Resources {
        memory: Memory {
            limit,
            swap,
            reservation,
            ..Memory::default()
        },
        ..Resources::default()
    }
}

fn cpu(cpu: Cpu) -> Resources {
    Resources {
        cpu,
        ..Resources::default()
    }
}

fn unified(files: &[(&str, &str)]) -> Resources {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Resources {
        unified: files.iter().map(pair).collect(),
        ..Resources::default()
    }
}

#[test]
fn nothing_set_is_nothing_said() {
    assert_eq!(translate(&Resources::default(), V2), [""; 0]);
    assert_eq!(translate(&Resources::default(), V1), [""; 0]);
}

#[test]
fn memory_limits() {
    let all = memory(Some(300), Some(500), Some(100));
    assert_eq!(
        translate(&all, V2),
        ["MemoryMax=300", "MemoryLow=100", "MemorySwapMax=200"]
    );
    // v1's other limits are unknown to systemd: their files are written.
    assert_eq!(translate(&all, V1), ["MemoryLimit=300"]);
    let none = memory(Some(-1), None, Some(-1));
    assert_eq!(
        translate(&none, V2),
        [
            "MemoryMax=infinity",
            "MemoryLow=infinity",
            "MemorySwapMax=infinity"
        ]
    );
    assert_eq!(
        translate(&memory(None, Some(-1), None), V2),
        ["MemorySwapMax=infinity"]
    );
    // An update of the sum alone.
    assert_eq!(translate(&memory(None, Some(500), None), V2), [""; 0]);
    assert!(for_resources(&memory(Some(300), Some(200), None), V2).is_err());
}

#[test]
fn weights() {
    let shares = |shares, idle| {
        cpu(Cpu {
            shares: Some(shares),
            idle,
            ..Cpu::default()
        })
    };
    assert_eq!(translate(&shares(1024, None), V2), ["CPUWeight=100"]);
    assert_eq!(translate(&shares(1024, None), V1), ["CPUShares=1024"]);
    assert_eq!(translate(&shares(1024, Some(1)), V2), ["CPUWeight=0"]);
    assert_eq!(translate(&shares(1024, Some(0)), V2), ["CPUWeight=100"]);
    let old = Target { version: 251, ..V2 };
    assert_eq!(translate(&shares(1024, Some(1)), old), ["CPUWeight=100"]);
    assert_eq!(translate(&shares(0, None), V2), [""; 0]);
}

#[test]
fn quotas_are_whole_percents() {
    type Row<'a> = (Option<i64>, Option<u64>, &'a [&'a str], Option<i64>);
    let table: [Row<'_>; 7] = [
        (
            Some(50_000),
            Some(100_000),
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"],
            Some(50_000),
        ),
        (
            Some(50_000),
            None,
            &["CPUQuotaPerSecUSec=500000"],
            Some(50_000),
        ),
        (
            None,
            Some(20_000),
            &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=infinity"],
            None,
        ),
        (
            Some(-1),
            Some(20_000),
            &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=infinity"],
            Some(-1),
        ),
        (Some(-1), None, &["CPUQuotaPerSecUSec=infinity"], Some(-1)),
        (
            Some(3_333),
            Some(20_000),
            &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=170000"],
            Some(3_400),
        ),
        (Some(0), Some(0), &[], Some(0)),
    ];
    for (quota, period, wanted, rounded) in table {
        let limits = cpu(Cpu {
            quota,
            period,
            ..Cpu::default()
        });
        assert_eq!(translate(&limits, V2), wanted, "{quota:?} {period:?}");
        assert_eq!(
            as_rounded(&limits).cpu.quota,
            rounded,
            "{quota:?} {period:?}"
        );
        let old = Target { version: 241, ..V2 };
        let without_period: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|one| !one.starts_with("CPUQuotaPeriod"))
            .collect();
        assert_eq!(translate(&limits, old), without_period);
    }
}

#[test]
fn sets_of_cpus_are_bits() {
    let set = |cpus: &str| {
        cpu(Cpu {
            cpus: Some(cpus.into()),
            mems: Some("0".into()),
            ..Cpu::default()
        })
    };
    for (cpus, bits) in [
        ("0", "01"),
        ("0-2, 7", "87"),
        ("8,,", "0001"),
        ("1,3-5,12", "3a10"),
    ] {
        assert_eq!(
            translate(&set(cpus), V2),
            [
                format!("AllowedCPUs={bits}"),
                "AllowedMemoryNodes=01".into()
            ],
            "{cpus}"
        );
    }
    let old = Target { version: 243, ..V2 };
    assert_eq!(translate(&set("0"), old), [""; 0]);
    for bad in ["", ",", "3-1", "x", "-1", "1-", "0-4294967295", "99999"] {
        assert!(for_resources(&set(bad), V2).is_err(), "{bad:?}");
    }
}

#[test]
fn weights_for_disks() {
    let weight = |weight| Resources {
        block_io: crate::cgroup::BlockIo {
            weight: Some(weight),
            ..crate::cgroup::BlockIo::default()
        },
        ..Resources::default()
    };
    for (own, v2) in [(10, 1), (1000, 10_000), (500, 4950)] {
        assert_eq!(translate(&weight(own), V2), [format!("IOWeight={v2}")]);
        assert_eq!(
            translate(&weight(own), V1),
            [format!("BlockIOWeight={own}")]
        );
    }
    assert_eq!(translate(&weight(0), V2), [""; 0]);
}

#[test]
fn no_processes_is_one() {
    for (limit, wanted) in [(17, "17"), (0, "1"), (-1, "infinity"), (-7, "infinity")] {
        let limits = Resources {
            pids_limit: Some(limit),
            ..Resources::default()
        };
        assert_eq!(translate(&limits, V1), [format!("TasksMax={wanted}")]);
    }
}

#[test]
fn files_of_v2_that_systemd_knows() {
    let table: [(&str, &str, &[&str]); 14] = [
        ("cpu.idle", "1", &["CPUWeight=0"]),
        ("cpu.idle", "0", &[]),
        (
            "cpu.max",
            "max",
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"],
        ),
        (
            "cpu.max",
            "5000 50000",
            &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=100000"],
        ),
        ("cpu.weight", "42", &["CPUWeight=42"]),
        ("cpuset.cpus", "0-1", &["AllowedCPUs=03"]),
        ("cpuset.mems", "0", &["AllowedMemoryNodes=01"]),
        ("memory.high", "20971520", &["MemoryHigh=20971520"]),
        ("memory.low", " 524288 ", &["MemoryLow=524288"]),
        ("memory.min", "131072", &["MemoryMin=131072"]),
        ("memory.max", "max", &["MemoryMax=infinity"]),
        ("memory.swap.max", "0", &["MemorySwapMax=0"]),
        ("pids.max", "99", &["TasksMax=99"]),
        ("hugetlb.2MB.max", "0", &[]),
    ];
    for (name, value, wanted) in table {
        assert_eq!(
            translate(&unified(&[(name, value)]), V2),
            wanted,
            "{name} {value}"
        );
        assert_eq!(translate(&unified(&[(name, value)]), V1), [""; 0]);
    }
    let both = unified(&[("cpu.idle", "1"), ("cpu.weight", "42")]);
    assert_eq!(translate(&both, V2), ["CPUWeight=0"]);
    for (name, bad) in [
        ("cpu.max", ""),
        ("cpu.max", "1 2 3"),
        ("cpu.max", "x"),
        ("memory.max", "1k"),
        ("pids.max", "-1"),
    ] {
        let error = for_resources(&unified(&[(name, bad)]), V2).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn killing_all_at_once_can_be_said_of_a_new_scope() {
    let policy = |value: &str, version| {
        super::unified::oom_policy(&unified(&[("memory.oom.group", value)]).unified, version)
    };
    assert_eq!(policy("1", 253), Some(Value::str("kill")));
    assert_eq!(policy("0", 253), Some(Value::str("continue")));
    assert_eq!(policy("1", 252), None);
    assert_eq!(policy("2", 253), None);
}
