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
    // It may be in the page cache only, and who is refused now must not be believed after a loss of power.
    vfs.sync_dir(dir)?;
    let said = durable::read(vfs, &path, NOTE_BYTES_MAX).unwrap_or_default();
    Err(OpenError::SetBack {
        dir: dir.to_owned(),
        problem: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

/// Writes the note, durably.
fn note(vfs: &dyn Vfs, dir: &Path, reason: &str) -> Result<(), vfs::Error> {
    durable::replace(vfs, &dir.join(FILE), format!("{reason}\n").as_bytes())
}

impl Inner {
    /// Where it cannot be written, the next start is told again.
    pub(super) async fn note_set_back(&self, reason: &str) {
        let (vfs, dir) = (Arc::clone(&self.vfs), self.log_dir.clone());
        let reason = reason.to_owned();
        let write = move || note(vfs.as_ref(), &dir, &reason);
        let written = self.runtime.spawn_blocking("set-back-note", write).await;
        let written = written
            .map_err(io::Error::other)
            .and_then(|written| Ok(written?));
        if let Err(error) = written {
            tracing::error!(%error, "the log could not be marked as set back");
        }
    }
}

#[cfg(test)]
mod tests {
    use vfs::SimDisk;
    use vfs::sim::every_mishap_twice;

    use super::*;

    const REASON: &str = "node 2 lost what it had";

    fn dir() -> &'static Path {
        Path::new("/wal")
    }

    /// Whether a start is refused because of the note, and what it says of why.
    fn refused(disk: &SimDisk) -> Result<Option<String>, OpenError> {
        match check(disk, dir()) {
            Ok(()) => Ok(None),
            Err(OpenError::SetBack { problem, .. }) => Ok(Some(problem)),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn whatever_goes_wrong_while_a_log_is_marked_who_was_refused_once_is_refused_for_ever() {
        let disk = SimDisk::new();
        durable::create_dir(&disk, dir()).unwrap();
        let runs = every_mishap_twice(
            &disk,
            &false,
            |disk: &SimDisk, is_marked: &mut bool| {
                note(disk, dir(), REASON)?;
                *is_marked = true;
                Ok::<(), OpenError>(())
            },
            |disk, is_marked| {
                let is_refused = refused(disk)?.is_some();
                assert!(is_refused || !*is_marked);
                *is_marked = is_refused;
                Ok(())
            },
            |image, is_marked, what| {
                let found = refused(image).unwrap();
                assert!(found.is_some() || !*is_marked, "{what:?}");
                assert!(found.as_ref().is_none_or(|said| said == REASON));
                let after = image.crash_losing_all();
                assert_eq!(refused(&after).unwrap(), found, "{what:?}");
                note(&after, dir(), REASON).unwrap();
                let after = after.crash_losing_all();
                assert_eq!(refused(&after).unwrap().as_deref(), Some(REASON));
            },
        );
        assert!(runs > 100, "{runs} runs");
    }
}
