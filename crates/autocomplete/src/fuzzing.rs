//! A door to the readers of files to be loaded and of the files beside a cluster and a load, and to what is shown of completions, for
//! `crates/fuzz`.

use std::path::Path;

use api::v1::GetTopKResponse;
use serde_json::Value;
use vfs::Vfs;

use crate::commands::top;
use crate::{load, typing, up};

/// The number of a line, and the term and the count that it records, or why it is not taken.
pub type LoadedLine = (u64, Result<(String, u64), String>);

/// Reads a text as `load` does, columns being found by themselves: each line that is not empty.
#[must_use]
pub fn load_lines(text: &[u8]) -> Vec<LoadedLine> {
    load::lines_of(text)
}

/// Of the cluster whose `cluster.json` this is: shards, replicas of each, and servers; nothing if it is refused.
#[must_use]
pub fn cluster_file(text: &[u8]) -> Option<[usize; 3]> {
    up::numbers_of(text)
}

/// Goes on with the state of a load as the next batch of it does, twice, the second time begun again: how far all is settled and
/// which time it is that the file is meant to count, before and after. Nothing if the state is refused.
#[must_use]
pub fn load_goes_on(vfs: &dyn Vfs, path: &Path) -> Option<[(u64, u64); 3]> {
    load::goes_on(vfs, path)
}

/// What `top --json` prints of an answer.
#[must_use]
pub fn top_json(answer: &GetTopKResponse) -> Value {
    top::as_json(answer)
}

/// What is in an empty line of `top -i` after an answer, so many steps down its list and the key that completes.
#[must_use]
pub fn completed(answer: GetTopKResponse, steps: usize) -> String {
    typing::completed(answer, steps)
}
