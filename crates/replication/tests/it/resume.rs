//! Snapshots whose transfer breaks off: over gRPC, piece by piece, and between replicas whose connection breaks.

use std::io::Read as _;
use std::time::Duration;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use replication::{HostOptions, SnapshotFile, Start};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::common::trio::{Trio, World, begin};
use crate::common::{PATIENCE, client_of, envelope, put, settle, small_options};

/// A leader's side of a transfer, done by hand.
struct Sender {
    client: RaftServiceClient<Channel>,
    bytes: Vec<u8>,
    header: wire::SnapshotHeader,
    term: u64,
}

impl Sender {
    fn of(file: &SnapshotFile, client: RaftServiceClient<Channel>) -> Self {
        let mut bytes = Vec::new();
        file.read().unwrap().read_to_end(&mut bytes).unwrap();
        let info = file.info();
        let header = wire::SnapshotHeader {
            last_log_id: Some(wire::LogId {
                term: info.applied.term,
                node_id: 0,
                index: info.applied.index,
            }),
            bytes: info.bytes,
            hash: info.hash.to_vec().into(),
            ..wire::SnapshotHeader::default()
        };
        Self {
            client,
            bytes,
            header,
            term: info.applied.term,
        }
    }

    fn vote(term: u64) -> Option<wire::Vote> {
        Some(wire::Vote {
            term,
            node_id: 2,
            committed: true,
        })
    }

    /// A snapshot of the same length that was never sent.
    fn other(&self) -> wire::SnapshotHeader {
        wire::SnapshotHeader {
            hash: vec![1; 32].into(),
            ..self.header.clone()
        }
    }

    async fn offer(
        &mut self,
        term: u64,
        header: &wire::SnapshotHeader,
    ) -> wire::OfferSnapshotResponse {
        let offer = wire::OfferSnapshotRequest {
            envelope: Some(envelope(2, 1)),
            vote: Self::vote(term),
            header: Some(header.clone()),
        };
        self.client
            .offer_snapshot(offer)
            .await
            .unwrap()
            .into_inner()
    }

    /// Where the receiver wants to have the snapshot from.
    async fn kept(&mut self) -> u64 {
        let header = self.header.clone();
        let answer = self.offer(self.term, &header).await;
        assert_eq!(answer.higher_vote, None);
        answer.offset
    }

