//! Generated gRPC code: Kubernetes' Container Runtime Interface (`runtime.v1`) and Davit's own small service (`davit.v1`).
//!
//! **Invariant:** nothing in the generated files is written by hand, and they are committed, so a build needs no generator.
//! `tests/generated.rs` generates them again and compares; `REGENERATE=1 cargo test -p proto` rewrites them.
//! The only code by hand is the [`std::fmt::Debug`] of messages that carry secrets.
#![forbid(unsafe_code)]

mod redacted;

/// `runtime.v1`: the Container Runtime Interface, as in `proto/cri/runtime/v1/api.proto`.
pub mod runtime {
    /// Version 1 of the interface.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        rustdoc::all,
        reason = "generated; the comments are upstream's"
    )]
    pub mod v1 {
        include!("runtime.v1.rs");
    }
}

/// `davit.v1`: what neither CRI nor the Kubernetes API has, as in `proto/davit/v1/davit.proto`.
pub mod davit {
    /// Version 1 of the service.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        rustdoc::all,
        reason = "generated; the comments are in the .proto file"
    )]
    pub mod v1 {
        include!("davit.v1.rs");
    }
}
