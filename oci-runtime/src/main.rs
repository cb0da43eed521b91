//! The command `davit-oci`. Everything is in the library; see `davit-oci --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    oci_runtime::cli::run(&args).into()
}
