//! The CRI gRPC front-end over the engine
#![forbid(unsafe_code)]
