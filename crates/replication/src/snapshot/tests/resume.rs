//! Transfers that break off, wherever they do, and what may go on from there.

use super::*;

/// Bytes of a piece; small, so that there are many boundaries.
const PIECE: usize = 1000;

/// A snapshot somewhere, and an empty store that is to have it.
struct Transfer {
    bytes: Vec<u8>,
    announced: Announced,
    disk: SimDisk,
    to: SnapshotStore,
    begun: u64,
}

impl Transfer {
    fn of(body_bytes: u32) -> Self {
        let body: Vec<u8> = (0..body_bytes).map(|n| n.to_le_bytes()[1]).collect();
        let (elsewhere, from) = disk();
        let sent = take(&store(&elsewhere).0, 10, &body);
        let bytes = from.contents(sent.path()).unwrap();
        let announced = Announced {
            bytes: bytes.len() as u64,
            hash: sent.info().hash,
            index: 10,
        };
        let (vfs, disk) = disk();
        let (to, _) = store(&vfs);
        Self {
            bytes,
            announced,
            disk,
            to,
            begun: 0,
        }
    }

    /// Another snapshot of the same length.
    fn other(&self) -> Announced {
        Announced {
            hash: [1; 32],
            ..self.announced
        }
    }

    fn begin(&mut self, announced: Announced, from: usize) -> Result<Receiver, ReceiveError> {
        self.begun += 1;
        Receiver::begin(&self.to, announced, from as u64, self.begun)
    }

    /// Sends from one place to another, in pieces.
    fn send(&mut self, from: usize, to: usize) -> Receiver {
        let mut receiver = self.begin(self.announced, from).unwrap();
        let mut offset = from;
        for piece in self.bytes[from..to].chunks(PIECE) {
            receiver.take(offset as u64, piece).unwrap();
            offset += piece.len();
        }
        receiver
    }

    fn break_off_at(&mut self, at: usize) {
        drop(self.send(0, at));
        assert_eq!(self.kept(), Some(at as u64));
    }

    fn kept(&self) -> Option<u64> {
        self.to.kept_of(&self.announced)
    }

    /// Takes the last step, and compares what is there then with what was sent.
    fn publish(&self, mut receiver: Receiver) {
        receiver.verify().unwrap();
        let file = receiver.into_file().unwrap();
        let info = file.info().clone();
        let published = self
            .to
            .publish(file.path(), file.header().clone(), info)
            .unwrap();
        let written = self.disk.contents(published.path()).unwrap();
        assert_eq!(written, self.bytes);
    }

    fn files(&self) -> Vec<PathBuf> {
        let dir = Path::new("/snapshots/0000000000000003");
        let names = self.disk.list_dir(dir).unwrap().into_iter();
        names.map(|entry| dir.join(entry.name)).collect()
    }
}

#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let whole = Transfer::of(10_000).bytes.len();
    let cuts = (0..whole).step_by(PIECE / 2);
    for cut in cuts.chain([1, whole - 1, whole]) {
        let mut transfer = Transfer::of(10_000);
        transfer.break_off_at(cut);
        assert_eq!(transfer.files().len(), usize::from(cut > 0));
        let rest = transfer.send(cut, whole);
        transfer.publish(rest);
        assert_eq!(transfer.files().len(), 1, "cut at {cut}");
    }
}

#[test]
fn a_transfer_may_break_off_again_and_again() {
    let mut transfer = Transfer::of(10_000);
    let whole = transfer.bytes.len();
    let mut at = 0;
    while at < whole {
        let next = (at + 700).min(whole);
        drop(transfer.send(at, next));
        assert_eq!(transfer.kept(), Some(next as u64));
        at = next;
    }
    // Also when it was verified, and nobody waited for that.
    for _ in 0..2 {
        let mut receiver = transfer.send(whole, whole);
        receiver.verify().unwrap();
        drop(receiver);
        assert_eq!(transfer.kept(), Some(whole as u64));
    }
    let receiver = transfer.send(whole, whole);
    transfer.publish(receiver);
}

#[test]
fn a_sender_that_ends_too_early_may_go_on() {
    let mut transfer = Transfer::of(10_000);
    let whole = transfer.bytes.len();
    let mut short = transfer.send(0, 4321);
    assert!(short.verify().is_err());
    drop(short);
    let rest = transfer.send(4321, whole);
    transfer.publish(rest);
}

