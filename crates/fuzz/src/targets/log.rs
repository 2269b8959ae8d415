//! The write-ahead log and the files beside it: reading, recovering, going on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use vfs::{SimDisk, TwoSlot, Vfs as _, durable};
use wal::{
    Entry, GroupId, GroupState, Identity, LogId, OpenError, Record, RecoveryReport, Vote, Wal,
    WalOptions, Writer, inspect,
};

use super::sure;
use crate::{Target, mend};

const DIR: &str = "/log";
const MARK: &str = "mark";
const SLOT_BYTES: usize = 64 << 10;
const IDENTITY: Identity = Identity {
    cluster_id: [7; 16],
    node_id: 3,
};
const SLOTS_MAGIC: [u8; 8] = *b"FUZZSLOT";
/// What is read of a group's entries at once.
const READ_BYTES_MAX: u64 = 64 << 20;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "log-segment",
            run: |input| survives(&with(&last_segment(), input)),
            mend: mend::segment,
            seeds: || {
                let whole = content(&last_segment());
                let half = whole.iter().take(whole.len() / 2).copied().collect();
                vec![whole, half]
            },
            quick: 1_500,
        },
        Target {
            name: "log-payload",
            run: |input| survives(&with(&last_segment(), &with_payload(input))),
            mend: mend::nothing,
            seeds: || vec![payload()],
            quick: 900,
        },
        Target {
            name: "log-mark",
            run: |input| survives(&with(MARK, &two_slots(input, SLOT_BYTES))),
            mend: mend::slots,
            seeds: || vec![slots_of(&content(MARK), SLOT_BYTES), far_mark()],
            quick: 300,
        },
        Target {
            name: "log-dictionary",
            run: dictionary,
            mend: mend::log_dictionary,
            seeds: dictionary_seeds,
            quick: 600,
        },
        Target {
            name: "log-inspect",
            run: inspect_alone,
            mend: mend::segment,
            seeds: || {
                template()
                    .keys()
                    .filter(|name| name.ends_with(".wal"))
                    .map(|name| content(name))
                    .collect()
            },
            quick: 1_800,
        },
        Target {
            name: "two-slot",
            run: two_slot,
            mend: mend::slots,
            seeds: two_slot_seeds,
            quick: 1_500,
        },
    ]
}

/// The files of a log with all kinds of records, as a process left it that was killed.
fn template() -> &'static BTreeMap<String, Vec<u8>> {
    static TEMPLATE: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new();
        sure(disk.create_dir_all(Path::new(DIR)));
        let (wal, _) = sure(open(&disk));
        fill(&wal, 0..120);
        sure(wal.shutdown());
        drop(wal);
        sure(inspect::train(&disk, Path::new(DIR), 1 << 10));
        let (wal, _) = sure(open(&disk));
        fill(&wal, 120..150);
        others(&wal);
        files(&disk)
    })
}

fn fill(wal: &Wal, indexes: std::ops::Range<u64>) {
    let indexes: Vec<u64> = indexes.collect();
    for some in indexes.chunks(10) {
        let entry = |index: &u64| {
            let city = index * 7919 % 997;
            entry(1, *index, format!("fixture term=city-{city} count={index}"))
        };
        sure(wal.append_sync(GroupId(1), some.iter().map(entry).collect()));
    }
}

fn others(wal: &Wal) {
    let (one, two, three) = (GroupId(1), GroupId(2), GroupId(3));
    let vote = Vote {
        term: 9,
        node: 3,
        committed: true,
    };
    let purge = |term, index, chain| Record::Purge {
        upto: id(term, index),
        chain,
    };
    let batches = [
        (one, vec![Record::Truncate { from_index: 145 }]),
        (one, vec![entry(9, 145, "another leader's")]),
        (one, vec![purge(1, 100, None)]),
        (two, vec![entry(1, 0, "to be covered")]),
        (two, vec![purge(5, 1000, Some(0x1234_5678))]),
        (two, vec![entry(5, 1001, "z".repeat(3000))]),
        (three, vec![entry(1, 0, "removed"), Record::Remove]),
        (one, vec![Record::Vote(vote)]),
        (one, vec![Record::Committed(id(1, 140))]),
        (two, vec![entry(5, 1002, vec![0x80, 0, 0xff])]),
    ];
    for (group, batch) in batches {
        sure(wal.append_sync(group, batch));
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: 2,
        index,
    }
}

