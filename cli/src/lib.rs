//! The command for people: up, down, status, doctor, image
#![forbid(unsafe_code)]
