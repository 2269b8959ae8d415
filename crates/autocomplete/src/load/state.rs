//! The state of a load on this machine: how its lines are read, when its batches were first sent, and how far all are settled.
//!
//! What always holds:
//! - A batch is sent only when the time of its first try is on disk, so every repetition finds the same time.
//! - `done_below` on disk never runs ahead of the truth: every batch below it was answered.
//! - A load is gone on with only as it was begun: read otherwise, the file has other batches under the same numbers.
//!
//! Written whole, by rename, at most once for [`RESERVED_BATCHES`] batches. A file that cannot be read stops the load; it is never taken
//! for a fresh one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vfs::{LockGuard, Vfs, durable};

use super::args::Format;
use crate::exit::usage;

/// Batches whose time of first try is fixed together: a million lines.
pub(super) const RESERVED_BATCHES: u64 = 1_000;

/// The version of a file that says how lines are read.
const VERSION: u32 = 2;

/// Above every number that counting gets to, and far enough below the last number of all to count on from it.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// More than a thousand reserved ranges take; a larger file is not ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// For people.
    file: String,
    /// Absent in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// Which time that the file is meant to count.
    again: u64,
    /// All batches below are answered.
    done_below: u64,
    /// Ascending, without gaps; the first may begin below `done_below`.
    reserved: Vec<Reserved>,
}

impl Content {
    fn new(file: &Path, format: Format) -> Self {
        Self {
            version: VERSION,
            file: file.to_string_lossy().into_owned(),
            format: Some(format),
            again: 0,
            done_below: 0,
            reserved: Vec::new(),
        }
    }

    /// What a file says.
    ///
    /// # Errors
    /// When it was not written here, or by a newer program.
    fn read(path: &Path, text: &[u8]) -> Result<Self, anyhow::Error> {
        let content: Self = serde_json::from_slice(text)
            .with_context(|| format!("the state file {} is damaged", path.display()))?;
        anyhow::ensure!(
            (1..=VERSION).contains(&content.version),
            "the state file {} has version {}, this program knows 1 to {VERSION}",
            path.display(),
            content.version
        );
        anyhow::ensure!(
            content.version < VERSION || content.format.is_some(),
            "the state file {} is damaged: it does not say how lines are read",
            path.display()
        );
        anyhow::ensure!(
            content.is_possible(),
            "the state file {} is damaged: its numbers make no sense",
            path.display()
        );
        Ok(content)
    }

    /// The same load, to be gone on with. One of version 1 stays so for now: which format it was begun with nobody knows, before the cluster
    /// has taken something in it.
    ///
    /// # Errors
    /// When batches of it were sent that held lines as another format reads them.
    fn go_on(self, format: Format) -> Result<Self, anyhow::Error> {
        let is_begun = self.done_below > 0 || !self.reserved.is_empty();
        match self.format {
            Some(known) if is_begun && known != format => {
                let (known, asked) = (known.as_str(), format.as_str());
                Err(usage(format!(
                    "this file was loaded with --format {known}, and --format {asked} may find other terms in its lines: \
                     give --format {known} to go on with that load, or --again to count the whole file once more"
                )))
            }
            None if is_begun => Ok(self),
            Some(_) | None => Ok(Self {
                version: VERSION,
                format: Some(format),
                ..self
            }),
        }
    }

    /// Whether it may have been written here.
    fn is_possible(&self) -> bool {
        let ranges = &self.reserved;
        let ascends = ranges.iter().all(|range| range.from < range.to);
        let has_no_gap = ranges.windows(2).all(|pair| match pair {
            [one, next] => one.to == next.from,
            _ => true,
        });
        let last = ranges.last().map_or(0, |range| range.to);
        let highest = self.again.max(self.done_below).max(last);
        // What is answered was reserved, and what is settled as a whole is not kept.
        let is_current = ranges
            .first()
            .is_none_or(|first| (first.from..first.to).contains(&self.done_below));
        ascends && has_no_gap && is_current && highest <= NUMBER_MAX
    }
}