fn entry(term: u64, index: u64, payload: impl Into<Bytes>) -> Record {
    Record::Entry(Entry {
        id: id(term, index),
        kind: 1,
        payload: payload.into(),
    })
}

fn open(disk: &SimDisk) -> Result<(Wal, RecoveryReport), OpenError> {
    let (vfs, dir) = (Arc::new(disk.clone()), Path::new(DIR));
    Wal::open(vfs, dir, IDENTITY, WalOptions::small(), Writer::Inline)
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let listed = sure(disk.list_dir(Path::new(DIR)));
    let names = listed
        .into_iter()
        .map(|entry| entry.name.to_string_lossy().into_owned());
    names
        .map(|name| (name.clone(), sure(disk.contents(&path(&name)))))
        .collect()
}

fn content(name: &str) -> Vec<u8> {
    template().get(name).cloned().unwrap_or_default()
}

fn last_segment() -> String {
    let mut names = template().keys();
    let last = names.rfind(|name| name.ends_with(".wal"));
    last.cloned().unwrap_or_default()
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new();
    sure(disk.create_dir_all(Path::new(DIR)));
    for (name, bytes) in files {
        sure(durable::replace(&disk, &path(name), bytes));
    }
    disk
}

/// The template with another content of one file.
fn with(name: &str, bytes: &[u8]) -> SimDisk {
    let mut files = template().clone();
    files.insert(name.to_owned(), bytes.to_vec());
    disk_of(&files)
}

/// Recovers, and again, and goes on: what was recovered stays, and what is appended is there the next time.
fn survives(disk: &SimDisk) {
    let before = files(disk);
    // For people: must not fail where a server does not.
    let _ = inspect::verify(disk, Path::new(DIR), Some(IDENTITY));
    let wal = match open(disk) {
        Ok((wal, _)) => wal,
        Err(OpenError::Rotten { .. }) => {
            assert_eq!(before, files(disk), "a rotten log is left as it is");
            return;
        }
        Err(_) => return,
    };
    let found = all_groups(&wal);
    drop(wal);
    let disk = disk.restart();
    let (wal, report) = match open(&disk) {
        Ok(opened) => opened,
        // Only where the numbers of the mark have come to their end.
        Err(OpenError::Io(_)) => return,
        Err(error) => panic!("the second start: {error}"),
    };
    let nothing_lost = (0, None, 0);
    let lost = (
        report.torn_bytes,
        report.ambiguous,
        report.mark_slots_damaged,
    );
    assert_eq!(lost, nothing_lost, "the first start made it good");
    assert_eq!(found, all_groups(&wal), "the second start finds the same");
    let mut appended = Vec::new();
    for (group, (state, _)) in &found {
        let index = state.last.map_or(Some(0), |last| last.index.checked_add(1));
        // The very last number leaves no room for an entry behind it.
        if let Some(index) = index.filter(|index| *index < u64::MAX) {
            let term = state.last.map_or(1, |last| last.term);
            let result = wal.append_sync(*group, vec![entry(term, index, "goes on")]);
            result.unwrap_or_else(|error| panic!("group {group} does not go on: {error}"));
            appended.push((*group, index));
        }
    }
    drop(wal);
    let (wal, _) = match open(&disk.restart()) {
        Ok(opened) => opened,
        Err(OpenError::Io(_)) => return,
        Err(error) => panic!("the third start: {error}"),
    };
    for (group, index) in appended {
        let read = wal.read(group, index..index + 1, READ_BYTES_MAX);
        let read = read.unwrap_or_else(|error| panic!("what was appended: {error}"));
        assert_eq!(read.len(), 1, "what was appended is there");
    }
}

