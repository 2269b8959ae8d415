//! Power is lost at every change of the disk while a snapshot is taken, while another one is received, and again at every change within
//! the start after it, from every disk that may be left: each subset of what was not synced, and blocks that are torn or hold anything.
//!
//! What the start after that one finds is the snapshot that was there before or the new one, whole, with the one before it, to which the
//! log reaches back. It finds the new one for certain once that was published, or once a start has shown it to anybody. Nothing
//! half-written stays, and a loss of power brings nothing back that a start has removed.

use std::fmt::Debug;
use std::sync::OnceLock;

use super::every_call::{indices, open, receive_one, root, take_one};
use super::*;
use crate::snapshot::store::GENERATIONS;

/// Between the indices of two snapshots.
const STEP: u64 = 10;
/// Of so many things that are not durable each subset is tried; there never are more.
const ITEMS_MAX: usize = 8;
/// Losses of power that are decided by chance, which also tear blocks, and fill them with anything.
const CHANCES: u64 = 6;

/// Three blocks, with what is around it.
fn body(index: u64) -> Vec<u8> {
    (0..1000_u64).map(|byte| (byte * index) as u8).collect()
}

/// A snapshot's file, if nothing goes wrong; the same whoever writes it.
fn whole(index: u64) -> &'static [u8] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let (vfs, disk) = disk();
        let (store, _) = store(&vfs);
        let write = |number: u64| {
            let index = (number + 1) * STEP;
            let file = take(&store, index, &body(index));
            disk.contents(file.path()).unwrap()
        };
        (0..5).map(write).collect()
    });
    &files[usize::try_from(index / STEP - 1).unwrap()]
}

/// What others rely on.
#[derive(Debug, Clone, Default)]
struct Promised {
    /// The newest that was published or shown.
    newest: u64,
    /// The newest that may be there.
    begun: u64,
}

fn opened(disk: &SimDisk) -> Result<Arc<SnapshotStore>, SnapshotError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    open(&vfs)
}

fn newest(store: &SnapshotStore) -> u64 {
    indices(store).last().copied().unwrap_or(0)
}

/// Takes a snapshot, and receives another one after it.
fn take_and_receive(disk: &SimDisk, promised: &mut Promised) -> Result<(), SnapshotError> {
    let store = opened(disk)?;
    let next = newest(&store) + STEP;
    promised.begun = next;
    take_one(&store, next, &body(next))?;
    promised.newest = next;
    let next = next + STEP;
    promised.begun = next;
    receive_one(&store, next, &body(next))?;
    promised.newest = next;
    Ok(())
}

/// Shows what is there, be it the old or the new; from then on it is that.
fn start(disk: &SimDisk, promised: &mut Promised) -> Result<(), SnapshotError> {
    let store = opened(disk)?;
    let shown = newest(&store);
    let is_old_or_new = [promised.newest, promised.begun].contains(&shown);
    assert!(is_old_or_new, "{shown} is shown: {promised:?}");
    *promised = Promised {
        newest: shown,
        begun: shown,
    };
    Ok(())
}

/// What may be found: by another process on the same machine, and after power was lost.
fn images(disk: &SimDisk) -> Vec<SimDisk> {
    let pending = disk.pending();
    assert!(pending.len() <= ITEMS_MAX, "{pending:?}");
    let mut images = vec![disk.restart()];
    images.extend(disk.crash_subsets(ITEMS_MAX));
    if !pending.is_empty() {
        images.extend((0..CHANCES).map(|seed| disk.crash_seeded(seed)));
    }
    images
}

/// What a piece of work leaves that ends at a loss of power, or well.
struct Left {
    /// How many changes of the disk came before that.
    changes: u64,
    promised: Promised,
    images: Vec<SimDisk>,
}

/// Does a piece of work over and over, from copies of one disk: power is lost after each number of changes, the last time not at all.
fn power_lost_everywhere(
    before: &SimDisk,
    promised: &Promised,
    work: impl Fn(&SimDisk, &mut Promised) -> Result<(), SnapshotError>,
) -> Vec<Left> {
    let run = |halt| {
        let disk = before.restart();
        disk.halt_after(halt);
        let mut promised = promised.clone();
        let done = work(&disk, &mut promised);
        assert!(done.is_ok() || disk.is_halted(), "{halt:?}: {done:?}");
        (disk, promised)
    };
    let (sound, _) = run(None);
    let left = |changes| {
        let (disk, promised) = run(Some(changes));
        let images = images(&disk);
        Left {
            changes,
            promised,
            images,
        }
    };
    (0..=sound.mutations()).map(left).collect()
}

/// What a start finds, each of it whole and nothing beside it.
fn found_in(disk: &SimDisk, what: &dyn Debug) -> Arc<SnapshotStore> {
    let store = opened(disk).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    for file in store.sound() {
        let index = file.info().applied.index;
        let content = disk.contents(file.path()).unwrap();
        assert!(content == whole(index), "{what:?}: snapshot {index}");
    }
    let files = files(disk);
    assert_eq!(files.len(), store.sound().len(), "{what:?}: {files:?}");
    store
}

fn files(disk: &SimDisk) -> Vec<vfs::DirEntry> {
    let dir = root().join("0000000000000003");
    disk.list_dir(&dir).unwrap()
}

/// The start after all that finds what was promised, loses nothing of it with its power, and goes on.
fn judge(image: &SimDisk, promised: &Promised, what: &dyn Debug) {
    let store = found_in(image, what);
    let (found, newest) = (indices(&store), newest(&store));
    let is_old_or_new = [promised.newest, promised.begun].contains(&newest);
    assert!(is_old_or_new, "{what:?}: {found:?} {promised:?}");
    let all: Vec<u64> = (1..=newest / STEP).map(|number| number * STEP).collect();
    assert!(all.ends_with(&found), "{what:?}: {found:?}");
    assert!(
        found.len() >= all.len().min(GENERATIONS),
        "{what:?}: {found:?}"
    );
    let after = image.crash_losing_all();
    assert_eq!(files(&after), files(image), "{what:?}");
    assert_eq!(indices(&found_in(&after, what)), found, "{what:?}");
    let next = newest + STEP;
    take_one(&store, next, &body(next)).unwrap();
    let after = found_in(&image.crash_losing_all(), what);
    assert_eq!(indices(&after).last(), Some(&next), "{what:?}");
}

/// How many disks were judged.
fn power_lost_within_the_start_after_it(before: &SimDisk, promised: &Promised) -> usize {
    let mut judged = 0;
    for left in power_lost_everywhere(before, promised, take_and_receive) {
        for (number, image) in left.images.iter().enumerate() {
            for again in power_lost_everywhere(image, &left.promised, start) {
                for found in again.images {
                    let what = (left.changes, number, again.changes);
                    judge(&found, &again.promised, &what);
                    judged += 1;
                }
            }
        }
    }
    judged
}

#[test]
fn power_lost_within_the_start_after_the_first_snapshots_leaves_nothing_half_written() {
    let (_, empty) = disk();
    let judged = power_lost_within_the_start_after_it(&empty, &Promised::default());
    assert!(judged > 1000, "{judged} disks");
}

#[test]
fn power_lost_within_the_start_after_a_snapshot_leaves_the_old_one_or_the_new_one() {
    let (_, disk) = disk();
    let mut promised = Promised::default();
    take_and_receive(&disk, &mut promised).unwrap();
    let judged = power_lost_within_the_start_after_it(&disk.crash_losing_all(), &promised);
    assert!(judged > 1000, "{judged} disks");
}
