//! A durable note of the groups that this node does not have to itself.
//!
//! Whether a damaged last batch of the log may be given up depends on who else holds its entries: where other nodes vote,
//! they decide, and the log is refused; a node that is alone goes on without it, loudly. That must be known before the
//! log is opened, and cannot be learned from it, for the damage may lie over the very entry that says so. So the note is
//! written before anything of such a group reaches the log, and taken back when the group is known to have no other voter.
//!
//! It lies beside the segments, in two slots of which both are written, and takes its space when the log is created, so that
//! a full disk does not keep members from changing. A note that is missing, damaged or not given back by the disk counts as naming
//! every group. One of a later version, whose place and checksum stay as they are, is refused.
//!
//! The body of a slot: version 1 (2 bytes), 0 (2), number of groups (4), then each group (8), little endian.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use vfs::{TwoSlot, Vfs};
use wal::{Ambiguous, GroupId};

use crate::OpenError;
use crate::log::NodeFault;

const FILE: &str = "voters";
const MAGIC: [u8; 8] = *b"ACVOTERS";
const VERSION: u16 = 1;
/// Room for more groups than a log has, see [`wal`].
const SLOT_BYTES: u64 = 16 << 10;
const FIXED_BYTES: usize = 8;

/// What was noted, as found before the log is opened.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    exists: bool,
    /// A slot could not be read, so that the file cannot be written in place.
    has_bad_slot: bool,
    sequence: u64,
    /// `None` where nothing can be believed.
    groups: Option<BTreeSet<GroupId>>,
}

impl Found {
    /// Reads the note in a log's directory.
    pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let mut note = Self {
            exists: vfs.exists(&path)?,
            path,
            has_bad_slot: false,
            sequence: 0,
            groups: None,
        };
        if !note.exists {
            return Ok(note);
        }
        let found = TwoSlot::read(vfs, &note.path, MAGIC, SLOT_BYTES)?;
        let body = found.body.unwrap_or_default();
        if let Some(version) = version_of(&body).filter(|version| *version > VERSION) {
            return Err(OpenError::NewerFormat {
                path: note.path,
                version: version.into(),
                known: VERSION.into(),
            });
        }
        note.groups = decode(&body);
        note.sequence = found.sequence;
        note.has_bad_slot = found.unreadable > 0;
        Ok(note)
    }

    /// The groups that were noted; `None` where nothing can be believed.
    pub(crate) fn groups(&self) -> Option<&BTreeSet<GroupId>> {
        self.groups.as_ref()
    }

    /// What is to become of a last batch that is damaged without proof that it was durable: `alone` where no other node
    /// could know it.
    pub(super) fn judge(&self, alone: Ambiguous) -> Ambiguous {
        match &self.groups {
            Some(groups) if groups.is_empty() => alone,
            Some(_) | None => Ambiguous::Refuse,
        }
    }
}

/// The groups that the note in a log's directory names: other nodes may count on what this one has voted and acknowledged in
/// them. `None` where nothing can be believed, so that it may be any.
///
/// # Errors
/// When the disk fails, or a newer program wrote the note.
pub fn shared_groups(
    vfs: &dyn Vfs,
    log_dir: &Path,
) -> Result<Option<BTreeSet<GroupId>>, OpenError> {
    Ok(Found::read(vfs, log_dir)?.groups)
}

/// The note of a running node.
#[derive(Debug)]
pub(crate) struct VotersNote {
    fault: NodeFault,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: TwoSlot,
    groups: BTreeSet<GroupId>,
    /// A write failed: what is on disk is unknown, and nothing may be written any more.
    broken: bool,
}

