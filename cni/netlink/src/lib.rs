//! Links, addresses, routes and nftables transactions over netlink
#![forbid(unsafe_code)]
