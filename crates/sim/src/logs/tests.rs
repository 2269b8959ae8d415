use super::*;

const G: GroupId = GroupId(7);
const CLUSTER: Cluster = Cluster {
    of_shards: true,
    majority: 2,
};

fn disk(number: u64) -> Disk {
    Disk {
        name: format!("disk-{number}"),
        cluster: CLUSTER,
        node: number,
        segments: BTreeMap::new(),
        groups: BTreeMap::new(),
        is_old: false,
    }
}

fn entry(term: u64, index: u64, payload: &'static [u8]) -> RecordKind {
    RecordKind::Entry {
        group: G,
        term,
        node: 0,
        index,
        kind: 0,
        stored_bytes: 0,
        compression: wal::inspect::Compression::None,
        chain: 0,
        payload: bytes::Bytes::from_static(payload),
    }
}

fn vote(term: u64, node: u64, committed: bool) -> RecordKind {
    let vote = Vote {
        term,
        node,
        committed,
    };
    RecordKind::Vote { group: G, vote }
}

const fn committed(index: u64) -> RecordKind {
    RecordKind::Committed { group: G, index }
}

/// What is said of records that reach two disks, after both have synced what was given first, and all votes.
fn verdict(synced: &[(u64, u64, u64)], records: &[(u64, RecordKind)]) -> String {
    let mut logs = Logs::default();
    for (host, index, term) in synced {
        let host = HostId::try_from(*host).unwrap();
        let key = ((CLUSTER, G), *index, *term);
        logs.synced.entry(key).or_default().insert((host, 0));
    }
    for (_, record) in records {
        if let RecordKind::Vote { group, vote } = record {
            let key = ((CLUSTER, *group), vote.term, vote.node);
            logs.voted.insert(key, BTreeSet::from([(1, 0), (2, 0)]));
        }
    }
    let mut disks = [disk(1), disk(2)];
    for (number, record) in records {
        let disk = disks.iter_mut().find(|disk| disk.node == *number).unwrap();
        logs.record(disk, record.clone());
    }
    logs.problems.join("; ")
}

#[test]
fn a_term_has_one_leader() {
    let sound = [
        (1, vote(3, 1, true)),
        (2, vote(3, 1, true)),
        (2, vote(4, 2, true)),
    ];
    assert_eq!(verdict(&[], &sound), "");
    let two = [(1, vote(3, 1, true)), (2, vote(3, 2, true))];
    assert!(verdict(&[], &two).contains("is led by 1 and 2"));
}

#[test]
fn a_vote_never_goes_back() {
    for (first, then) in [
        (vote(3, 1, false), vote(2, 1, false)),
        (vote(3, 1, false), vote(3, 2, false)),
        (vote(3, 1, true), vote(3, 1, false)),
        (vote(3, 1, true), vote(3, 2, false)),
    ] {
        let said = verdict(&[], &[(2, first), (2, then)]);
        assert!(said.contains("after Vote"), "{said}");
    }
    let won = [(2, vote(3, 1, false)), (2, vote(3, 2, true))];
    assert_eq!(verdict(&[], &won), "");
}

#[test]
fn a_vote_is_not_forgotten_by_leaving_a_group() {
    let remove = RecordKind::Remove { group: G };
    let said = |node: u64, then: &[RecordKind]| {
        let mut logs = Logs::default();
        for candidate in [1, 2] {
            logs.promises.keep((CLUSTER, G), 9, 5, candidate);
        }
        logs.promises.keep((CLUSTER, G), 2, 3, 1);
        let mut disk = disk(node);
        logs.record(&mut disk, vote(3, 1, false));
        logs.record(&mut disk, remove.clone());
        for record in then {
            logs.record(&mut disk, record.clone());
        }
        logs.problems.join("; ")
    };
    for then in [vote(3, 3, false), vote(2, 1, false)] {
        let then = std::slice::from_ref(&then);
        assert!(said(2, then).contains("after 1 in term 3"));
        // Another one that has its place has promised nothing.
        assert_eq!(said(4, then), "");
    }
    // What is written anew, who follows a leader, and who votes in a later term breaks nothing.
    let anew = [vote(3, 1, false), remove.clone(), vote(4, 3, false)];
    assert_eq!(said(2, &anew), "");
    assert_eq!(said(2, &[vote(3, 3, true), vote(4, 3, false)]), "");
}