/// Some batches that were first sent at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reserved {
    from: u64,
    to: u64,
    issued_at_ms: i64,
}

/// The state of one load; nobody else can use it meanwhile.
#[derive(Debug)]
pub(super) struct LoadState {
    path: PathBuf,
    content: Content,
    /// How lines are read now.
    format: Format,
    _lock: LockGuard,
}

impl LoadState {
    /// Takes up an earlier load, or begins.
    ///
    /// # Errors
    /// A [`Usage`](crate::exit::Usage) when the earlier load read lines in another format.
    pub(super) fn open(
        vfs: &dyn Vfs,
        path: &Path,
        file: &Path,
        format: Format,
    ) -> Result<Self, anyhow::Error> {
        Self::with(vfs, path, file, format, |found| found.go_on(format))
    }

    /// Begins anew, whatever was loaded before.
    pub(super) fn begin_again(
        vfs: &dyn Vfs,
        path: &Path,
        file: &Path,
        format: Format,
    ) -> Result<Self, anyhow::Error> {
        let state = Self::with(vfs, path, file, format, |found| {
            Ok(Content {
                version: VERSION,
                format: Some(format),
                again: found.again + 1,
                done_below: 0,
                reserved: Vec::new(),
                ..found
            })
        })?;
        // Before anything is sent: a repetition of this command without --again must go on with this one.
        state.write(vfs)?;
        Ok(state)
    }

    fn with(
        vfs: &dyn Vfs,
        path: &Path,
        file: &Path,
        format: Format,
        change: impl FnOnce(Content) -> Result<Content, anyhow::Error>,
    ) -> Result<Self, anyhow::Error> {
        durable::create_dir(vfs, durable::parent(path))?;
        let lock = vfs
            .lock_file(&path.with_extension("lock"))
            .map_err(|error| {
                if error.is_locked() {
                    return anyhow::anyhow!("this file is being loaded by another process");
                }
                error.into()
            })?;
        let content = if vfs.exists(path)? {
            Content::read(path, &durable::read(vfs, path, FILE_BYTES_MAX)?)?
        } else {
            Content::new(file, format)
        };
        Ok(Self {
            path: path.to_owned(),
            content: change(content)?,
            format,
            _lock: lock,
        })
    }

    /// Which time that the file is meant to count.
    pub(super) fn again(&self) -> u64 {
        self.content.again
    }

    /// All batches below need not be sent.
    pub(super) fn done_below(&self) -> u64 {
        self.content.done_below
    }

    /// When a batch was first sent, if that is fixed.
    pub(super) fn issued_at_ms(&self, batch: u64) -> Option<i64> {
        let range = self
            .content
            .reserved
            .iter()
            .find(|range| (range.from..range.to).contains(&batch))?;
        Some(range.issued_at_ms)
    }

    /// Fixes the time of the batches from `batch` on; returns when it is on disk.
    pub(super) fn reserve(
        &mut self,
        vfs: &dyn Vfs,
        batch: u64,
        now_ms: i64,
        done_below: u64,
    ) -> Result<(), anyhow::Error> {
        let from = self.content.reserved.last().map_or(batch, |last| last.to);
        self.content.reserved.push(Reserved {
            from,
            to: batch + RESERVED_BATCHES,
            issued_at_ms: now_ms,
        });
        self.done(vfs, done_below)
    }

    /// Notes that all batches below are answered; returns when it is on disk.
    pub(super) fn done(&mut self, vfs: &dyn Vfs, done_below: u64) -> Result<(), anyhow::Error> {
        if done_below > self.content.done_below && self.content.format.is_none() {
            self.content.version = VERSION;
            self.content.format = Some(self.format);
        }
        self.content.done_below = self.content.done_below.max(done_below);
        let done_below = self.content.done_below;
        self.content.reserved.retain(|range| range.to > done_below);
        self.write(vfs)
    }

    fn write(&self, vfs: &dyn Vfs) -> Result<(), anyhow::Error> {
        let bytes = serde_json::to_vec_pretty(&self.content)?;
        durable::replace(vfs, &self.path, &bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
