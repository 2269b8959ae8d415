//! Compiles `proto/` without `protoc`, and keeps the descriptors (with comments) for reflection.
//!
//! The services are generated twice: once as servers, once as clients, because the two sides must judge a malformed
//! message differently (see `src/codec.rs`).
#![expect(
    clippy::disallowed_methods,
    reason = "a build script has no other way to write its output"
)]

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// Packages and where their generated code lives in this crate.
const PACKAGES: [(&str, &str); 6] = [
    (".autocomplete.v1", "crate::v1"),
    (".autocomplete.shard.v1", "crate::shard::v1"),
    (".autocomplete.raft.v1", "crate::raft::v1"),
    (".autocomplete.admin.v1", "crate::admin::v1"),
    (".autocomplete.registry.v1", "crate::registry::v1"),
    (".autocomplete.meta.v1", "crate::meta::v1"),
];

const FILES: [&str; 6] = [
    "autocomplete/v1/autocomplete.proto",
    "autocomplete/shard/v1/shard.proto",
    "autocomplete/raft/v1/raft.proto",
    "autocomplete/admin/v1/admin.proto",
    "autocomplete/registry/v1/registry.proto",
    "autocomplete/meta/v1/meta.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=build.rs");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }

    let descriptors = protox::compile(FILES, [&root])?;
    std::fs::write(
        out.join("autocomplete_descriptor.bin"),
        descriptors.encode_to_vec(),
    )?;

    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::codec::ServerCodec")
        .bytes(".")
        .out_dir(made(&out.join("server"))?)
        .compile_fds(descriptors.clone())?;

    let mut clients = tonic_prost_build::configure()
        .build_server(false)
        .codec_path("crate::codec::ClientCodec")
        .out_dir(made(&out.join("client"))?);
    for (package, module) in PACKAGES {
        clients = clients.extern_path(package, module);
    }
    clients.compile_fds(descriptors)?;
    Ok(())
}

fn made(dir: &Path) -> Result<&Path, Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    Ok(dir)
}
