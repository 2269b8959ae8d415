//! Random work on several groups, with restarts and crashes between, against a map.
#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod common;

use std::collections::BTreeMap;

use common::{contents, entry, id, open_with, payload, vote};
use proptest::prelude::*;
use vfs::SimDisk;
use wal::{Entry, GroupId, LogId, Record, Wal, WalOptions};

#[derive(Debug, Clone)]
enum Step {
    Append {
        group: u64,
        count: u64,
        bytes: usize,
    },
    Truncate {
        group: u64,
        back: u64,
    },
    Purge {
        group: u64,
        keep: u64,
    },
    Install {
        group: u64,
        ahead: u64,
    },
    Vote {
        group: u64,
    },
    Hint {
        group: u64,
    },
    Remove {
        group: u64,
    },
    Idle,
    Restart,
    Crash {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let group = 1..4_u64;
    prop_oneof![
        8 => (group.clone(), 1..6_u64, 0..900_usize)
            .prop_map(|(group, count, bytes)| Step::Append { group, count, bytes }),
        2 => (group.clone(), 0..5_u64).prop_map(|(group, back)| Step::Truncate { group, back }),
        3 => (group.clone(), 0..8_u64).prop_map(|(group, keep)| Step::Purge { group, keep }),
        1 => (group.clone(), 1..50_u64).prop_map(|(group, ahead)| Step::Install { group, ahead }),
        2 => group.clone().prop_map(|group| Step::Vote { group }),
        2 => group.clone().prop_map(|group| Step::Hint { group }),
        1 => group.prop_map(|group| Step::Remove { group }),
        1 => Just(Step::Idle),
        1 => Just(Step::Restart),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    term: u64,
    vote: Option<u64>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }
}

/// The records of a step, and the model after it.
fn plan(step: &Step, model: &Model, salt: u64) -> (Vec<Record>, Model) {
    let mut after = model.clone();
    let mut batch = Vec::new();
    match step {
        Step::Append {
            group,
            count,
            bytes,
        } => {
            for index in model.next()..model.next() + count {
                let record = entry(after.term, index, &payload(group ^ salt, index, *bytes));
                if let Record::Entry(entry) = &record {
                    after.entries.insert(index, entry.clone());
                    after.last = Some(entry.id);
                }
                batch.push(record);
            }
        }
        Step::Truncate { back, .. } => {
            let floor = model.purged.map_or(0, |purged| purged.index + 1);
            let from = model.next().saturating_sub(*back).max(floor);
            batch.push(Record::Truncate { from_index: from });
            after.entries.split_off(&from);
            let left = after.entries.values().next_back().map(|entry| entry.id);
            after.last = left.or(model.purged);
            after.term += 1;
        }
        Step::Purge { keep, .. } => {
            let upto = model.next().saturating_sub(*keep + 1);
            if let Some(entry) = model.entries.get(&upto) {
                let upto = entry.id;
                batch.push(Record::Purge { upto, chain: None });
                after.entries = after.entries.split_off(&(upto.index + 1));
                after.purged = Some(upto);
            }
        }
        Step::Install { ahead, .. } => {
            after.term += 1;
            let upto = id(after.term, model.next() + ahead);
            let chain = Some(salt as u32);
            batch.push(Record::Purge { upto, chain });
            after.entries.clear();
            (after.purged, after.last) = (Some(upto), Some(upto));
        }
        Step::Vote { .. } => {
            let term = model.vote.unwrap_or(0) + 1;
            batch.push(vote(term));
            after.vote = Some(term);
        }
        Step::Remove { .. } => {
            batch.push(Record::Remove);
            after = Model::default();
        }
        Step::Hint { .. } => batch.extend(model.last.map(Record::Committed)),
        Step::Idle | Step::Restart | Step::Crash { .. } => {}
    }
    (batch, after)
}

fn agree(wal: &Wal, models: &BTreeMap<u64, Model>) {
    let mut found = contents(wal);
    for (group, model) in models {
        let state = wal.group(GroupId(*group));
        assert_eq!(state.last, model.last);
        assert_eq!(state.purged, model.purged);
        assert_eq!(state.vote.map(|vote| vote.term), model.vote);
        assert!(state.committed.map(|id| id.index) <= state.last.map(|id| id.index));
        let entries = found.remove(group).unwrap_or_default();
        assert!(entries.iter().eq(model.entries.values()), "group {group}");
        for entry in model.entries.values() {
            let meta = wal
                .entry_meta(GroupId(*group), entry.id.index)
                .expect("meta");
            assert_eq!((meta.id, meta.kind), (entry.id, entry.kind));
        }
    }
    let stats = wal.stats();
    let live: u64 = (wal.oldest_segment()..wal.oldest_segment() + stats.segments)
        .flat_map(|segment| wal.groups_holding(segment))
        .map(|(_, count)| count)
        .sum();
    let expected: usize = models.values().map(|model| model.entries.len()).sum();
    assert_eq!(live, expected as u64, "entries that hold segments");
}

fn play(steps: &[Step], options: &WalOptions) {
    let mut disk = SimDisk::new();
    let (mut wal, _) = open_with(&disk, options.clone()).expect("opens");
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        let salt = number as u64 * 1000;
        match step {
            Step::Append { group, .. }
            | Step::Truncate { group, .. }
            | Step::Purge { group, .. }
            | Step::Install { group, .. }
            | Step::Vote { group }
            | Step::Hint { group }
            | Step::Remove { group } => {
                let model = models.entry(*group).or_default();
                let (batch, after) = plan(step, model, salt);
                wal.append_sync(GroupId(*group), batch).expect("appends");
                *model = after;
            }
            Step::Idle => wal.note_idle(),
            Step::Restart => {
                wal.shutdown().expect("shuts down");
                disk = disk.restart();
                wal = open_with(&disk, options.clone()).expect("opens").0;
            }
            Step::Crash { seed } => {
                disk = disk.crash_seeded(*seed);
                let (opened, report) = open_with(&disk, options.clone()).expect("opens");
                assert_eq!((report.torn_bytes, report.ambiguous), (0, None));
                wal = opened;
            }
        }
        agree(&wal, &models);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_map_that_survives(steps in prop::collection::vec(step(), 1..60), cached in any::<bool>(), ahead in any::<bool>()) {
        let options = WalOptions {
            segment_bytes: 4 << 10,
            cache_bytes: if cached { 64 << 10 } else { 0 },
            preallocate_bytes: if ahead { 8 << 10 } else { 0 },
            ..WalOptions::small()
        };
        play(&steps, &options);
    }
}
