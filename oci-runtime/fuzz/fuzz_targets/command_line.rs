//! The command line: every command's flags on any arguments, one per line.
#![no_main]
use libfuzzer_sys::fuzz_target;
use oci_runtime::cli::commands::{COMMANDS, GLOBAL};
use oci_runtime::cli::flags::Parsed;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let args: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let Ok(global) = Parsed::new(GLOBAL, &args) else {
        return;
    };
    let Some((name, rest)) = global.operands.split_first() else {
        return;
    };
    if let Some(command) = COMMANDS.iter().find(|one| one.name == name) {
        drop(Parsed::new(command.flags, rest));
    }
});
