use vfs::{SimDisk, Vfs};
use wal::{GroupId, Identity, Record, Vote, WalOptions, Writer};

use super::*;
use crate::host::open_log;

const GROUP: GroupId = GroupId(1);

/// A member of a group, on a disk of its own.
pub(in crate::network) struct Member {
    disk: SimDisk,
    fault: NodeFault,
    pub(in crate::network) standings: Arc<Standings>,
    wal: Wal,
}

/// `drawn` tells its life from those of other copies of its disk.
pub(in crate::network) fn member(node: u64, drawn: u32, disk: SimDisk) -> Member {
    let owner = Identity {
        cluster_id: [7; 16],
        node_id: node,
    };
    let dir = std::path::Path::new("/wal");
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    vfs::durable::create_dir(&disk, dir).unwrap();
    let options = WalOptions::small();
    let (wal, _, starts) = open_log(&vfs, dir, owner, options, Writer::Inline, drawn).unwrap();
    let fault = NodeFault::new();
    let own = Own::new(node, starts, wal.clone(), fault.clone());
    Member {
        disk,
        fault,
        standings: Standings::of(&Arc::new(own)),
        wal,
    }
}

impl Member {
    fn vote(&self, term: u64) {
        let vote = Vote {
            term,
            node: 1,
            committed: false,
        };
        self.wal
            .append_sync(GROUP, vec![Record::Vote(vote)])
            .unwrap();
    }

    /// After the end of the process and the loss of what was not synced.
    fn again(self, drawn: u32) -> Self {
        let node = self.standings.own().node_id;
        member(node, drawn, self.disk.crash_losing_all())
    }

    fn hears(&self, other: &Self) -> Result<(), Behind> {
        let from = other.standings.own().node_id;
        self.standings.hear(from, &other.standings.all())
    }

    fn is_set_back(&self) -> bool {
        assert_eq!(self.fault.is_set_back(), self.fault.is_told());
        self.fault.is_set_back()
    }
}

#[test]
fn who_lost_nothing_is_believed_over_any_number_of_starts() {
    let one = member(1, 10, SimDisk::new());
    let mut two = member(2, 20, SimDisk::new());
    for life in 21..30 {
        two.vote(u64::from(life) * 10);
        one.hears(&two).unwrap();
        two.hears(&one).unwrap();
        two.vote(u64::from(life) * 10 + 1);
        let late = two.standings.all();
        one.hears(&two).unwrap();
        two = two.again(life);
        two.hears(&one).unwrap();
        one.hears(&two).unwrap();
        // What an earlier process said, and comes now, counts no more, and harms nobody.
        let heard = one.standings.hear(2, &late);
        assert!(matches!(heard, Ok(()) | Err(Behind::Peer { node: 2, .. })));
        two.hears(&one).unwrap();
    }
    assert!(!one.is_set_back() && !two.is_set_back());
}

/// A member, another one that it has heard, and an older copy of the other's disk.
fn heard_after_its_copy() -> (Member, Member, SimDisk) {
    let one = member(1, 10, SimDisk::new());
    let two = member(2, 20, SimDisk::new());
    two.vote(5);
    let old = two.disk.crash_losing_all();
    two.vote(6);
    one.hears(&two).unwrap();
    (one, two, old)
}

#[test]
fn a_disk_that_was_set_back_is_found_out_by_both_sides() {
    let (one, two, old) = heard_after_its_copy();
    for disk in [old, SimDisk::new()] {
        let two = member(2, 21, disk);
        let told = Place {
            segment: 1,
            ..Place::default()
        };
        assert!(
            matches!(one.hears(&two), Err(Behind::Peer { node: 2, told: end, .. }) if end > told)
        );
        assert!(!two.is_set_back());
        assert!(matches!(two.hears(&one), Err(Behind::Own { .. })));
        assert!(two.is_set_back() && two.fault.silence().is_cancelled());
        // However far it writes by itself.
        for term in 7..40 {
            two.vote(term);
        }
        assert!(matches!(one.hears(&two), Err(Behind::Peer { node: 2, .. })));
        assert!(matches!(two.hears(&one), Err(Behind::Own { .. })));
    }
    let sound = two.again(22);
    one.hears(&sound).unwrap();
    sound.hears(&one).unwrap();
}

/// Each start begins a segment, so that an older copy is soon further on than the newer one was.
#[test]
fn a_disk_that_was_set_back_is_told_after_any_number_of_starts_that_nobody_heard_of() {
    let (one, _, old) = heard_after_its_copy();
    let mut two = member(2, 21, old);
    for again in 22..30 {
        two = two.again(again);
        two.vote(u64::from(again));
    }
    // It is heard, for others may have come in between; but it has to hear what it had.
    one.hears(&two).unwrap();
    let learned = member(3, 30, SimDisk::new());
    learned.hears(&one).unwrap();
    assert!(matches!(two.hears(&learned), Err(Behind::Own { .. })));
    assert!(two.is_set_back());
}

