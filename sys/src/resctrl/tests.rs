//! The file logic on a directory that looks like the filesystem: no machine of ours has the hardware.
use super::*;

/// A root with a class `gold`, and with what a new group would have already in `web`, `ownd` and their like.
fn fake() -> (tempfile::TempDir, Resctrl) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["info/L3", "info/MB", "mon_groups", "gold/mon_groups"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for group in ["", "gold"] {
        fs::write(
            root.join(group).join("schemata"),
            "    MB:0= 20;1= 70\n    L3:0=00f;1=0ff\n",
        )
        .unwrap();
        fs::write(root.join(group).join("tasks"), "").unwrap();
    }
    fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
    let resctrl = Resctrl::at(root);
    (dir, resctrl)
}

fn class(name: &str) -> Request {
    Request {
        class: name.into(),
        ..Request::default()
    }
}

#[test]
fn a_class_without_shares_must_exist_and_stays() {
    let (dir, resctrl) = fake();
    let group = resctrl.make(&class("gold"), "web").unwrap();
    assert_eq!((group.own, &group.monitor), (false, &None));
    group.add_process(4711).unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("gold/tasks")).unwrap(),
        "4711"
    );
    group.remove().unwrap();
    assert!(dir.path().join("gold").is_dir());
    let error = resctrl.make(&class("silver"), "web").unwrap_err();
    assert_eq!(error.errno, Errno::ENOENT);
    assert!(
        error.to_string().contains("the class must exist"),
        "{error}"
    );
    assert!(!dir.path().join("silver").exists());
}

#[test]
fn the_root_class_is_the_root() {
    let (dir, resctrl) = fake();
    let group = resctrl.make(&class("/"), "web").unwrap();
    assert_eq!(group.dir, dir.path());
    group.remove().unwrap();
    assert!(dir.path().is_dir());
}

#[test]
fn an_existing_class_must_have_the_shares_that_are_asked_for() {
    let (_dir, resctrl) = fake();
    let with = |l3: &str, bandwidth: &str| Request {
        l3: l3.into(),
        bandwidth: bandwidth.into(),
        ..class("gold")
    };
    for (l3, bandwidth) in [
        ("L3:0=f;1=ff", ""),
        ("L3:1=FF", "MB:0=20"),
        ("", "MB:1=70;0=20"),
    ] {
        assert!(
            resctrl.make(&with(l3, bandwidth), "web").is_ok(),
            "{l3} {bandwidth}"
        );
    }
    let (_dir, resctrl) = fake();
    for (l3, bandwidth) in [
        ("L3:0=ff", ""),
        ("L3:2=f", ""),
        ("", "MB:0=30"),
        ("L2:0=f", ""),
        ("L3", ""),
    ] {
        let error = resctrl.make(&with(l3, bandwidth), "web").unwrap_err();
        assert!(
            error.to_string().contains("which is not"),
            "{l3} {bandwidth}: {error}"
        );
    }
}

#[test]
fn a_group_of_its_own_goes_with_the_container() {
    let (dir, resctrl) = fake();
    let group = resctrl.make(&Request::default(), "web").unwrap();
    assert!(group.own && dir.path().join("web").is_dir());
    group.remove().unwrap();
    assert!(!dir.path().join("web").exists());
    group.remove().unwrap();
    // One that was there before is used and stays.
    fs::create_dir(dir.path().join("ownd")).unwrap();
    let group = resctrl.make(&Request::default(), "ownd").unwrap();
    group.remove().unwrap();
    assert!(dir.path().join("ownd").is_dir());
}

#[test]
fn lines_are_written_at_once_caches_first_and_the_rest_last() {
    let (dir, resctrl) = fake();
    let request = Request {
        l3: "L3:0=f".into(),
        bandwidth: "MB:0=20".into(),
        lines: vec!["L2:0=f".into(), "MB:1=70".into()],
        ..Request::default()
    };
    let gold = dir.path().join("gold");
    fs::write(gold.join("schemata"), "").unwrap();
    resctrl.set(&gold, &request).unwrap();
    let text = fs::read_to_string(gold.join("schemata")).unwrap();
    assert_eq!(text, "L3:0=f\nMB:0=20\nL2:0=f\nMB:1=70\n");
}

#[test]
fn what_fails_leaves_nothing_and_says_what_the_kernel_says() {
    let (dir, resctrl) = fake();
    fs::write(
        dir.path().join("info/last_cmd_status"),
        "Need to have bits\n",
    )
    .unwrap();
    // A plain directory gets no schemata by itself, so that the write fails as one to a full kernel would.
    let request = Request {
        l3: "L3:0=f".into(),
        ..Request::default()
    };
    let error = resctrl.make(&request, "web").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("last_cmd_status: Need to have bits"),
        "{error}"
    );
    assert!(!dir.path().join("web").exists());
    let named = Request {
        class: "silver".into(),
        ..request
    };
    assert!(resctrl.make(&named, "web").is_err());
    assert!(!dir.path().join("silver").exists());
}

#[test]
fn a_monitoring_group_is_the_containers_own_in_any_class() {
    let (dir, resctrl) = fake();
    let request = Request {
        monitor: true,
        ..class("gold")
    };
    let group = resctrl.make(&request, "web").unwrap();
    let monitor = dir.path().join("gold/mon_groups/web");
    assert_eq!(group.monitor.as_deref(), Some(monitor.as_path()));
    fs::write(monitor.join("tasks"), "").unwrap();
    group.add_process(7).unwrap();
    assert_eq!(fs::read_to_string(monitor.join("tasks")).unwrap(), "7");
    fs::remove_file(monitor.join("tasks")).unwrap();
    group.remove().unwrap();
    assert!(!monitor.exists() && dir.path().join("gold").exists());
}

#[test]
fn a_host_without_the_filesystem_says_so() {
    if Path::new("/proc/self/mountinfo").exists() && !Path::new("/sys/fs/resctrl/schemata").exists()
    {
        let error = Resctrl::find().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no resctrl filesystem is mounted"),
            "{error}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn a_line_is_held_by_itself_and_no_text_makes_it_panic(
        ids in proptest::collection::btree_map(0_u32..64, 1_u32..0xfff, 1..6),
        noise in "(L3|MB|:|=|;|[0-9a-f]|.){0,40}",
    ) {
        let line = |pad: usize| {
            let pairs: Vec<String> = ids.iter().map(|(id, mask)| format!("{id}={mask:0pad$x}")).collect();
            format!("L3:{}", pairs.join(";"))
        };
        let padded = format!("   {}\n", line(6));
        proptest::prop_assert!(holds(&padded, &line(1)));
        holds(&noise, &line(1));
        holds(&line(1), &noise);
    }
}
