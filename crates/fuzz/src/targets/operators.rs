//! The verbs of operators that name nodes, or want a person's words.
//!
//! To hand a lead over and to pull or push a snapshot are asked for by numbers alone, which are looked up.

use std::fmt::Debug;
use std::sync::OnceLock;

use api::ApiError;
use api::admin::v1::{
    DrainNodeRequest, PromoteReplicaRequest, RecoverShardRequest, ReplaceReplicaRequest,
};
use cluster::{ClusterId, Layout, NodeId, ShardId};
use coordinator::fuzzing;
use coordinator::metadata::{Command, Metadata, Registration};
use prost::Message as _;
use replication::{Applied, StateMachine as _};

use super::{sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "operator-requests",
        run: verbs,
        mend: mend::nothing,
        seeds,
        quick: 24_000,
    }]
}

/// The names of nodes 1, 2, ... The second is called by the number of another, and the last one is lost.
const NAMES: [&str; 3] = ["shard-1", "1", "gone"];
const LOST: NodeId = NodeId(3);

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let metadata = Metadata::default();
        let register = |(number, name): (u8, &&str)| {
            Command::RegisterNode(Registration {
                name: (*name).to_owned(),
                address: format!("host-{number}:1"),
                region: String::new(),
                instance: [number; 16],
            })
        };
        let begin = Command::Init {
            cluster: ClusterId([9; 16]),
            template: sure(Layout::new(vec![(String::new(), ShardId(1))])),
            replicas: 1,
        };
        let lose = Command::MarkNodeLost { node: LOST };
        let nodes = (1..).zip(&NAMES).map(register);
        let commands = [begin].into_iter().chain(nodes).chain([lose]);
        for (index, command) in (1..).zip(commands) {
            let at = Applied { index, term: 1 };
            sure(metadata.apply(at, 1, command.kind(), &command.encode()));
        }
        metadata
    })
}

/// A node that a person means: by its number, else by a name that no lost one has.
fn meant(text: &str) -> Option<NodeId> {
    let named = || (1..).zip(NAMES).find(|(_, name)| *name == text);
    let nodes = 1..=NAMES.len() as u64;
    match text.parse() {
        Ok(number) if nodes.contains(&number) => Some(NodeId(number)),
        Ok(_) | Err(_) => named()
            .map(|(number, _)| NodeId(number))
            .filter(|node| *node != LOST),
    }
}

fn may_lose(accept_loss: bool, shard: u64, words: &str) -> bool {
    !accept_loss || words.strip_prefix("lose shard ") == Some(shard.to_string().as_str())
}

fn may_recover(asked: &RecoverShardRequest) -> bool {
    let words = asked.confirmation.as_str();
    if !asked.accept_empty {
        return may_lose(asked.accept_loss, asked.shard_id, words);
    }
    let shard = asked.shard_id.to_string();
    !asked.accept_loss || words.strip_prefix("lose all of shard ") == Some(shard.as_str())
}

/// Who is refused is told why.
fn agrees<T: PartialEq + Debug>(answer: Result<T, ApiError>, expected: Option<T>) {
    if let Err(error) = &answer {
        assert!(!error.message().is_empty());
    }
    assert_eq!(answer.ok(), expected);
}

fn verbs(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => {
            if let Ok(asked) = RecoverShardRequest::decode(bytes) {
                let may = may_recover(&asked);
                agrees(fuzzing::recover(&asked), may.then_some(()));
            }
        }
        1 => {
            if let Ok(asked) = DrainNodeRequest::decode(bytes) {
                agrees(fuzzing::drain(metadata(), &asked), meant(&asked.node));
            }
        }
        2 => {
            if let Ok(asked) = PromoteReplicaRequest::decode(bytes) {
                let may = may_lose(asked.accept_loss, asked.shard_id, &asked.confirmation);
                let expected = meant(&asked.node).filter(|_| may);
                agrees(fuzzing::promote(metadata(), &asked), expected);
            }
        }
        3 => {
            if let Ok(asked) = ReplaceReplicaRequest::decode(bytes) {
                let with = match asked.with.as_str() {
                    "" => Some(None),
                    with => meant(with).map(Some),
                };
                let expected = meant(&asked.node).zip(with);
                agrees(fuzzing::replace(metadata(), &asked), expected);
            }
        }
        _ => {}
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let recover = RecoverShardRequest {
        shard_id: 12,
        accept_loss: true,
        confirmation: "lose shard 12".to_owned(),
        accept_empty: false,
    };
    let recover_empty = RecoverShardRequest {
        confirmation: "lose all of shard 12".to_owned(),
        accept_empty: true,
        ..recover.clone()
    };
    let promote = PromoteReplicaRequest {
        shard_id: 12,
        node: "shard-1".to_owned(),
        accept_loss: true,
        confirmation: "lose shard 12".to_owned(),
    };
    let drain = |node: &str| DrainNodeRequest {
        node: node.to_owned(),
        undo: false,
    };
    let replace = |node: &str, with: &str| ReplaceReplicaRequest {
        shard_id: 12,
        node: node.to_owned(),
        with: with.to_owned(),
    };
    vec![
        tagged(0, &recover.encode_to_vec()),
        tagged(0, &recover_empty.encode_to_vec()),
        tagged(1, &drain("1").encode_to_vec()),
        tagged(1, &drain("gone").encode_to_vec()),
        tagged(2, &promote.encode_to_vec()),
        tagged(3, &replace("shard-1", "2").encode_to_vec()),
        tagged(3, &replace("3", "").encode_to_vec()),
    ]
}