impl VotersNote {
    /// Goes on with what was found. `known` are the groups of the log, which all count as shared where the note was lost.
    /// The log must be open, for that keeps others out of the directory.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        found: Found,
        known: &[GroupId],
        fault: NodeFault,
    ) -> Result<Self, vfs::Error> {
        let Found {
            path,
            exists,
            has_bad_slot,
            sequence,
            groups,
        } = found;
        let lost = groups.is_none();
        let groups = groups.unwrap_or_else(|| known.iter().copied().collect());
        if lost && exists {
            tracing::error!(path = %path.display(), "the note of shared groups is damaged, all groups count as shared");
        }
        let body = encode(&groups);
        let slots = if lost || has_bad_slot {
            TwoSlot::create(vfs, &path, MAGIC, SLOT_BYTES, sequence + 1, &body)?
        } else {
            TwoSlot::open(vfs, &path, MAGIC, SLOT_BYTES)?.0
        };
        let mut inner = Inner {
            slots,
            groups,
            broken: false,
        };
        inner.write()?;
        Ok(Self {
            fault,
            inner: Mutex::new(inner),
        })
    }

    /// A fresh note in a directory of its own, for tests of what uses one.
    #[cfg(test)]
    pub(crate) fn create(vfs: &dyn Vfs, dir: &Path, fault: NodeFault) -> Result<Self, OpenError> {
        let found = Found::read(vfs, dir)?;
        Ok(Self::open(vfs, found, &[], fault)?)
    }

    /// Notes that others vote in a group, or may. Durable when it returns. May block.
    pub(crate) fn share(&self, group: GroupId) -> Result<(), vfs::Error> {
        let mut inner = self.inner.lock();
        if !inner.groups.insert(group) && !inner.broken {
            return Ok(());
        }
        self.judge(inner.write())
    }

    /// Notes that nobody else votes in a group, or that it is gone. May block.
    pub(crate) fn unshare(&self, group: GroupId) -> Result<(), vfs::Error> {
        let mut inner = self.inner.lock();
        if !inner.groups.remove(&group) {
            return Ok(());
        }
        self.judge(inner.write())
    }

    /// Whether a group is noted.
    pub(crate) fn is_shared(&self, group: GroupId) -> bool {
        self.inner.lock().groups.contains(&group)
    }

    /// After a failed write nobody knows what the note says on disk.
    fn judge(&self, written: Result<(), vfs::Error>) -> Result<(), vfs::Error> {
        written.inspect_err(|error| self.fault.report(&error.to_string()))
    }
}

impl Inner {
    /// Writes both slots, so that one that rots does not bring back what was noted before.
    fn write(&mut self) -> Result<(), vfs::Error> {
        if self.broken {
            let source = std::io::Error::other("an earlier write failed");
            return Err(vfs::Error::new(vfs::Op::Write, &self.slots.path(), source));
        }
        let body = encode(&self.groups);
        self.broken = true;
        for _slot in 0..2 {
            self.slots.write(&body)?;
        }
        self.broken = false;
        Ok(())
    }
}

