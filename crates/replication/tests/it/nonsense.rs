//! Messages that no sound peer sends: refused, and without effect.

use api::raft::v1 as wire;
use replication::Role;
use tonic::Code;

use crate::common::trio::Trio;
use crate::common::{client_of, envelope};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_says_it_was_granted_makes_nobody_lead() {
    let trio = Trio::new().await;
    let (leads, others) = trio.roles().await;
    let (to, from) = (others[0], others[1]);
    let victim = &trio.replicas[&to];
    let before = victim.group.status();
    let last = before.last_log.unwrap() + 1_000;
    // The receiver itself would be the leader by it, and nobody has voted.
    for (node_id, pre_vote) in [(to, false), (to, true), (from, false)] {
        let request = wire::VoteRequest {
            envelope: Some(envelope(from, to)),
            vote: Some(wire::Vote {
                term: before.term + 1,
                node_id,
                committed: true,
            }),
            last_log_id: Some(wire::LogId {
                term: before.term,
                node_id: 0,
                index: last,
            }),
            leadership_transfer: true,
            pre_vote,
            ..wire::VoteRequest::default()
        };
        let refused = client_of(&victim.node).vote(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let after = victim.group.status();
    assert_eq!((after.role, after.term), (Role::Follower, before.term));
    assert_eq!(trio.roles().await.0, leads);
    trio.end().await;
}
