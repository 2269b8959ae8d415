//! What the tests share: short ways to make records, and a model of what a log promises.
#![expect(clippy::expect_used, reason = "a test helper may panic")]
#![expect(dead_code, reason = "each test binary uses its part")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use vfs::{SimDisk, Vfs};
use wal::{
    AppendError, Entry, GroupId, GroupState, Identity, LogId, OpenError, Record, RecoveryReport,
    Vote, Wal, WalOptions, Writer,
};

pub(crate) fn dir() -> &'static Path {
    Path::new("/log")
}

pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: *b"a test's cluster",
        node_id: 7,
    }
}

pub(crate) fn open_with(
    disk: &SimDisk,
    options: WalOptions,
) -> Result<(Wal, RecoveryReport), OpenError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    Wal::open(vfs, dir(), identity(), options, Writer::Inline)
}

pub(crate) fn open(disk: &SimDisk) -> (Wal, RecoveryReport) {
    open_with(disk, WalOptions::small()).expect("log opens")
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: 1,
        index,
    }
}

pub(crate) fn entry(term: u64, index: u64, payload: &[u8]) -> Record {
    Record::Entry(Entry {
        id: id(term, index),
        kind: 3,
        payload: Bytes::copy_from_slice(payload),
    })
}

pub(crate) fn vote(term: u64) -> Record {
    Record::Vote(Vote {
        term,
        node: 2,
        committed: false,
    })
}

/// A payload that differs for each place.
pub(crate) fn payload(group: u64, index: u64, len: usize) -> Vec<u8> {
    let mut state = group.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        })
        .collect()
}

pub(crate) type Outcome = Arc<Mutex<Option<Result<(), AppendError>>>>;

/// A thread's work that has not begun.
pub(crate) type Work = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Appends and gives the place where the outcome will be.
pub(crate) fn append(wal: &Wal, group: u64, batch: Vec<Record>) -> Outcome {
    let outcome = Outcome::default();
    let told = Arc::clone(&outcome);
    let done = Box::new(move |result| {
        let before = told.lock().replace(result);
        assert!(before.is_none(), "told twice");
    });
    wal.append(GroupId(group), batch, done);
    outcome
}

/// All entries of all groups.
pub(crate) fn contents(wal: &Wal) -> BTreeMap<u64, Vec<Entry>> {
    let groups = wal.groups().into_iter();
    groups
        .map(|group| {
            let entries = wal.read(group, 0..u64::MAX, u64::MAX).expect("readable");
            (group.0, entries)
        })
        .collect()
}

/// Batches that between them do all there is to do, over several segments.
pub(crate) fn script() -> Vec<(u64, Vec<Record>)> {
    let purge = |term, index| Record::Purge {
        upto: id(term, index),
        chain: None,
    };
    let text = |index: u64| payload(1, index, 300);
    vec![
        (1, vec![vote(1), entry(1, 0, b"")]),
        (1, vec![entry(1, 1, &text(1)), entry(1, 2, &text(2))]),
        (2, vec![entry(1, 0, &payload(2, 0, 1500))]),
        (1, vec![Record::Committed(id(1, 1))]),
        (1, vec![Record::Truncate { from_index: 2 }, vote(2)]),
        (1, vec![entry(2, 2, &text(3))]),
        (1, vec![purge(1, 1)]),
        (2, vec![entry(1, 1, &[b'z'; 3000]), entry(1, 2, b"small")]),
        (3, vec![vote(9)]),
        (2, vec![purge(1, 1)]),
        (1, vec![purge(7, 40), entry(8, 41, &text(9))]),
        (3, vec![Record::Remove]),
        (2, vec![vote(4), entry(2, 3, &payload(2, 3, 1700))]),
        (1, vec![entry(8, 42, &text(42))]),
        (2, vec![purge(2, 3)]),
        (1, vec![entry(8, 43, &payload(1, 43, 900))]),
    ]
}

/// Each file's name and content.
pub(crate) fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let entries = disk.list_dir(dir()).expect("lists");
    let read = |name: &std::ffi::OsString| disk.contents(&dir().join(name)).expect("reads");
    entries
        .into_iter()
        .map(|entry| (entry.name.to_string_lossy().into_owned(), read(&entry.name)))
        .collect()
}

/// What must be found of all groups, commit hints apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen(pub(crate) Vec<(GroupId, GroupState, Vec<Entry>)>);

pub(crate) fn seen(wal: &Wal) -> Seen {
    let mut contents = contents(wal);
    let groups = wal.groups().into_iter().map(|id| {
        let state = GroupState {
            committed: None,
            ..wal.group(id)
        };
        (id, state, contents.remove(&id.0).unwrap_or_default())
    });
    Seen(groups.collect())
}

/// Small pseudo-random numbers.
pub(crate) struct Dice(SplitMix64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