#[test]
fn starts_that_nobody_heard_of_harm_nobody_who_lost_nothing() {
    let one = member(1, 10, SimDisk::new());
    let mut two = member(2, 20, SimDisk::new());
    for round in 0..20 {
        two.vote(u64::from(round) + 5);
        one.hears(&two).unwrap();
        for again in 0..round {
            two = two.again(100 * round + again);
        }
        two.hears(&one).unwrap();
        one.hears(&two).unwrap();
        assert!(one.standings.all().len() <= 1 + LIVES_MAX);
    }
    assert!(!one.is_set_back() && !two.is_set_back());
}

#[test]
fn what_is_said_of_an_older_copy_does_not_take_the_place_of_what_is_known() {
    let (one, _, old) = heard_after_its_copy();
    let older = member(2, 21, old).again(22);
    let ignorant = member(3, 30, SimDisk::new());
    ignorant.hears(&older).unwrap();
    one.hears(&ignorant).unwrap();
    assert!(matches!(older.hears(&one), Err(Behind::Own { .. })));
}

#[test]
fn what_one_member_knows_does_not_go_with_it() {
    let leader = member(1, 10, SimDisk::new());
    let follower = member(2, 20, SimDisk::new());
    let two = member(3, 30, SimDisk::new());
    let old = two.disk.crash_losing_all();
    two.vote(6);
    leader.hears(&two).unwrap();
    follower.hears(&leader).unwrap();
    drop((leader, two));
    let two = member(3, 31, old);
    assert!(matches!(two.hears(&follower), Err(Behind::Own { .. })));
    assert!(matches!(
        follower.hears(&two),
        Err(Behind::Peer { node: 3, .. })
    ));
}

#[test]
fn memory_that_was_set_back_with_the_disk_is_found_out() {
    let one = member(1, 10, SimDisk::new());
    let two = member(2, 20, SimDisk::new());
    two.vote(5);
    let old = two.disk.crash_losing_all();
    let two = two.again(21);
    for term in 6..20 {
        two.vote(term);
    }
    one.hears(&two).unwrap();
    let same_life = member(2, 21, old);
    one.hears(&same_life).unwrap();
    assert!(matches!(same_life.hears(&one), Err(Behind::Own { .. })));
}

#[test]
fn messages_that_overtake_each_other_change_nothing() {
    let one = member(1, 10, SimDisk::new());
    let two = member(2, 20, SimDisk::new());
    let early = two.standings.all();
    two.vote(5);
    one.hears(&two).unwrap();
    let known = one.standings.all();
    one.standings.hear(2, &early).unwrap();
    one.standings.hear(3, &early[..1]).unwrap();
    assert_eq!(one.standings.all(), known);
}

#[test]
fn a_byte_that_changed_on_the_way_condemns_nobody() {
    let one = member(1, 10, SimDisk::new());
    let two = member(2, 20, SimDisk::new());
    one.hears(&two).unwrap();
    two.hears(&one).unwrap();
    let known = two.standings.all();
    let said = one.standings.all();
    for (place, whose) in [(0, 1), (1, 2)] {
        for bit in 0..64 {
            let mut changed = said.clone();
            changed[place].segment ^= 1 << bit;
            let heard = two.standings.hear(1, &changed);
            assert_eq!(heard, Err(Behind::Damaged { node: whose }));
        }
    }
    assert!(!two.is_set_back());
    assert_eq!(two.standings.all(), known);
}

#[test]
fn only_so_many_members_are_told_of_and_remembered() {
    let one = member(1, 10, SimDisk::new());
    let of = |node_id| {
        sealed(wire::Standing {
            node_id,
            segment: 1,
            ..wire::Standing::default()
        })
    };
    let many: Vec<wire::Standing> = (2..=65).map(of).collect();
    one.standings.hear(9, &many).unwrap();
    for node in 100..300 {
        one.standings.hear(node, &[of(node)]).unwrap();
        let told = one.standings.all();
        assert_eq!(told.len(), STANDINGS_MAX);
        assert_eq!((told[0].node_id, told[1].node_id), (1, node));
    }
    let too_many: Vec<wire::Standing> = (2..=66).map(of).collect();
    assert_eq!(
        one.standings.hear(9, &too_many),
        Err(Behind::TooMany { count: 65 })
    );
}
