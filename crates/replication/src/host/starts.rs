//! A durable list of the starts from a log: which lives of a process it has had, and how far it reached when each began.
//!
//! By it a node knows whether what others have heard of it was there when the next of its starts looked, however many starts came
//! since. Places alone do not say so, for each start begins another segment: what an older copy of a log writes in the end lies behind what
//! the newer one had. A start is in the list before anything is written to the log or told to anybody, so that a life that is not in it is none
//! that this copy of the log has had.
//!
//! The list lies beside the segments, in two slots of which both are written, and takes its space when the log is created. One that is missing
//! or damaged is begun anew: lives that others remember are then unknown, which is what a log is that has lost something. One of a later
//! version is refused.
//!
//! The body of a slot: version 1 (2 bytes), 0 (2), number of starts (4), then each start, oldest first: life (8), segment (8), offset (8),
//! little endian. Of more than [`STARTS_MAX`] the newest are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::{TwoSlot, Vfs};
use wal::{Place, RecoveryReport, Wal, WalOptions, Writer};

use super::voters::version_of;
use crate::OpenError;

const FILE: &str = "starts";
const MAGIC: [u8; 8] = *b"ACSTARTS";
const VERSION: u16 = 1;
const SLOT_BYTES: u64 = 4 << 10;
const FIXED_BYTES: usize = 8;
const START_BYTES: usize = 24;
/// Starts that are remembered.
const STARTS_MAX: usize = 128;
/// Starts that are counted; nobody gets there. Lives of programs that did not count were drawn from far above, mostly.
const NUMBER_MAX: u64 = 1 << 24;

/// A start from a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Names the process that began with it: its number in the upper half, and a drawn one in the lower.
    pub(crate) life: u64,
    /// How far the log reached.
    pub(crate) found: Place,
}

/// The number of the start that a life began with, from 1 on; `None` for lives that were not counted.
pub(crate) fn number_of(life: u64) -> Option<u64> {
    Some(life >> 32).filter(|number| (1..=NUMBER_MAX).contains(number))
}

/// Opens a log, and adds this start to its list before anything is written to it. `drawn` tells lives of two copies of a log apart.
pub(crate) fn open_log(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    owner: wal::Identity,
    options: WalOptions,
    writer: Writer,
    drawn: u32,
) -> Result<(Wal, RecoveryReport, Starts), OpenError> {
    let before = FoundStarts::read(vfs.as_ref(), dir)?;
    let mut starts = Starts::default();
    let note = |found| {
        starts = before.begin(vfs.as_ref(), found, drawn)?;
        Ok(())
    };
    let (wal, report) = Wal::open_noting(Arc::clone(vfs), dir, owner, options, writer, note)?;
    Ok((wal, report, starts))
}

/// What the list says before the log is opened.
#[derive(Debug)]
pub(crate) struct FoundStarts {
    path: PathBuf,
    /// The file is there and sound, so that it can be written in place.
    is_sound: bool,
    list: Vec<Start>,
}

impl FoundStarts {
    /// Reads the list in a log's directory.
    pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        if !vfs.exists(&path)? {
            return Ok(Self {
                path,
                is_sound: false,
                list: Vec::new(),
            });
        }
        let found = TwoSlot::read(vfs, &path, MAGIC, SLOT_BYTES)?;
        let body = found.body.unwrap_or_default();
        if let Some(version) = version_of(&body).filter(|version| *version > VERSION) {
            return Err(OpenError::NewerFormat {
                path,
                version: version.into(),
                known: VERSION.into(),
            });
        }
        let list = decode(&body);
        if list.is_none() {
            tracing::error!(path = %path.display(), "the list of starts is damaged and is begun anew");
        }
        Ok(Self {
            path,
            is_sound: list.is_some() && found.unreadable == 0,
            list: list.unwrap_or_default(),
        })
    }

    /// Adds the present start, durably.
    pub(crate) fn begin(
        mut self,
        vfs: &dyn Vfs,
        found: Place,
        drawn: u32,
    ) -> Result<Starts, vfs::Error> {
        let number = self.list.last().and_then(|last| number_of(last.life));
        let number = number.map_or(1, |last| (last + 1).min(NUMBER_MAX));
        let life = (number << 32) | u64::from(drawn);
        if self.list.len() >= STARTS_MAX {
            self.list.remove(0);
        }
        self.list.push(Start { life, found });
        let body = encode(&self.list);
        let mut slots = if self.is_sound {
            TwoSlot::open(vfs, &self.path, MAGIC, SLOT_BYTES)?.0
        } else {
            TwoSlot::create(vfs, &self.path, MAGIC, SLOT_BYTES, 1, &body)?
        };
        // Both slots, so that one that rots does not take the newest start back.
        for _slot in 0..2 {
            slots.write(&body)?;
        }
        Ok(Starts(self.list))
    }
}

