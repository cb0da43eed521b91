//! The command `davit-oci`. Everything is in the library; see `davit-oci --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    // Descriptors that the caller forgot to close must not reach a container (CVE-2024-21626). Those that it means to
    // pass on are marked again right before the program starts. Kernels before 5.11 cannot; then nothing is lost but this.
    drop(sys::fd::close_on_exec_from(3));
    let args: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    oci_runtime::cli::run(&args).into()
}