    /// Sends from one byte to another.
    async fn send(
        &mut self,
        term: u64,
        header: wire::SnapshotHeader,
        from: usize,
        to: usize,
    ) -> Result<Option<wire::Vote>, Status> {
        let first = wire::InstallSnapshotRequest {
            envelope: Some(envelope(2, 1)),
            vote: Self::vote(term),
            header: Some(header),
            offset: from as u64,
            data: self.bytes[from..to].to_vec().into(),
        };
        let stream = futures::stream::iter([first]);
        let answer = self.client.install_snapshot(stream).await?;
        Ok(answer.into_inner().vote)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_says_where_to_go_on_and_takes_no_other_place() {
    let world = World::simulated(small_options());
    let leader = world.open(2, None).await;
    let members = vec![leader.member()];
    let (group, machine) = begin(&leader.host, Start::Bootstrap { members }).await;
    settle(&group).await;
    put(&group, &"x".repeat(50_000), 3).await.unwrap();
    let file = group.take_snapshot().await.unwrap();
    let node = world.open(1, None).await;
    let (follower, filled) = begin(&node.host, Start::Join).await;
    let mut sender = Sender::of(&file, client_of(&node));
    let (term, header, whole) = (sender.term, sender.header.clone(), sender.bytes.len());

    assert_eq!(sender.kept().await, 0);
    let short = sender.send(term, header.clone(), 0, 20_000).await;
    assert_eq!(short.unwrap_err().code(), Code::DataLoss);
    assert_eq!(sender.kept().await, 20_000);
    let other = sender.other();
    assert_eq!(sender.offer(term, &other).await.offset, 0);
    for (header, from) in [
        (header.clone(), 20_001),
        (header.clone(), 19_999),
        (header.clone(), whole),
        (other, 20_000),
    ] {
        let refused = sender.send(term, header, from, whole).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        assert_eq!(sender.kept().await, 20_000);
    }
    assert_eq!(node.host.resumed_snapshot_bytes(), 0);
    let rest = sender.send(term, header.clone(), 20_000, whole).await;
    assert_eq!(rest.unwrap().unwrap().term, term);
    assert_eq!(node.host.resumed_snapshot_bytes(), 20_000);
    assert_eq!(filled.state(), machine.state());
    assert_eq!(follower.latest_snapshot().unwrap().info(), file.info());

    // It comes again, and nothing of it must be sent.
    assert_eq!(sender.kept().await, whole as u64);
    let again = sender.send(term, header, whole, whole).await;
    assert_eq!(again.unwrap().unwrap().term, term);
    node.kill().await;
    leader.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_the_past_spoils_nothing() {
    let world = World::simulated(small_options());
    let leader = world.open(2, None).await;
    let members = vec![leader.member()];
    let (group, _) = begin(&leader.host, Start::Bootstrap { members }).await;
    settle(&group).await;
    put(&group, &"x".repeat(50_000), 3).await.unwrap();
    let file = group.take_snapshot().await.unwrap();
    let node = world.open(1, None).await;
    let (follower, _) = begin(&node.host, Start::Join).await;
    let mut sender = Sender::of(&file, client_of(&node));
    let (old, whole) = (sender.term, sender.bytes.len());
    sender.term = old + 5;
    let (term, header) = (sender.term, sender.header.clone());
    sender.send(term, header, 0, whole).await.unwrap();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while follower.status().term < term {
        assert!(runtime.now() < deadline, "{:?}", follower.status());
        runtime.sleep(Duration::from_millis(1)).await;
    }

    let newer = sender.other();
    let short = sender.send(term, newer.clone(), 0, 20_000).await;
    assert_eq!(short.unwrap_err().code(), Code::DataLoss);
    assert_eq!(sender.offer(term, &newer).await.offset, 20_000);
    let older = wire::SnapshotHeader {
        hash: vec![2; 32].into(),
        ..newer.clone()
    };
    let answer = sender.offer(old, &older).await;
    assert_eq!(answer.higher_vote.unwrap().term, term);
    let refused = sender.send(old, older, 0, whole).await.unwrap();
    assert_eq!(refused.unwrap().term, term);
    assert_eq!(sender.offer(term, &newer).await.offset, 20_000);
    node.kill().await;
    leader.kill().await;
}

/// What became of a transfer whose first connection broke when it had carried so many bytes.
struct Broken {
    /// Bytes that the leader sent since.
    sent: u64,
    /// Bytes that it did not have to send again.
    resumed: u64,
    /// Bytes of the snapshot.
    whole: u64,
}

const BREAK_AFTER: u64 = 12 << 20;

/// A follower needs a snapshot of 16 MiB, and the first connection that it comes over breaks.
async fn a_connection_breaks(is_older: bool) -> Broken {
    const NAMES: u64 = 16;
    const NAME_BYTES: usize = 1 << 20;
    // Large segments: no snapshot is wanted for the log's sake.
    let mut world = World::simulated(HostOptions::default());
    if is_older {
        world.older.extend(1..=3);
    }
    let mut trio = Trio::within(world).await;
    let (leads, others) = trio.roles().await;
    let behind = others[0];
    trio.kill(behind).await;
    let leader = trio.leader().await;
    assert_eq!(leader.node.id.0, leads);
    let missed = put(&leader.group, "missed", 1).await.unwrap().index;
    leader.group.take_snapshot().await.unwrap();
    for number in 0..NAMES {
        let name = format!("{number}-{}", "x".repeat(NAME_BYTES));
        put(&leader.group, &name, 1).await.unwrap();
    }
    let mut file = leader.group.take_snapshot().await.unwrap();
    put(&leader.group, "after", 1).await.unwrap();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    while leader.group.status().purged < Some(missed) {
        assert!(runtime.now() < deadline, "{:?}", leader.group.status());
        file = leader.group.take_snapshot().await.unwrap();
        runtime.sleep(Duration::from_millis(10)).await;
    }
    let whole = file.info().bytes;
    assert!(whole > BREAK_AFTER + (2 << 20));

    // The third, which has all of the log, must not lead instead.
    trio.kill(others[1]).await;
    let links = trio.world.links.clone();
    links.break_after(leads, behind, BREAK_AFTER);
    let before = links.sent(leads, behind);
    trio.revive(behind).await;
    trio.agree().await;
    assert!(!links.will_break(leads, behind), "no connection was broken");
    let sent = links.sent(leads, behind) - before;
    let filled = &trio.replicas[&behind];
    let resumed = filled.node.host.resumed_snapshot_bytes();
    // It is restored first and named then.
    let deadline = runtime.now() + PATIENCE;
    while filled.group.latest_snapshot().is_none() {
        assert!(runtime.now() < deadline, "no snapshot was sent");
        runtime.sleep(Duration::from_millis(10)).await;
    }
    let received = filled.group.latest_snapshot().unwrap();
    assert_eq!(received.info(), file.info());
    trio.end().await;
    Broken {
        sent,
        resumed,
        whole,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_costs_only_what_was_under_way() {
    let Broken {
        sent,
        resumed,
        whole,
    } = a_connection_breaks(false).await;
    let twice = BREAK_AFTER + whole;
    assert!(resumed > 4 << 20, "{sent} {resumed} {whole}");
    assert!(sent >= whole, "{sent} {resumed} {whole}");
    // Entries, votes and heartbeats are not many.
    assert!(
        sent + resumed < twice + (2 << 20),
        "{sent} {resumed} {whole}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_an_older_version_is_sent_everything_again() {
    let Broken {
        sent,
        resumed,
        whole,
    } = a_connection_breaks(true).await;
    assert_eq!(resumed, 0);
    assert!(sent >= BREAK_AFTER + whole, "{sent} {whole}");
}
