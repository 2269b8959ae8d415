//! The one place that writes to segments.
//!
//! One round takes what waits, encodes it as one batch that ends with a marker, writes it at the end of the
//! active segment and syncs once. Where that fails for want of space, the file is cut back to the end of
//! the last batch and synced, so that no torn record stays, and the round is tried again with
//! the reserve. Any other failure poisons the log: nobody knows what is durable, and a second sync would lie.

mod files;
mod reserved;
mod round;
mod start;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use vfs::{TwoSlot, Vfs, VfsFile};

use crate::{
    codec::Encoder,
    format::{GroupMeta, Mark},
    options::WalOptions,
    types::{GroupId, Identity, Place},
};

use reserved::Reserved;
pub(crate) use start::start;

/// What only the writer knows.
#[derive(Debug)]
pub(crate) struct Writer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    identity: Identity,
    options: WalOptions,
    encoder: Encoder,
    /// The dictionary of new segments; 0 for none.
    dictionary: u32,
    active: Active,
    /// The groups as of the last batch on disk.
    metas: BTreeMap<GroupId, GroupMeta>,
    slots: TwoSlot,
    mark: Mark,
    /// A write or sync failed; nothing may be written any more.
    broken: bool,
}

/// The segment that is being written.
#[derive(Debug, Clone)]
struct Active {
    number: u64,
    file: Arc<dyn VfsFile>,
    seed: u32,
    tip: Tip,
    reserved: Reserved,
}

/// How far a segment was written. All of it is durable.
#[derive(Debug, Clone, Copy)]
struct Tip {
    /// The end of the last batch.
    end: u64,
    chain: u32,
    batches: u64,
}

impl Active {
    const fn place(&self) -> Place {
        Place {
            segment: self.number,
            offset: self.tip.end,
        }
    }
}

/// Why a batch was not written.
#[derive(Debug)]
enum Fault {
    /// No room; the segment is as it was.
    Full,
    /// Nobody knows what is durable.
    Fatal(vfs::Error),
}

impl From<vfs::Error> for Fault {
    fn from(error: vfs::Error) -> Self {
        Self::Fatal(error)
    }
}
