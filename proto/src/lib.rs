//! Generated CRI and davit.v1 gRPC code
#![forbid(unsafe_code)]