/// The starts from a log, the present one last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Starts(Vec<Start>);

impl Starts {
    /// The start of this process.
    pub(crate) fn present(&self) -> Start {
        self.0.last().copied().unwrap_or(Start {
            life: 0,
            found: Place::default(),
        })
    }

    /// The life of each start and what it found, oldest first.
    pub(crate) fn all(&self) -> Vec<(u64, Place)> {
        let starts = self.0.iter();
        starts.map(|start| (start.life, start.found)).collect()
    }

    /// How far the log reached when the start after a life looked, which must be as far as that life has said. The beginning of all for
    /// a life that this log has not had.
    pub(crate) fn found_after(&self, life: u64) -> Place {
        let mut starts = self.0.iter();
        if starts.any(|start| start.life == life) {
            let next = starts.next();
            return next.map_or_else(Place::default, |start| start.found);
        }
        let Some(number) = number_of(life) else {
            return self.present().found;
        };
        // A life before the oldest start known is forgotten here; whatever it said lies before what that start found.
        let oldest = self.0.first();
        let later =
            oldest.filter(|start| number_of(start.life).is_some_and(|first| number < first));
        later.map_or_else(Place::default, |start| start.found)
    }
}

fn encode(list: &[Start]) -> Vec<u8> {
    let mut body = Vec::with_capacity(FIXED_BYTES + START_BYTES * list.len());
    body.extend(VERSION.to_le_bytes());
    body.extend([0; 2]);
    body.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes());
    for start in list {
        body.extend(start.life.to_le_bytes());
        body.extend(start.found.segment.to_le_bytes());
        body.extend(start.found.offset.to_le_bytes());
    }
    body
}

fn decode(body: &[u8]) -> Option<Vec<Start>> {
    let ([_, _, _, _, count @ ..], rest) = body.split_first_chunk::<FIXED_BYTES>()?;
    let (starts, odd) = rest.as_chunks::<START_BYTES>();
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let whole = version_of(body) == Some(VERSION)
        && odd.is_empty()
        && starts.len() == count
        && (1..=STARTS_MAX).contains(&count);
    let start = |bytes: &[u8; START_BYTES]| {
        let (numbers, _) = bytes.as_chunks::<8>();
        let [life, segment, offset] = numbers else {
            return None;
        };
        Some(Start {
            life: u64::from_le_bytes(*life),
            found: Place {
                segment: u64::from_le_bytes(*segment),
                offset: u64::from_le_bytes(*offset),
            },
        })
    };
    whole.then(|| starts.iter().map(start).collect())?
}

#[cfg(test)]
mod tests {
    use vfs::SimDisk;
    use vfs::sim::{every_mishap, every_mishap_twice};

    use super::*;