#[test]
fn what_a_node_promised_before_its_disk_was_set_back_is_for_others_to_tell() {
    for (comes_back, is_forgotten) in [(true, true), (false, false)] {
        let mut logs = Logs::default();
        logs.promises.keep((CLUSTER, G), 2, 3, 1);
        logs.disks.insert(2, disk(2));
        logs.lose(2, comes_back);
        logs.record(&mut disk(2), vote(3, 3, false));
        assert_eq!(logs.problems.is_empty(), is_forgotten);
    }
}

#[test]
fn a_disk_that_was_lost_is_no_copy() {
    let lost_at = std::time::Duration::from_secs(100);
    let committed_after = |seconds: u64, again: bool| {
        trace::set_now(lost_at);
        let mut logs = Logs::default();
        let copies = logs.synced.entry(((CLUSTER, G), 5, 2)).or_default();
        copies.extend([(1, 0), (2, 0)]);
        if again {
            copies.insert((2, 1));
        }
        logs.lives.end(2);
        trace::set_now(lost_at + std::time::Duration::from_secs(seconds));
        let mut disk = disk(1);
        logs.record(&mut disk, entry(2, 5, b"a"));
        logs.record(&mut disk, committed(5));
        trace::set_now(std::time::Duration::ZERO);
        logs.problems.join("; ")
    };
    assert!(committed_after(11, false).contains("is committed with 1 copies"));
    // Shortly after, what it had acknowledged counts; later, what stands on its new disk.
    assert_eq!(committed_after(9, false), "");
    assert_eq!(committed_after(11, true), "");
}

#[test]
fn an_entry_is_what_it_was() {
    let other = [(1, entry(2, 5, b"a")), (2, entry(2, 5, b"b"))];
    assert!(verdict(&[], &other).contains("is not what it was"));
    let newer = [(1, entry(2, 5, b"a")), (2, entry(3, 5, b"b"))];
    assert_eq!(verdict(&[], &newer), "");
}

#[test]
fn what_is_committed_was_synced_by_a_majority_and_stays() {
    let records = [(1, entry(2, 5, b"a")), (1, committed(5))];
    assert_eq!(verdict(&[(1, 5, 2), (3, 5, 2)], &records), "");
    // Two copies of an entry of another term are none of this one.
    for synced in [&[(1, 5, 2)][..], &[(1, 5, 2), (2, 5, 1)], &[]] {
        let said = verdict(synced, &records);
        assert!(said.contains("entry 5 is committed with"), "{said}");
    }
    let both = [(1, 5, 2), (2, 5, 2), (1, 5, 3), (2, 5, 3)];
    let other = [(2, entry(3, 5, b"a")), (2, committed(5))];
    let said = verdict(&both, &[&records[..], &other].concat());
    assert!(said.contains("on disk-1"), "{said}");
    let cut = RecordKind::Truncate {
        group: G,
        from_index: 5,
    };
    let said = verdict(&both, &[&records[..], &[(1, cut)]].concat());
    assert!(said.contains("cut group"), "{said}");
}

#[test]
fn who_wins_has_the_votes_of_a_majority_of_disks() {
    let mut logs = Logs::default();
    let mut won = |votes: &[HostId]| {
        let key = ((CLUSTER, G), 3, 1);
        let disks = votes.iter().map(|host| (*host, 0));
        logs.voted.insert(key, disks.collect());
        logs.record(&mut disk(1), vote(3, 1, true));
        std::mem::take(&mut logs.problems).join("; ")
    };
    assert_eq!(won(&[1, 2]), "");
    assert!(won(&[1]).contains("leads term 3 with 1 votes"));
    // Who follows the one that won needs none, and what is read at a start was done long before.
    logs.record(&mut disk(2), vote(4, 1, true));
    let mut old = Disk {
        is_old: true,
        ..disk(1)
    };
    logs.record(&mut old, vote(5, 1, true));
    assert_eq!(logs.problems, [""; 0]);
}

