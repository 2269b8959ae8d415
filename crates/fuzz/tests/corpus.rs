//! Every target survives the kept corpus and some changed inputs, within a bound of memory.

#![expect(
    clippy::unwrap_used,
    reason = "parts of tests outside of test functions"
)]

use std::path::Path;

use fuzz::{Target, campaign, corpus};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the whole process may map, in bytes. An allocation that a few bytes talked a decoder into ends the process.
const MEMORY_BYTES: u64 = 1 << 30;
/// What the corpus may take in the repository, in bytes.
const CORPUS_BYTES_MAX: usize = 500_000;

fn survives(target: &Target) {
    let kept = corpus::read(target).unwrap();
    assert!(!kept.is_empty(), "{} has no corpus", target.name);
    if let Err(broken) = campaign::quick(target, &kept) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target.name);
        let path = corpus::keep(&folder, &broken.input).unwrap();
        let (name, message) = (broken.target, broken.message);
        panic!("{name}: {} breaks it: {message}", path.display());
    }
}

#[test]
fn no_bytes_break_a_promise() {
    let before = getrlimit(Resource::As);
    let limit = Rlimit {
        current: Some(MEMORY_BYTES),
        ..before
    };
    setrlimit(Resource::As, limit).unwrap();
    for target in fuzz::targets() {
        survives(&target);
    }
}

#[test]
fn the_corpus_is_small_and_has_no_folder_of_a_target_that_is_gone() {
    let all = fuzz::targets();
    let bytes: usize = all
        .iter()
        .flat_map(|target| corpus::read(target).unwrap())
        .map(|input| input.len())
        .sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
    let first = corpus::folder(&all[0]);
    let folder = first.parent().unwrap();
    for entry in vfs::Vfs::list_dir(&vfs::RealDisk::new(), folder).unwrap() {
        let name = entry.name.to_string_lossy().into_owned();
        assert!(fuzz::target(&name).is_some(), "corpus of {name}");
    }
}
