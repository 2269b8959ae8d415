//! A durable note that the log beside it is older than it was, as other nodes have said ([`crate::network::Standings`]).
//!
//! Such a log verifies, and its next start would serve from it until it is told again. The note refuses that start, so that the node is
//! rebuilt as one with a rotten log is. It goes where the log goes when the data are set aside. That the file is there is what counts;
//! what it says is for people.

use std::io;
use std::path::Path;
use std::sync::Arc;

use vfs::{Vfs, durable};

use super::Inner;
use crate::OpenError;

const FILE: &str = "set-back";
const NOTE_BYTES_MAX: u64 = 4 << 10;

/// Refuses a log that others have said to be older than it was.
pub(super) fn check(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(FILE);
    if !vfs.exists(&path)? {
        return Ok(());
    }
    let said = durable::read(vfs, &path, NOTE_BYTES_MAX).unwrap_or_default();
    Err(OpenError::SetBack {
        dir: dir.to_owned(),
        problem: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

impl Inner {
    /// Where it cannot be written, the next start is told again.
    pub(super) async fn note_set_back(&self, reason: &str) {
        let (vfs, path) = (Arc::clone(&self.vfs), self.log_dir.join(FILE));
        let text = format!("{reason}\n");
        let write = move || durable::replace(vfs.as_ref(), &path, text.as_bytes());
        let written = self.runtime.spawn_blocking("set-back-note", write).await;
        let written = written
            .map_err(io::Error::other)
            .and_then(|written| Ok(written?));
        if let Err(error) = written {
            tracing::error!(%error, "the log could not be marked as set back");
        }
    }
}
