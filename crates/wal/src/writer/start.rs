//! Making a log that was read ready to be written.

use std::{path::Path, sync::Arc};

use vfs::{TwoSlot, Vfs, durable};

use super::{Active, Fault, Reserved, Tip, Writer, files::Prepared};
use crate::{
    codec::Encoder,
    error::OpenError,
    format::{HEADER_BYTES, INITIAL_CHAIN, MARK_FILE, MARK_MAGIC, MARK_SLOT_BYTES, Mark, Op},
    options::WalOptions,
    recover::{OpenSegment, Recovered},
    reserve::Reserve,
    segment,
    state::{State, Written},
    types::{GroupId, Identity, Place},
};

/// Begins a fresh segment behind what is durable, with the state of all groups and whatever follows the
/// durable part, written again: the page cache may show what the disk does not hold. Nothing of the old
/// segments is changed before the new one is durable and marked. On a full disk the reserve gives way.
pub(crate) fn start(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    identity: Identity,
    options: WalOptions,
    reserve: &Reserve,
    log: Recovered,
) -> Result<(Writer, State), OpenError> {
    let none = Place {
        segment: 0,
        offset: 0,
    };
    let (durable, chain) = log.durable.unwrap_or((none, INITIAL_CHAIN));
    for number in &log.leftovers {
        vfs.remove_file(&segment::path(dir, *number))?;
    }
    let oldest = log.segments.keys().next().copied();
    let mark = Mark {
        identity,
        oldest: oldest.unwrap_or(durable.segment + 1),
        durable,
        votes: log
            .mark
            .as_ref()
            .map_or(Vec::new(), |mark| mark.votes.clone()),
    };
    // Also makes the removals durable, for it syncs the directory.
    let slots = reserve.making_room(vfs.as_ref(), || {
        create_mark(vfs.as_ref(), dir, log.mark_sequence + 1, &mark)
    })?;
    let dictionary = log.dictionaries.newest();
    let encoder = Encoder::new(&options, &log.dictionaries, dictionary);
    let encoder = encoder.map_err(|source| vfs::Error::new(vfs::Op::Read, dir, source))?;
    let mut writer = Writer {
        active: Active {
            number: durable.segment,
            file: Arc::from(vfs.open_read(&dir.join(MARK_FILE))?),
            seed: 0,
            tip: Tip {
                end: HEADER_BYTES as u64,
                chain,
                batches: 0,
            },
            reserved: Reserved::default(),
        },
        vfs,
        dir: dir.to_owned(),
        identity,
        options,
        encoder,
        dictionary,
        metas: log.metas,
        slots,
        mark,
        broken: false,
    };
    let disk = Arc::clone(&writer.vfs);
    let written = reserve.making_room(disk.as_ref(), || {
        writer.first_segment(durable, chain, &log.tail)
    })?;
    for (group, op) in &log.tail {
        writer.apply(*group, op);
    }
    // The old copy of the tail is cut next, and the new segment holds the only other one.
    writer.write_mark_twice(writer.mark.oldest, writer.active.place())?;
    writer.cut_previous(durable)?;
    let mut state = State {
        groups: log.groups,
        next_ticket: log.next_ticket,
        ..State::default()
    };
    for (number, open) in log.segments {
        state.add_segment(number, open);
    }
    state.add_segment(writer.active.number, writer.open_segment());
    state.count_live();
    state.complete(&mut [], &written, 0);
    Ok((writer, state))
}

fn create_mark(vfs: &dyn Vfs, dir: &Path, sequence: u64, mark: &Mark) -> vfs::Result<TwoSlot> {
    let path = dir.join(MARK_FILE);
    let body = mark.encode();
    let mut slots = TwoSlot::create(vfs, &path, MARK_MAGIC, MARK_SLOT_BYTES, sequence, &body)?;
    // A start that goes no further leaves both.
    slots.write(&body)?;
    durable::remove_temporaries(vfs, dir)?;
    Ok(slots)
}

impl Writer {
    fn first_segment(
        &mut self,
        durable: Place,
        chain: u32,
        tail: &[(GroupId, Op)],
    ) -> vfs::Result<Vec<Written>> {
        let tail: Vec<Prepared> = tail
            .iter()
            .map(|(group, op)| self.prepare(*group, op))
            .collect();
        match self.create_segment(durable, chain, &tail) {
            Ok((active, written)) => {
                self.active = active;
                Ok(written)
            }
            Err(Fault::Fatal(error)) => Err(error),
            Err(Fault::Full) => {
                let path = segment::path(&self.dir, durable.segment + 1);
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(vfs::Error::new(vfs::Op::Write, &path, source))
            }
        }
    }

    /// Cuts what the new segment replaces, so that no scan meets it.
    fn cut_previous(&self, durable: Place) -> vfs::Result<()> {
        if durable.segment == 0 {
            return Ok(());
        }
        let path = segment::path(&self.dir, durable.segment);
        let file = self.vfs.open_write(&path)?;
        if file.len()? > durable.offset {
            file.truncate(durable.offset)?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// The active segment for readers.
    pub(super) fn open_segment(&self) -> OpenSegment {
        OpenSegment {
            file: Arc::clone(&self.active.file),
            seed: self.active.seed,
            dictionary: self.dictionary,
            end: self.active.tip.end,
        }
    }

    /// Follows a change that is on disk.
    pub(super) fn apply(&mut self, group: GroupId, op: &Op) {
        if matches!(op, Op::Remove) {
            self.metas.remove(&group);
        } else {
            self.metas.entry(group).or_default().apply(op);
        }
    }
}