/// The entries 0 to 5 of term 1, and who holds each. At first 1, 2 and 3 vote; from entry 2 on these, and 1, 2 and 4; from entry 4
/// on the latter alone.
fn changing_voters<'a>(holders: impl Fn(u64) -> &'a [HostId]) -> (Logs, Disk) {
    let mut logs = Logs::default();
    let mut disk = disk(1);
    for host in 1..=4 {
        logs.lives.belongs((host, 0), u64::from(host));
    }
    let set = |nodes: [u64; 3]| BTreeSet::from(nodes.map(NodeId));
    let (old, new) = (set([1, 2, 3]), set([1, 2, 4]));
    for index in 0..=5 {
        let named = match index {
            0 => Some(vec![old.clone()]),
            2 => Some(vec![old.clone(), new.clone()]),
            4 => Some(vec![new.clone()]),
            _ => None,
        };
        let held = Held {
            term: 1,
            node: 0,
            digest: [0; 16],
        };
        logs.entry(&mut disk, G, index, held, named);
        let disks = holders(index).iter().map(|host| (*host, 0));
        let key = ((CLUSTER, G), index, 1);
        logs.synced.insert(key, disks.collect());
    }
    (logs, disk)
}

#[test]
fn what_is_committed_has_a_majority_of_those_who_vote_where_it_stands() {
    for (index, holders, is_right) in [
        (1, &[1, 2][..], true),
        (1, &[2, 3], true),
        (1, &[1, 4], false),
        (2, &[1, 2], true),
        (2, &[2, 3, 4], true),
        (2, &[1, 3], false),
        (2, &[1, 4], false),
        // The set that follows may be named already, and have decided by itself.
        (3, &[1, 4], true),
        (3, &[3, 4], false),
        (5, &[1, 4], true),
        (5, &[1, 3], false),
    ] {
        let all = &[1, 2, 3, 4][..];
        let holders = |other: u64| if other == index { holders } else { all };
        let (mut logs, mut disk) = changing_voters(holders);
        logs.record(&mut disk, committed(5));
        let said = logs.problems.join("; ");
        assert_eq!(said.is_empty(), is_right, "{index}: {said}");
        let told = format!("entry {index} is committed with");
        assert!(is_right || said.contains(&told), "{said}");
    }
}

#[test]
fn where_a_log_has_a_gap_the_voters_are_not_known() {
    let (mut logs, mut disk) = changing_voters(|_| &[1, 2]);
    let key = |index| ((CLUSTER, G), index, 1);
    for (index, is_known) in [(7, false), (8, false), (6, true), (7, true)] {
        logs.record(&mut disk, entry(1, index, b"a"));
        let (group, index, term) = key(index);
        let voters = logs.memberships.of(group, index, term);
        assert_eq!(voters.is_some(), is_known, "{index}");
    }
    // What was purged is still what stands before the next one, unless more was purged than the log had.
    for (upto_index, next, is_known) in [(8, 9, true), (20, 21, false)] {
        let purge = RecordKind::Purge {
            group: G,
            upto_index,
        };
        logs.record(&mut disk, entry(1, 8, b"a"));
        logs.record(&mut disk, purge);
        logs.record(&mut disk, entry(1, next, b"a"));
        let (group, index, term) = key(next);
        let voters = logs.memberships.of(group, index, term);
        assert_eq!(voters.is_some(), is_known, "{next}");
    }
}

#[test]
fn who_wins_has_the_votes_of_those_who_vote() {
    for (last, votes, is_right) in [
        (1, &[1, 2][..], true),
        (3, &[1, 2], true),
        (3, &[1, 3], false),
        // A snapshot may hold more than the log, and name others.
        (3, &[1, 4], true),
        (5, &[1, 4], true),
        (5, &[1, 3], false),
    ] {
        let (mut logs, mut disk) = changing_voters(|_| &[1, 2]);
        let cut = RecordKind::Truncate {
            group: G,
            from_index: last + 1,
        };
        logs.record(&mut disk, cut);
        let disks = votes.iter().map(|host| (*host, 0));
        logs.voted.insert(((CLUSTER, G), 3, 1), disks.collect());
        logs.record(&mut disk, vote(3, 1, true));
        let said = logs.problems.join("; ");
        assert_eq!(said.is_empty(), is_right, "{last}: {said}");
        assert!(is_right || said.contains("leads term 3 with"), "{said}");
    }
}

