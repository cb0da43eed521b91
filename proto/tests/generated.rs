//! The committed code is what the .proto files generate: pure Rust (`protox` parses, `tonic-prost-build` writes), no protoc.

use std::fs;
use std::path::{Path, PathBuf};

const FILES: [&str; 2] = ["runtime.v1.rs", "davit.v1.rs"];

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate(into: &Path) {
    let root = crate_dir();
    let protos = ["cri/runtime/v1/api.proto", "davit/v1/davit.proto"];
    let descriptors =
        protox::compile(protos.map(|p| root.join(p)), [&root]).expect("the .proto files parse");
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .btree_map(".")
        // Secrets: src/redacted.rs writes these by hand.
        .skip_debug([".runtime.v1.AuthConfig", ".davit.v1.Credentials"])
        .out_dir(into)
        .compile_fds(descriptors)
        .expect("code is written");
}

/// `REGENERATE=1 cargo test -p proto` rewrites the files instead of comparing them.
#[test]
fn generated_code_is_up_to_date() {
    let fresh = tempfile::tempdir().expect("a temporary directory");
    generate(fresh.path());
    let src = crate_dir().join("src");
    for file in FILES {
        let new = fs::read_to_string(fresh.path().join(file)).expect("generated");
        let committed = src.join(file);
        if std::env::var_os("REGENERATE").is_some() {
            fs::write(&committed, &new).expect("write the generated file");
        }
        let old = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            old == new,
            "proto/src/{file} is not what the .proto files generate; run: REGENERATE=1 cargo test -p proto"
        );
    }
}

/// A file more or less than expected means a new package that `lib.rs` does not include.
#[test]
fn the_proto_files_generate_exactly_the_committed_files() {
    let fresh = tempfile::tempdir().expect("a temporary directory");
    generate(fresh.path());
    let mut names: Vec<String> = fs::read_dir(fresh.path())
        .expect("readable")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected = FILES.to_vec();
    expected.sort_unstable();
    assert_eq!(names, expected);
}
