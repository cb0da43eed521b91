//! Black-box tests of the built binaries against genuine peers
#![forbid(unsafe_code)]
