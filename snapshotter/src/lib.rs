//! Registry client, layers, overlay snapshots and the image store
#![forbid(unsafe_code)]
