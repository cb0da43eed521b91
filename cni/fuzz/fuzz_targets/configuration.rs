//! Network lists as the executor reads them, and plugins' own configuration as our plugins do: whatever they say, there
//! is a network or a reason, and an answer that is one.
#![no_main]
use std::ffi::OsString;

use cni::{Attachment, NetworkList, plugin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    if let Ok(network) = NetworkList::parse(text) {
        assert!(!network.plugins().is_empty());
        assert!(!network.name().contains('/'));
        network.capabilities();
        network.shortened_for(&Attachment::new("fuzz"));
    }
    // STATUS reads a configuration whole and touches nothing.
    let name = ["bridge", "host-local", "loopback"][usize::from(choice % 3)];
    let env = |key: &str| (key == "CNI_COMMAND").then(|| OsString::from("STATUS"));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = plugin::run(name, &env, &mut &text[..], &mut stdout, &mut stderr);
    let said = String::from_utf8(stdout).expect("text");
    assert_eq!(code == 0, said.is_empty(), "{said}");
    assert!(code == 0 || said.contains("\"msg\""), "{said}");
});