fn all_groups(wal: &Wal) -> BTreeMap<GroupId, (GroupState, Vec<Entry>)> {
    let mut all = BTreeMap::new();
    for group in wal.groups() {
        let state = wal.group(group);
        let end = state.last.map_or(0, |last| last.index.saturating_add(1));
        let read = wal.read(group, state.first_index..end, READ_BYTES_MAX);
        let entries = read.unwrap_or_else(|error| panic!("what was recovered: {error}"));
        all.insert(group, (state, entries));
    }
    all
}

/// A mark that says of more segments than could ever be that they must exist.
fn far_mark() -> Vec<u8> {
    let mut file = content(MARK);
    for slot in [0, SLOT_BYTES] {
        // Behind the slot's header: version and count of votes, cluster, node, oldest segment.
        let at = slot + 24 + 8 + 16 + 8 + 8;
        if let Some(durable) = file.get_mut(at..at + 8) {
            durable.copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        }
    }
    let mut input = slots_of(&file, SLOT_BYTES);
    mend::slots(&mut input);
    input
}

// --- payloads -------------------------------------------------------------------------------------------------------

/// The place of the compressed payload in the template's last segment: where its record begins, and its length.
fn compressed() -> (usize, usize) {
    let mut found = (0, 0);
    let disk = disk_of(template());
    let visited = inspect::dump(&disk, Path::new(DIR), &mut |record| {
        let is_zstd = matches!(
            record.kind,
            inspect::RecordKind::Entry {
                compression: inspect::Compression::Zstd,
                ..
            }
        );
        if is_zstd {
            let at = usize::try_from(record.place.offset).unwrap_or_default();
            let bytes = usize::try_from(record.bytes).unwrap_or_default();
            found = (at, bytes.saturating_sub(64));
        }
    });
    sure(visited);
    found
}

/// The length it says it has when decompressed, then the bytes.
fn payload() -> Vec<u8> {
    let (at, len) = compressed();
    let segment = content(&last_segment());
    let told = segment.get(at + 16..at + 20).unwrap_or_default();
    let stored = segment.get(at + 64..at + 64 + len).unwrap_or_default();
    [told, stored].concat()
}

fn with_payload(input: &[u8]) -> Vec<u8> {
    let (at, len) = compressed();
    let mut segment = content(&last_segment());
    let (told, stored) = input.split_at(input.len().min(4));
    let stored = stored.iter().chain(std::iter::repeat(&0)).take(len);
    let places = (at + 16..at + 20).zip(told);
    for (place, byte) in places.chain((at + 64..at + 64 + len).zip(stored)) {
        if let Some(found) = segment.get_mut(place) {
            *found = *byte;
        }
    }
    mend::segment(&mut segment);
    segment
}

// --- dictionaries ---------------------------------------------------------------------------------------------------

/// The name of an input's file: that of the dictionary which the log needs, or of a newer one which new segments use.
fn dictionary_name(kind: u8) -> String {
    let number = if kind == 0 { 1 } else { 2 };
    format!("{number:08}.zdict")
}

/// What is compressed with a dictionary is what comes out of the log again.
fn dictionary(input: &[u8]) {
    let Some((kind, file)) = input.split_first() else {
        return;
    };
    let name = dictionary_name(*kind);
    survives(&with(&name, file));
    let disk = with(&name, file);
    let Ok((wal, _)) = open(&disk) else {
        return;
    };
    let group = GroupId(1);
    let Some(last) = wal.group(group).last else {
        return;
    };
    let text = "fixture term=city- count= of a term that is recorded over and over";
    for number in 1..=20 {
        let next = entry(last.term, last.index + number, format!("{text} {number}"));
        sure(wal.append_sync(group, vec![next]));
    }
    drop(wal);
    let (wal, _) = sure(open(&disk.restart()));
    let read = sure(wal.read(group, last.index + 1..last.index + 21, READ_BYTES_MAX));
    let texts: Vec<String> = (1..=20).map(|number| format!("{text} {number}")).collect();
    let read: Vec<&[u8]> = read.iter().map(|entry| entry.payload.as_ref()).collect();
    let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    assert_eq!(read, texts);
}