    fn dir() -> &'static Path {
        Path::new("/wal")
    }

    fn disk() -> SimDisk {
        let disk = SimDisk::new();
        vfs::durable::create_dir(&disk, dir()).unwrap();
        disk
    }

    const fn at(segment: u64, offset: u64) -> Place {
        Place { segment, offset }
    }

    fn begin(disk: &SimDisk, found: Place, drawn: u32) -> Starts {
        let list = FoundStarts::read(disk, dir()).unwrap();
        list.begin(disk, found, drawn).unwrap()
    }

    #[test]
    fn each_life_is_followed_by_what_the_next_start_found() {
        let disk = disk();
        let first = begin(&disk, Place::default(), 7);
        assert_eq!(first.present().life, (1 << 32) | 7);
        let second = begin(&disk.crash_losing_all(), at(1, 900), 8);
        assert_eq!(number_of(second.present().life), Some(2));
        assert_eq!(second.found_after(first.present().life), at(1, 900));
        let disk = disk.crash_losing_all();
        let second = begin(&disk, at(1, 900), 8);
        let third = begin(&disk.restart(), at(2, 50), 9);
        assert_eq!(third.found_after(first.present().life), at(1, 900));
        assert_eq!(third.found_after(second.present().life), at(2, 50));
        // Of another copy of the log, and of one that was further on.
        assert_eq!(third.found_after((2 << 32) | 1), Place::default());
        assert_eq!(third.found_after((9 << 32) | 1), Place::default());
        // Of a program that did not count.
        assert_eq!(third.found_after(u64::MAX - 5), at(2, 50));
        assert_eq!(third.found_after(5), at(2, 50));
    }

    #[test]
    fn the_newest_starts_are_kept_and_older_lives_lie_before_them() {
        let disk = disk();
        let mut lives = Vec::new();
        for number in 0..STARTS_MAX as u64 + 3 {
            lives.push(begin(&disk, at(number, 0), 1).present().life);
        }
        let last = begin(&disk, at(900, 0), 1);
        let oldest = last.0[0].found;
        assert_eq!(last.0.len(), STARTS_MAX);
        assert_eq!(last.found_after(lives[0]), oldest);
        assert_eq!(last.found_after(*lives.last().unwrap()), at(900, 0));
    }

    #[test]
    fn a_slot_that_rots_takes_no_start_back_and_both_begin_anew() {
        let disk = disk();
        let first = begin(&disk, Place::default(), 7);
        let second = begin(&disk, at(1, 900), 8);
        let path = dir().join(FILE);
        for slot in [0, SLOT_BYTES] {
            let image = disk.restart();
            image.flip_bit(&path, (slot + 30) * 8).unwrap();
            let third = begin(&image, at(2, 50), 9);
            assert_eq!(third.found_after(second.present().life), at(2, 50));
            let image = disk.restart();
            image.make_unreadable(&path, slot..slot + 600).unwrap();
            let third = begin(&image, at(2, 50), 9);
            assert_eq!(third.found_after(first.present().life), at(1, 900));
        }
        for slot in [0, SLOT_BYTES] {
            disk.flip_bit(&path, (slot + 30) * 8).unwrap();
        }
        let third = begin(&disk, at(2, 50), 9);
        assert_eq!(number_of(third.present().life), Some(1));
        assert_eq!(third.found_after(second.present().life), Place::default());
    }

    #[test]
    fn a_newer_list_is_refused() {
        let disk = disk();
        let mut body = encode(&[Start {
            life: 1 << 32,
            found: at(1, 1),
        }]);
        body[0] = 2;
        let path = dir().join(FILE);
        TwoSlot::create(&disk, &path, MAGIC, SLOT_BYTES, 1, &body).unwrap();
        let before = disk.contents(&path).unwrap();
        let error = FoundStarts::read(&disk, dir()).unwrap_err();
        assert!(
            matches!(
                &error,
                OpenError::NewerFormat {
                    version: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(disk.contents(&path).unwrap(), before);
    }

    /// A start that breaks off was told to nobody; the lives that were told stay known, and are followed by what the next start found.
    #[test]
    fn whatever_goes_wrong_in_two_starts_no_life_that_was_told_is_forgotten() {
        let before = disk();
        let first = begin(&before, Place::default(), 7).present().life;
        let add = |disk: &SimDisk, lives: &mut Vec<u64>, drawn| {
            let starts = FoundStarts::read(disk, dir())?.begin(disk, at(1, 900), drawn)?;
            lives.push(starts.present().life);
            Ok::<(), OpenError>(())
        };
        let runs = every_mishap_twice(
            &before,
            &vec![first],
            |disk: &SimDisk, lives: &mut Vec<u64>| add(disk, lives, 8),
            |disk, lives| add(disk, lives, 9),
            |image, lives, what| {
                let next = begin(image, at(1, 900), 10);
                let last = begin(&image.crash_losing_all(), at(1, 900), 11);
                for life in lives {
                    assert_eq!(next.found_after(*life), at(1, 900), "{what:?}");
                    assert_eq!(last.found_after(*life), at(1, 900), "{what:?}");
                }
                let next = next.present().life;
                assert_eq!(last.found_after(next), at(1, 900), "{what:?}");
            },
        );
        assert!(runs > 500, "{runs} runs");
    }

    /// From the very first on: the name of the list is durable before anybody is told of a life.
    #[test]
    fn every_call_of_opening_a_log_fails_once_and_no_life_that_was_told_is_forgotten() {
        let open = |disk: &SimDisk, drawn| {
            let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
            let owner = wal::Identity {
                cluster_id: [7; 16],
                node_id: 1,
            };
            let options = WalOptions::small();
            open_log(&vfs, dir(), owner, options, Writer::Inline, drawn)
        };
        let empty = SimDisk::new();
        let runs = every_mishap(&empty, |disk| {
            let mut lives = Vec::new();
            // One process after another, whatever became of the first.
            for drawn in [7, 8] {
                if let Ok((_, _, starts)) = open(disk, drawn) {
                    lives.push(starts.present().life);
                }
            }
            lives
        });
        for run in runs {
            for image in run.images() {
                let (_, _, next) = open(&image, 9).unwrap();
                let (_, _, last) = open(&image.crash_losing_all(), 10).unwrap();
                let known = last.all();
                let is_known = |life: &u64| known.iter().any(|(known, _)| known == life);
                assert!(run.outcome.iter().all(is_known), "{:?}", run.mishap);
                assert!(is_known(&next.present().life), "{:?}", run.mishap);
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_read_or_refused() {
        let list = [
            Start {
                life: (1 << 32) | 5,
                found: at(0, 0),
            },
            Start {
                life: (2 << 32) | 6,
                found: at(3, 77),
            },
        ];
        let good = encode(&list);
        assert_eq!(decode(&good).unwrap(), list);
        for len in 0..good.len() {
            assert_eq!(decode(&good[..len]), None, "cut at {len}");
        }
        assert_eq!(decode(&encode(&[])), None);
    }
}
