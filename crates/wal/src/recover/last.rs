//! The last segment: the only one where something may be missing without anybody having lost anything.

use super::{Failure, Mode, Opened, Recovered, Replay, read_to, rot, rot_at};
use crate::{
    error::{OpenError, RotReason},
    format::{GroupMeta, HEADER_BYTES, Mark},
    options::Ambiguous,
    segment::{Batch, Damage, LaterMarker, Scanner},
    types::Place,
};

/// What follows the last complete batch.
enum End {
    Clean,
    Torn,
    Ambiguous(Damage),
}

impl Recovered {
    pub(super) fn read_last(
        &mut self,
        segment: &Opened,
        mark: &Mark,
        mode: Mode,
        replay: &mut Replay<'_>,
    ) -> Result<(), Failure> {
        let number = segment.header.number;
        let limit = match mode {
            Mode::Cut(cut) if cut.segment == number => cut.offset,
            Mode::Strict(_) | Mode::Cut(_) => u64::MAX,
        };
        let bytes = read_to(segment.file.as_ref(), number, limit)?;
        let mut scanner = Scanner::new(&bytes, number, segment.seed);
        let mut batches = Vec::new();
        let damage = loop {
            match scanner.next_batch() {
                Ok(Some(batch)) => batches.push(batch),
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        let durable = match mode {
            Mode::Strict(_) => {
                let durable = durable_offset(number, mark, &batches);
                let end = judge(&scanner, damage, durable, number)?;
                self.report_end(&bytes, &scanner, end, number, mode)?;
                durable
            }
            Mode::Cut(_) => {
                if let Some(damage) = damage {
                    return Err(rot(number, damage));
                }
                scanner.position().0
            }
        };
        self.report.found = Place {
            segment: number,
            offset: scanner.position().0,
        };
        self.replay_last(&scanner, &batches, durable, number, replay)?;
        self.add_segment(segment, durable);
        Ok(())
    }

    fn report_end(
        &mut self,
        bytes: &[u8],
        scanner: &Scanner<'_>,
        end: End,
        number: u64,
        mode: Mode,
    ) -> Result<(), Failure> {
        let (complete, _) = scanner.position();
        let used = bytes.iter().rposition(|byte| *byte != 0);
        let used = used.map_or(0, |last| last as u64 + 1);
        let lost = used.saturating_sub(complete);
        let place = |offset| Place {
            segment: number,
            offset,
        };
        match end {
            End::Clean => {}
            End::Torn => {
                self.report.torn_bytes += lost;
                self.report.torn_at = Some(place(complete));
            }
            End::Ambiguous(damage) => {
                if matches!(mode, Mode::Strict(Ambiguous::Refuse)) {
                    let place = place(damage.offset);
                    return Err(Failure::Open(OpenError::Ambiguous { place }));
                }
                self.report.ambiguous = Some(place(damage.offset));
                self.report.ambiguous_bytes = lost;
            }
        }
        Ok(())
    }

    fn replay_last(
        &mut self,
        scanner: &Scanner<'_>,
        batches: &[Batch],
        durable: u64,
        number: u64,
        replay: &mut Replay<'_>,
    ) -> Result<(), Failure> {
        let mut reached = None;
        for batch in batches.iter().filter(|batch| batch.end <= durable) {
            replay
                .batch(scanner, batch)
                .map_err(|damage| rot(number, damage))?;
            reached = Some((batch.end, batch.chain));
        }
        let empty = (HEADER_BYTES as u64, scanner.initial_chain());
        let (offset, chain) = reached.unwrap_or(empty);
        if offset != durable {
            return Err(rot_at(number, offset, RotReason::EndMissing));
        }
        let place = Place {
            segment: number,
            offset,
        };
        self.durable = Some((place, chain));
        let metas = replay.groups.iter().map(|(group, log)| (*group, log.meta));
        self.metas = metas.collect::<std::collections::BTreeMap<_, GroupMeta>>();
        for batch in batches.iter().filter(|batch| batch.end > durable) {
            let ops = replay
                .tail(scanner, batch)
                .map_err(|damage| rot(number, damage))?;
            self.tail.extend(ops);
        }
        Ok(())
    }
}

/// How far the last segment is known to be durable.
fn durable_offset(number: u64, mark: &Mark, batches: &[Batch]) -> u64 {
    let marked = batches.iter().map(|batch| batch.watermark);
    marked
        .chain([mark.durable])
        .filter(|place| place.segment == number)
        .map(|place| place.offset)
        .max()
        .unwrap_or(HEADER_BYTES as u64)
}

fn judge(
    scanner: &Scanner<'_>,
    damage: Option<Damage>,
    durable: u64,
    number: u64,
) -> Result<End, Failure> {
    let (complete, _) = scanner.position();
    let Some(damage) = damage else {
        if complete < durable {
            return Err(rot_at(number, complete, RotReason::EndMissing));
        }
        return Ok(End::Clean);
    };
    if damage.batch_start < durable {
        return Err(rot(number, damage));
    }
    let later = scanner.markers_after(damage);
    let beyond = |marker: &LaterMarker| {
        let covers = Place {
            segment: number,
            offset: damage.batch_start,
        };
        marker.batch_start != damage.batch_start || marker.watermark > covers
    };
    if later.iter().any(beyond) {
        return Err(rot(number, damage));
    }
    // What is left is the batch's own.
    let own = later.first();
    Ok(
        if own.is_none_or(|marker| scanner.lacks_sectors(damage, *marker)) {
            End::Torn
        } else {
            End::Ambiguous(damage)
        },
    )
}