fn dictionary_seeds() -> Vec<Vec<u8>> {
    let trained = content(&dictionary_name(0));
    // Text that is no dictionary of zstd is one all the same, and what begins like one and is none is not.
    let header = trained.get(..24).unwrap_or_default();
    let text = [header, b"fixture term=city- count="].concat();
    let broken = [header, &[0x37, 0xa4, 0x30, 0xec], &[0xff; 40]].concat();
    let mut seeds = vec![[&[0], trained.as_slice()].concat()];
    for file in [&trained, &text, &broken] {
        seeds.push([&[1], file.as_slice()].concat());
    }
    for seed in &mut seeds {
        mend::log_dictionary(seed);
    }
    seeds
}

// --- what is read alone ---------------------------------------------------------------------------------------------

fn inspect_alone(input: &[u8]) {
    let disk = disk_of(&BTreeMap::from([(
        format!("{:020}.wal", 1),
        input.to_vec(),
    )]));
    let dir = Path::new(DIR);
    let mut bytes = 0;
    let _ = inspect::dump(&disk, dir, &mut |record| bytes += record.bytes);
    assert!(bytes <= input.len() as u64, "no more than there is");
    let _ = inspect::verify(&disk, dir, None);
}

/// Both slots at their full length.
pub(super) fn two_slots(input: &[u8], slot_bytes: usize) -> Vec<u8> {
    let mut file = vec![0; 2 * slot_bytes];
    let Some(places) = mend::split_slots(input) else {
        return file;
    };
    for (slot, (at, len)) in [places.0, places.1].into_iter().enumerate() {
        let len = len.min(slot_bytes);
        let start = slot * slot_bytes;
        let (to, from) = (file.get_mut(start..start + len), input.get(at..at + len));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
    }
    file
}

/// The input that gives a file of two slots, without the zeros that follow what each says.
pub(super) fn slots_of(file: &[u8], slot_bytes: usize) -> Vec<u8> {
    let slot = |number: usize| {
        let slot = file.get(number * slot_bytes..).unwrap_or_default();
        let slot = slot.get(..slot_bytes.min(slot.len())).unwrap_or_default();
        let end = slot
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        slot.get(..end).unwrap_or_default().to_vec()
    };
    let first = slot(0);
    let len = u32::try_from(first.len()).unwrap_or_default();
    [len.to_le_bytes().to_vec(), first, slot(1)].concat()
}

fn two_slot(input: &[u8]) {
    let (disk, path) = (SimDisk::new(), Path::new("/slots"));
    sure(durable::replace(&disk, path, &two_slots(input, SLOT_BYTES)));
    let slot_bytes = SLOT_BYTES as u64;
    let (mut slots, report) = sure(TwoSlot::open(&disk, path, SLOTS_MAGIC, slot_bytes));
    assert_eq!(report.body.is_some(), report.sequence > 0);
    // No file gets there by being written.
    if report.sequence == u64::MAX - 1 {
        assert!(slots.write(b"newer").is_err());
        return;
    }
    sure(slots.write(b"newer"));
    let after = sure(TwoSlot::read(&disk, path, SLOTS_MAGIC, slot_bytes));
    let newest = (after.body.as_deref(), after.sequence);
    assert_eq!(newest, (Some(b"newer".as_slice()), report.sequence + 1));
}

fn two_slot_seeds() -> Vec<Vec<u8>> {
    let (disk, path) = (SimDisk::new(), Path::new("/slots"));
    let slot_bytes = SLOT_BYTES as u64;
    let created = TwoSlot::create(&disk, path, SLOTS_MAGIC, slot_bytes, 1, b"the first");
    let mut slots = sure(created);
    let one = slots_of(&sure(disk.contents(path)), SLOT_BYTES);
    sure(slots.write(b"the second"));
    vec![one, slots_of(&sure(disk.contents(path)), SLOT_BYTES)]
}
