//! Whatever a file of the kernel, a path or a number holds: no panic, and what must always hold.

use proptest::prelude::*;

use super::super::{convert, detect, file};
use super::*;

proptest! {
    #[test]
    fn a_key_is_found_with_its_number_wherever_it_stands(
        before in proptest::collection::vec("[a-z]{1,8} [0-9]{1,9}", 0..5),
        value: u64,
        noise in "(.|\n){0,40}",
    ) {
        let lines = before.iter().filter(|line| !line.starts_with("wanted ")).cloned();
        let text: Vec<String> = lines.chain([format!("wanted {value}")]).collect();
        prop_assert_eq!(file::find_key(&text.join("\n"), "wanted"), Some(value));
        file::find_key(&noise, "wanted");
    }

    #[test]
    fn the_line_of_a_hierarchy_is_its_path_however_odd(path in "/[^\n]{0,30}", noise in "(.|\n){0,60}") {
        let text = format!("3:cpu,cpuacct:/other\n0::{path}\n");
        let found = detect::own_path(&text, |id, _| id == "0");
        prop_assert_eq!(found, std::path::PathBuf::from(path));
        detect::own_path(&noise, |id, names| id == "0" || names.contains("cpu"));
    }

    #[test]
    fn no_path_leads_out_of_its_hierarchy(text in "(/|\\.|\\.\\.|[a-z]|\0|\n){0,20}") {
        if let Ok(path) = CgroupPath::new(&text) {
            let inside = Path::new("/sys/fs/cgroup").join(path.relative());
            prop_assert!(inside.components().all(|part| part != std::path::Component::ParentDir));
            prop_assert!(inside.starts_with("/sys/fs/cgroup") && inside != Path::new("/sys/fs/cgroup"));
        }
    }

    #[test]
    fn swap_on_v2_is_never_negative_but_for_unlimited(swap in proptest::option::of(-1_i64..), memory in proptest::option::of(-1_i64..)) {
        if let Ok(Some(own)) = swap_for_v2(swap, memory) {
            prop_assert!(own >= -1);
            if let (Some(swap), Some(memory)) = (swap, memory)
                && swap > 0 && memory > 0
            {
                prop_assert_eq!(own + memory, swap);
            }
        }
    }

    #[test]
    fn weights_stay_in_their_range_and_order(one: u64, other: u64, weight: u16) {
        let (low, high) = (one.min(other).max(1), one.max(other).max(1));
        let (from, to) = (shares_to_weight(low), shares_to_weight(high));
        prop_assert!((1..=10_000).contains(&from) && from <= to && to <= 10_000);
        prop_assert!((1..=10_000).contains(&convert::blkio_weight_to_io_weight(weight)));
    }

    #[test]
    fn an_access_is_read_and_written_alike(text in "[rwm]{1,3}|.{0,4}") {
        if let Ok(access) = DeviceAccess::parse(&text) {
            prop_assert_eq!(DeviceAccess::parse(&access.to_string()).unwrap(), access);
        }
    }
}
