//! Every single call to the disk fails once while snapshots are taken, received, replaced and removed, and while a start looks at what
//! is there. Whoever failed may try again; at no time are there neither the old snapshot nor the new one, nor fewer than the log
//! was purged for.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use vfs::sim::{Effect, Fault};

use super::*;

pub(super) fn root() -> &'static Path {
    Path::new("/snapshots")
}

fn body(index: u64) -> Vec<u8> {
    (0..3000_u64).map(|byte| (byte * index) as u8).collect()
}

/// What must be there after whatever happens.
#[derive(Debug, Default)]
struct Promised {
    /// The newest that was published.
    newest: u64,
    /// The newest that was begun.
    begun: u64,
    /// The log is gone up to here.
    purged: u64,
}

pub(super) fn open(vfs: &Arc<dyn Vfs>) -> Result<Arc<SnapshotStore>, SnapshotError> {
    let (store, found) = SnapshotStore::open(Arc::clone(vfs), root(), GROUP)?;
    assert!(found.damaged.is_empty(), "{found:?}");
    Ok(Arc::new(store))
}

pub(super) fn take_one(
    store: &SnapshotStore,
    index: u64,
    body: &[u8],
) -> Result<(), SnapshotError> {
    let temporary = store.temporary();
    write(
        store.vfs().as_ref(),
        &temporary,
        &header(index),
        Bytes(body.to_vec()),
    )
    .and_then(|info| store.publish(&temporary, header(index), info))
    .inspect_err(|_| store.discard(&temporary))
    .map(drop)
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

fn receive_from(
    store: &SnapshotStore,
    announced: Announced,
    offset: u64,
    number: u64,
) -> Result<Receiver, SnapshotError> {
    Receiver::begin(store, announced, offset, number).map_err(|error| match error {
        ReceiveError::Snapshot(error) => error,
        ReceiveError::Busy | ReceiveError::Elsewhere { .. } => panic!("{error}"),
    })
}

pub(super) fn receive_one(
    store: &SnapshotStore,
    index: u64,
    body: &[u8],
) -> Result<(), SnapshotError> {
    let (elsewhere, disk) = disk();
    let (from, _) = super::store(&elsewhere);
    let sent = take(&from, index, body);
    let bytes = disk.contents(sent.path())?;
    let announced = Announced {
        bytes: bytes.len() as u64,
        hash: sent.info().hash,
        index,
    };
    // Broken off in the middle, and gone on with. Numbers are of this process, as those of a host are.
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let (begin, rest) = bytes.split_at(bytes.len() / 2);
    let mut receiver = receive_from(store, announced, 0, number)?;
    receiver.take(0, begin)?;
    drop(receiver);
    let kept = store.kept_of(&announced).unwrap();
    assert_eq!(kept, begin.len() as u64);
    let mut receiver = receive_from(store, announced, kept, number)?;
    receiver.take(kept, rest)?;
    receiver.verify()?;
    let file = receiver.into_file()?;
    store
        .publish(file.path(), file.header().clone(), file.info().clone())
        .map(drop)
}

/// Opens what a restart finds, which must be as promised; then loses power, and opens it again.
fn judge(disk: &SimDisk, promised: &Promised, what: &dyn Debug) {
    let images = [
        disk.restart(),
        disk.crash_losing_all(),
        disk.crash_keeping_all(),
        disk.crash_seeded(5),
    ];
    for image in images {
        let first = judge_one(&image, promised, what);
        // By what it found, the log is purged now.
        let promised = Promised {
            purged: first.purgeable().unwrap_or(0).max(promised.purged),
            newest: promised.newest,
            begun: promised.begun,
        };
        let again = judge_one(&image.crash_losing_all(), &promised, what);
        assert_eq!(indices(&first), indices(&again), "{what:?}");
    }
}

fn judge_one(image: &SimDisk, promised: &Promised, what: &dyn Debug) -> Arc<SnapshotStore> {
    let vfs: Arc<dyn Vfs> = Arc::new(image.clone());
    let store = open(&vfs).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let found = indices(&store);
    let newest = found.last().copied().unwrap_or(0);
    let allowed = promised.newest.max(promised.purged)..=promised.begun;
    assert!(
        allowed.contains(&newest),
        "{what:?}: {found:?} {promised:?}"
    );
    for file in store.sound() {
        let verified = verify(vfs.as_ref(), file.path()).unwrap();
        let mut read = Vec::new();
        let mut content = verified.body(vfs.as_ref(), file.path()).unwrap();
        content.read_to_end(&mut read).unwrap();
        assert_eq!(read, body(file.info().applied.index), "{what:?}");
    }
    store
}

pub(super) fn indices(store: &SnapshotStore) -> Vec<u64> {
    let sound = store.sound();
    sound.iter().map(|file| file.info().applied.index).collect()
}

/// Does a step, and once more if it failed, as the fault comes once only; what is there is judged after both.
fn insist<T>(
    disk: &SimDisk,
    promised: &Promised,
    what: &dyn Debug,
    mut step: impl FnMut() -> Result<T, SnapshotError>,
) -> Option<T> {
    if let Ok(done) = step() {
        return Some(done);
    }
    judge(disk, promised, what);
    if disk.is_halted() {
        return None;
    }
    let again = step();
    Some(again.unwrap_or_else(|error| panic!("{what:?}, again: {error}")))
}

/// All that befalls the snapshots of a group but their end; what is promised then, and whether it came so far.
fn workload(disk: &SimDisk, what: &dyn Debug) -> (Promised, bool) {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let mut promised = Promised::default();
    let Some(mut store) = insist(disk, &promised, what, || open(&vfs)) else {
        return (promised, false);
    };
    for index in [10, 20, 30, 40, 50] {
        promised.begun = index;
        let done = insist(disk, &promised, what, || {
            if index == 30 {
                receive_one(&store, index, &body(index))
            } else {
                take_one(&store, index, &body(index))
            }
        });
        if done.is_none() {
            return (promised, false);
        }
        promised.newest = index;
        promised.purged = store.purgeable().unwrap_or(0);
        if index == 40 {
            let Some(again) = insist(disk, &promised, what, || open(&vfs)) else {
                return (promised, false);
            };
            store = again;
        }
    }
    (promised, true)
}

#[test]
fn every_call_of_taking_and_receiving_fails_once() {
    let (_, sound) = disk();
    assert!(workload(&sound, &"sound").1);
    let calls = sound.calls();
    assert!(calls.len() > 60, "{} calls", calls.len());
    for (number, op) in (0..).zip(calls) {
        for effect in Effect::possible(op) {
            let (_, disk) = disk();
            disk.inject(Fault::nth(number, effect));
            let what = (number, op, effect);
            let (promised, whole) = workload(&disk, &what);
            assert!(whole && disk.faults_waiting() == 0, "{what:?}");
            judge(&disk, &promised, &what);
        }
    }
}

#[test]
fn every_call_of_a_start_fails_once() {
    let (_, sound) = disk();
    workload(&sound, &"sound");
    for halt in 0..=sound.mutations() {
        let (_, crashed) = disk();
        crashed.halt_after(Some(halt));
        let (promised, _) = workload(&crashed, &halt);
        let left = match halt % 3 {
            0 => crashed.restart(),
            1 => crashed.crash_keeping_all(),
            _ => crashed.crash_seeded(halt),
        };
        let start = |disk: &SimDisk| open(&(Arc::new(disk.clone()) as Arc<dyn Vfs>)).is_ok();
        let sound = left.restart();
        assert!(start(&sound));
        for (number, op) in (0..).zip(sound.calls()) {
            for effect in Effect::possible(op) {
                let disk = left.restart();
                disk.inject(Fault::nth(number, effect));
                let whole = start(&disk);
                let what = (halt, number, op, effect);
                assert!(whole || !matches!(effect, Effect::Short(_)), "{what:?}");
                judge(&disk, &promised, &what);
            }
        }
    }
}

#[test]
fn every_call_of_a_removal_fails_once() {
    for effect in [Effect::Io, Effect::NoSpace] {
        for number in 0.. {
            let (vfs, disk) = disk();
            let (promised, _) = workload(&disk, &"sound");
            disk.inject(Fault::nth(number, effect));
            let removed = SnapshotStore::remove(vfs.as_ref(), root(), GROUP);
            if removed.is_err() {
                let gone = Promised::default();
                let begun = promised.begun;
                judge(&disk, &Promised { begun, ..gone }, &number);
                SnapshotStore::remove(vfs.as_ref(), root(), GROUP).unwrap();
            }
            for image in [disk.restart(), disk.crash_losing_all()] {
                assert!(!SnapshotStore::any(&image, root(), GROUP).unwrap());
            }
            if disk.take_back_faults() > 0 {
                break;
            }
        }
    }
}