#[test]
fn only_the_same_snapshot_goes_on_and_only_where_it_ended() {
    let mut transfer = Transfer::of(10_000);
    transfer.break_off_at(5000);
    let cases = [
        (transfer.announced, 4999, 5000),
        (transfer.announced, 5001, 5000),
        (transfer.other(), 5000, 0),
    ];
    for (announced, offset, here) in cases {
        let refused = transfer.begin(announced, offset).unwrap_err();
        let ReceiveError::Elsewhere { here: found, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(found, here);
        assert_eq!(transfer.kept(), Some(5000), "nothing is lost by it");
    }
    assert_eq!(transfer.to.kept_of(&transfer.other()), Some(0));
    // Another one takes its place.
    let mut other = transfer.begin(transfer.other(), 0).unwrap();
    assert_eq!(transfer.files().len(), 1);
    other.take(0, &[0; 10]).unwrap();
    drop(other);
    assert_eq!(transfer.kept(), Some(0));
    assert_eq!(transfer.to.kept_of(&transfer.other()), Some(10));
    assert_eq!(transfer.files().len(), 1);
}

#[test]
fn a_sender_that_never_asks_begins_anew() {
    let mut transfer = Transfer::of(10_000);
    transfer.break_off_at(5000);
    let whole = transfer.bytes.len();
    let all = transfer.send(0, whole);
    transfer.publish(all);
    assert_eq!(transfer.files().len(), 1);
}

#[test]
fn what_is_damaged_is_not_kept() {
    // More than is held back in memory, so that some of it lies on the disk.
    let mut transfer = Transfer::of(400_000);
    let whole = transfer.bytes.len();
    transfer.break_off_at(300_000);
    let [file] = transfer.files().try_into().unwrap();
    transfer.disk.flip_bit(&file, 9_000).unwrap();
    let mut rest = transfer.send(300_000, whole);
    let error = rest.verify().unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    drop(rest);
    assert_eq!(transfer.kept(), Some(0));
    assert_eq!(transfer.files(), [] as [PathBuf; 0]);
    let all = transfer.send(0, whole);
    transfer.publish(all);
}

#[test]
fn pieces_out_of_order_cost_what_came_before() {
    let mut transfer = Transfer::of(10_000);
    let mut receiver = transfer.send(0, 5000);
    assert!(receiver.take(5001, &[0; 10]).is_err());
    assert!(receiver.take(5000, &[0; 10]).is_err(), "it has ended");
    drop(receiver);
    assert_eq!(transfer.kept(), Some(0));
    assert_eq!(transfer.files(), [] as [PathBuf; 0]);
}

#[test]
fn one_at_a_time_until_it_has_its_name() {
    let mut transfer = Transfer::of(10_000);
    let whole = transfer.bytes.len();
    let mut receiver = transfer.send(0, whole);
    let is_refused = |transfer: &mut Transfer| {
        assert_eq!(transfer.kept(), None);
        let refused = transfer.begin(transfer.other(), 0);
        assert!(matches!(refused, Err(ReceiveError::Busy)));
    };
    is_refused(&mut transfer);
    receiver.verify().unwrap();
    let file = receiver.into_file().unwrap();
    is_refused(&mut transfer);
    let (header, info) = (file.header().clone(), file.info().clone());
    transfer.to.publish(file.path(), header, info).unwrap();
    drop(file);
    assert_eq!(
        transfer.kept(),
        Some(whole as u64),
        "a snapshot that is here is not sent again"
    );
    transfer.begin(transfer.other(), 0).unwrap();
}

#[test]
fn only_what_is_missing_must_find_room() {
    let mut transfer = Transfer::of(400_000);
    let whole = transfer.bytes.len();
    transfer.break_off_at(300_000);
    let room = |transfer: &Transfer, bytes: usize| {
        let used = transfer.disk.used_bytes();
        transfer.disk.set_capacity(Some(used + bytes as u64));
    };
    room(&transfer, whole - 300_000);
    drop(transfer.begin(transfer.announced, 300_000).unwrap());
    assert_eq!(transfer.kept(), Some(300_000));
    room(&transfer, whole - 300_001);
    let Err(ReceiveError::Snapshot(full)) = transfer.begin(transfer.announced, 300_000) else {
        panic!("there is no room");
    };
    assert!(full.is_disk_full(), "{full}");
    // The log needs the room more.
    assert_eq!(transfer.files(), [] as [PathBuf; 0]);
    // What is removed counts for what takes its place.
    transfer.disk.set_capacity(None);
    transfer.break_off_at(300_000);
    room(&transfer, whole - 200_000);
    drop(transfer.begin(transfer.other(), 0).unwrap());
}

#[test]
fn what_nobody_needs_any_more_is_removed() {
    // By a newer snapshot of this replica's own.
    let mut transfer = Transfer::of(10_000);
    transfer.break_off_at(5000);
    take(&transfer.to, 9, b"own");
    assert_eq!(transfer.kept(), Some(5000));
    take(&transfer.to, 10, b"own");
    assert_eq!(transfer.kept(), Some(0));
    assert_eq!(transfer.files().len(), 2);

    // By the end of the replica, also where it ends under a transfer.
    let mut transfer = Transfer::of(10_000);
    transfer.break_off_at(5000);
    let receiver = transfer.send(5000, 6000);
    transfer.to.end_intake();
    drop(receiver);
    assert_eq!(transfer.files(), [] as [PathBuf; 0]);

    // By a start.
    let mut transfer = Transfer::of(400_000);
    transfer.break_off_at(300_000);
    let left = transfer.disk.restart();
    let vfs: Arc<dyn Vfs> = Arc::new(left);
    let (again, found) = store(&vfs);
    assert_eq!(found.temporaries, 1);
    assert_eq!(again.kept_of(&transfer.announced), Some(0));
}