#[test]
fn a_leader_has_all_that_was_committed_in_earlier_terms() {
    let synced = [(1, 5, 2), (2, 5, 2), (3, 5, 2)];
    let records = [
        (1, vote(2, 1, true)),
        (1, entry(2, 5, b"a")),
        (1, committed(5)),
    ];
    let lacks = [(2, vote(3, 2, true))];
    let said = verdict(&synced, &[&records[..], &lacks].concat());
    assert!(said.contains("leads term 3 without entry 5"), "{said}");
    let has = [(2, entry(2, 5, b"a")), (2, vote(3, 2, true))];
    assert_eq!(verdict(&synced, &[&records[..], &has].concat()), "");
    let purged = RecordKind::Purge {
        group: G,
        upto_index: 5,
    };
    let has = [(2, purged), (2, vote(3, 2, true))];
    assert_eq!(verdict(&synced, &[&records[..], &has].concat()), "");
    // Of an earlier term, and committed by a leader of a later one.
    let later = [
        (1, vote(4, 1, true)),
        (1, entry(2, 5, b"a")),
        (1, committed(5)),
    ];
    assert_eq!(verdict(&synced, &[&later[..], &lacks].concat()), "");
}

#[test]
fn a_lead_is_outlived_once_another_one_has_won_and_until_that_is_heard() {
    let mut logs = Logs::default();
    let hear = |logs: &mut Logs, number: u64, record: RecordKind| {
        let host = HostId::try_from(number).unwrap();
        let known = logs.disks.remove(&host);
        let mut disk = known.unwrap_or_else(|| Disk {
            is_old: true,
            ..disk(number)
        });
        logs.record(&mut disk, record);
        logs.disks.insert(host, disk);
    };
    hear(&mut logs, 1, vote(3, 1, true));
    hear(&mut logs, 2, vote(3, 1, true));
    assert!(logs.outlived(1).is_empty());
    hear(&mut logs, 2, vote(4, 2, true));
    assert_eq!(logs.outlived(1), [G]);
    assert!(logs.outlived(2).is_empty());
    hear(&mut logs, 1, vote(4, 2, true));
    assert!(logs.outlived(1).is_empty());
    assert_eq!(logs.problems, [""; 0]);
}

#[test]
fn a_segment_that_came_back_behind_a_gap_is_not_the_log() {
    let paths = |numbers: &[u64]| {
        let path = |number| Path::new(tap::LOG).join(format!("{number:020}.wal"));
        numbers.iter().map(path).collect::<Vec<_>>()
    };
    for (found, log) in [
        (&[][..], &[][..]),
        (&[4], &[4]),
        (&[4, 5, 6], &[4, 5, 6]),
        (&[4, 6, 7], &[6, 7]),
        (&[2, 4, 5, 7], &[7]),
    ] {
        assert_eq!(newest_run(paths(found)), paths(log), "{found:?}");
    }
}

/// A truncation may be among what cannot be read, and what it took away seem to be committed by what follows.
#[test]
fn a_log_with_a_hole_tells_nothing() {
    let disk = SimDisk::new();
    let folder = Path::new(tap::LOG);
    let owner = wal::Identity {
        cluster_id: [7; 16],
        node_id: 1,
    };
    let vfs = std::sync::Arc::new(disk.clone());
    let options = wal::WalOptions::small();
    let (wal, _) = wal::Wal::open(vfs, folder, owner, options, wal::Writer::Inline).unwrap();
    for index in 0..200 {
        let new = wal::Entry {
            id: wal::LogId {
                term: 1,
                node: 1,
                index,
            },
            kind: 3,
            payload: bytes::Bytes::from(vec![index as u8; 300]),
        };
        wal.append_sync(G, vec![wal::Record::Entry(new)]).unwrap();
    }
    let known = |disk: &SimDisk| {
        let mut logs = Logs::default();
        logs.start(1, "disk-1", CLUSTER, disk);
        logs.disks[&1]
            .groups
            .get(&G)
            .map_or(0, |log| log.entries.len())
    };
    assert_eq!(known(&disk.restart()), 200);
    let rotten = disk.restart();
    let names = rotten.list_dir(folder).unwrap().into_iter();
    let paths = names.map(|entry| folder.join(entry.name));
    let oldest = paths.filter(|path| tap::is_segment(path)).min().unwrap();
    rotten.flip_bit(&oldest, 8 * 600).unwrap();
    assert_eq!(known(&rotten), 0);
}