fn encode(groups: &BTreeSet<GroupId>) -> Vec<u8> {
    let mut body = Vec::with_capacity(FIXED_BYTES + 8 * groups.len());
    body.extend(VERSION.to_le_bytes());
    body.extend([0; 2]);
    body.extend(
        u32::try_from(groups.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    for group in groups {
        body.extend(group.0.to_le_bytes());
    }
    body
}

/// The version that the body of a slot begins with.
pub(super) fn version_of(body: &[u8]) -> Option<u16> {
    let (version, _) = body.split_first_chunk::<2>()?;
    Some(u16::from_le_bytes(*version))
}

fn decode(body: &[u8]) -> Option<BTreeSet<GroupId>> {
    let ([_, _, _, _, count @ ..], rest) = body.split_first_chunk::<FIXED_BYTES>()?;
    let (groups, odd) = rest.as_chunks::<8>();
    let whole = version_of(body) == Some(VERSION)
        && odd.is_empty()
        && groups.len() == usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let groups = groups
        .iter()
        .map(|group| GroupId(u64::from_le_bytes(*group)));
    whole.then(|| groups.collect())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::Arc;

    use vfs::SimDisk;
    use vfs::sim::every_mishap_twice;

    use super::*;

    fn dir() -> &'static Path {
        Path::new("/wal")
    }

    fn disk() -> (Arc<SimDisk>, PathBuf) {
        let disk = SimDisk::new();
        vfs::durable::create_dir(&disk, dir()).unwrap();
        (Arc::new(disk), dir().join(FILE))
    }

    fn open(disk: &SimDisk, known: &[GroupId]) -> VotersNote {
        let found = Found::read(disk, dir()).unwrap();
        VotersNote::open(disk, found, known, NodeFault::new()).unwrap()
    }

    fn judged(disk: &SimDisk) -> Ambiguous {
        let found = Found::read(disk, dir()).unwrap();
        found.judge(Ambiguous::Drop)
    }

    #[test]
    fn what_was_noted_survives_any_crash() {
        let (disk, _) = disk();
        assert_eq!(judged(&disk), Ambiguous::Refuse, "nothing is known");
        let note = open(&disk, &[]);
        assert_eq!(judged(&disk), Ambiguous::Drop);
        note.share(GroupId(7)).unwrap();
        assert_eq!(judged(&disk.crash_losing_all()), Ambiguous::Refuse);
        note.share(GroupId(9)).unwrap();
        note.unshare(GroupId(7)).unwrap();
        let after = disk.crash_losing_all();
        let note = open(&after, &[]);
        assert!(note.is_shared(GroupId(9)) && !note.is_shared(GroupId(7)));
        note.unshare(GroupId(9)).unwrap();
        assert_eq!(judged(&after.crash_losing_all()), Ambiguous::Drop);
    }

    #[test]
    fn a_damaged_note_names_every_group() {
        let (disk, path) = disk();
        let note = open(&disk, &[]);
        note.share(GroupId(7)).unwrap();
        drop(note);
        for slot in [0, SLOT_BYTES] {
            let image = disk.restart();
            image.flip_bit(&path, (slot + 30) * 8).unwrap();
            assert_eq!(judged(&image), Ambiguous::Refuse, "the other slot says so");
            assert!(open(&image, &[]).is_shared(GroupId(7)));
        }
        for slot in [0, SLOT_BYTES] {
            disk.flip_bit(&path, (slot + 30) * 8).unwrap();
        }
        assert_eq!(judged(&disk), Ambiguous::Refuse);
        let note = open(&disk, &[GroupId(1), GroupId(2)]);
        assert!(note.is_shared(GroupId(1)) && note.is_shared(GroupId(2)));
    }

    #[test]
    fn a_note_that_the_disk_does_not_give_back_is_made_anew() {
        let (disk, path) = disk();
        let note = open(&disk, &[]);
        note.share(GroupId(7)).unwrap();
        drop(note);
        for slot in [0, SLOT_BYTES] {
            let image = disk.restart();
            image.make_unreadable(&path, slot..slot + 600).unwrap();
            assert_eq!(judged(&image), Ambiguous::Refuse);
            let note = open(&image, &[]);
            assert!(note.is_shared(GroupId(7)) && !note.is_shared(GroupId(1)));
            let found = TwoSlot::read(&image, &path, MAGIC, SLOT_BYTES).unwrap();
            assert_eq!((found.damaged, found.unreadable), (0, 0));
        }
        disk.make_unreadable(&path, 0..2 * SLOT_BYTES).unwrap();
        assert_eq!(judged(&disk), Ambiguous::Refuse, "any group may be shared");
        let note = open(&disk, &[GroupId(1)]);
        assert!(note.is_shared(GroupId(1)));
        note.share(GroupId(2)).unwrap();
    }

    #[test]
    fn a_newer_note_is_refused_and_a_flipped_version_is_damage() {
        let (disk, path) = disk();
        let disk = disk.as_ref();
        let mut body = encode(&BTreeSet::from([GroupId(7)]));
        body[0] = 3;
        TwoSlot::create(disk, &path, MAGIC, SLOT_BYTES, 1, &body).unwrap();
        let before = disk.contents(&path).unwrap();
        let error = Found::read(disk, dir()).unwrap_err();
        assert!(
            matches!(
                &error,
                OpenError::NewerFormat {
                    version: 3,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(disk.contents(&path).unwrap(), before);

        body[0] = 1;
        TwoSlot::create(disk, &path, MAGIC, SLOT_BYTES, 1, &body).unwrap();
        // The body begins behind the 24 bytes of the slot with sequence 1.
        disk.flip_bit(&path, (SLOT_BYTES + 24) * 8 + 1).unwrap();
        let found = Found::read(disk, dir()).unwrap();
        assert_eq!(found.groups, None);
    }

    #[test]
    fn a_failed_write_is_reported_and_not_taken_for_done() {
        let (disk, _) = disk();
        let fault = NodeFault::new();
        let found = Found::read(disk.as_ref(), dir()).unwrap();
        let note = VotersNote::open(disk.as_ref(), found, &[], fault.clone()).unwrap();
        disk.inject(vfs::sim::Fault::next(
            vfs::Op::SyncData,
            vfs::sim::Effect::Io,
        ));
        note.share(GroupId(7)).unwrap_err();
        note.share(GroupId(7)).unwrap_err();
        assert!(fault.subscribe().borrow().is_some());
        let after = disk.restart();
        // The page cache shows it; the start makes it durable before anything relies on it.
        open(&after, &[]);
        assert_eq!(judged(&after.crash_losing_all()), judged(&after));
    }

    /// The groups that are noted, from the first start on.
    fn states() -> [BTreeSet<GroupId>; 4] {
        [[].as_slice(), &[7], &[7, 9], &[9]].map(|of| of.iter().copied().map(GroupId).collect())
    }

    /// What a node relies on, by the number of the state.
    #[derive(Debug, Clone, Default)]
    struct Promised {
        /// The node has been open once.
        is_begun: bool,
        /// The last that was written.
        written: usize,
        /// The last that may be.
        begun: usize,
    }

    /// Goes on with the note as a node does. Opening the log, which comes between, makes the names beside it durable.
    fn start(disk: &SimDisk, promised: &mut Promised) -> Result<VotersNote, OpenError> {
        let found = Found::read(disk, dir())?;
        disk.sync_dir(dir())?;
        let note = VotersNote::open(disk, found, &[], NodeFault::new())?;
        let groups = note.inner.lock().groups.clone();
        let now = states().iter().position(|state| *state == groups).unwrap();
        assert!((promised.written..=promised.begun).contains(&now));
        *promised = Promised {
            is_begun: true,
            written: now,
            begun: now,
        };
        Ok(note)
    }

    /// Opens the note, and notes one state after another.
    fn work(disk: &SimDisk, promised: &mut Promised) -> Result<(), OpenError> {
        let note = start(disk, promised)?;
        for begun in promised.written + 1..states().len() {
            promised.begun = begun;
            match begun {
                1 => note.share(GroupId(7))?,
                2 => note.share(GroupId(9))?,
                _ => note.unshare(GroupId(7))?,
            }
            promised.written = begun;
        }
        Ok(())
    }

    /// What is found was written last or was about to be, and so it stays; then it can be gone on with.
    fn judge(image: &SimDisk, promised: &Promised, what: &dyn Debug) {
        let found = Found::read(image, dir()).unwrap();
        let noted = found.groups().cloned();
        match &noted {
            Some(groups) => {
                let allowed = &states()[promised.written..=promised.begun];
                assert!(allowed.contains(groups), "{what:?}: {noted:?}");
            }
            None => assert!(!promised.is_begun, "{what:?}"),
        }
        let mut now = promised.clone();
        drop(start(image, &mut now).unwrap());
        let after = image.crash_losing_all();
        let again = Found::read(&after, dir()).unwrap();
        assert_eq!(again.groups(), Some(&noted.unwrap_or_default()));
        work(&after, &mut now).unwrap();
        let last = Found::read(&after.crash_losing_all(), dir()).unwrap();
        assert_eq!(last.groups(), states().last());
    }

    #[test]
    fn whatever_goes_wrong_while_groups_are_noted_and_at_the_next_start_none_is_forgotten() {
        let (disk, _) = disk();
        let again = |disk: &SimDisk, promised: &mut Promised| start(disk, promised).map(drop);
        let runs = every_mishap_twice(&disk, &Promised::default(), work, again, judge);
        assert!(runs > 1000, "{runs} runs");
    }
}
