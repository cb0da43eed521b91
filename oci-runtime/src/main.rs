//! The command `davit-oci`. Everything is in the library; see `davit-oci --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    oci_runtime::cli::run(&args).into()
}
