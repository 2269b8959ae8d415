//! How a coordinator with a new directory comes to its cluster: what the others answer to its greetings, and its request for a place.
//!
//! In a greeting nothing is looked at, and the numbers that a leader is asked to confirm itself by are compared with its own.

use api::meta::v1::{AdmitRequest, Coordinator, GreetResponse, ProposeRequest};
use cluster::NodeId;
use coordinator::fuzzing::{self, Arrival};
use prost::Message as _;

use super::services::passed;
use super::{join, pieces};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "coordinator-arrival",
            run: arrival,
            mend: mend::nothing,
            seeds: arrival_seeds,
            quick: 18_000,
        },
        Target {
            name: "coordinator-admission",
            run: admission,
            mend: mend::nothing,
            seeds: || {
                let request = AdmitRequest {
                    cluster_id: vec![9; 16].into(),
                    coordinator_id: 2,
                    instance_id: vec![7; 16].into(),
                };
                vec![request.encode_to_vec()]
            },
            quick: 18_000,
        },
    ]
}

/// A cluster is founded when all others have said that they know of none, and what is written down can be read at the next start.
fn arrival(input: &[u8]) {
    let decode = |(kind, bytes): (u8, &[u8])| {
        let answer = GreetResponse::decode(bytes).ok()?;
        Some((NodeId(2 + u64::from(kind % 2)), answer))
    };
    let answers: Option<Vec<(NodeId, GreetResponse)>> =
        pieces(input).into_iter().map(decode).collect();
    let Some(answers) = answers else {
        return;
    };
    match fuzzing::arrive(&answers) {
        Arrival::Founds(file) => {
            let is_new = |id| {
                let mut from = answers.iter().filter(|(from, _)| *from == NodeId(id));
                from.any(|(_, answer)| answer.cluster_id.is_empty())
            };
            assert!(is_new(2) && is_new(3));
            assert_eq!(fuzzing::identity(&file).as_ref(), Some(&file));
        }
        Arrival::Joins(file) => {
            let knows_it = |member: &Coordinator| member.instance_id == [1; 16].as_slice();
            let mut members = answers.iter().flat_map(|(_, answer)| &answer.members);
            assert!(members.any(knows_it));
            assert_eq!(fuzzing::identity(&file).as_ref(), Some(&file));
        }
        Arrival::Waits | Arrival::Asks | Arrival::Ends => {}
    }
}

/// A change that passes is a change that every coordinator can read.
fn admission(input: &[u8]) {
    let Ok(request) = AdmitRequest::decode(input) else {
        return;
    };
    let admitted = fuzzing::admit(&request);
    if let Err(error) = &admitted {
        assert_eq!(error.field_name(), Some("instance_id"));
    }
    if let Some(change) = passed(admitted) {
        let proposal = ProposeRequest {
            kind: change.kind().into(),
            command: change.encode().into(),
            ..ProposeRequest::default()
        };
        assert_eq!(fuzzing::propose(&proposal), Ok(change));
    }
}

/// What a coordinator answers that knows so many members of its cluster, 0 for one that belongs to none.
fn answer(from: u8, members: u8) -> (u8, Vec<u8>) {
    let member = |id: u8| Coordinator {
        coordinator_id: id.into(),
        instance_id: vec![id; 16].into(),
    };
    let cluster_id = if members == 0 { vec![] } else { vec![9; 16] };
    let answer = GreetResponse {
        coordinator_id: from.into(),
        instance_id: vec![from; 16].into(),
        cluster_id: cluster_id.into(),
        members: (1..=members).map(member).collect(),
        configured_ids: vec![3, 1, 2],
    };
    (from % 2, answer.encode_to_vec())
}

fn arrival_seeds() -> Vec<Vec<u8>> {
    let mut replaced = answer(3, 3);
    if let Ok(mut told) = GreetResponse::decode(replaced.1.as_slice()) {
        told.members.rotate_left(1);
        for member in &mut told.members {
            if member.coordinator_id == 1 {
                *member = Coordinator {
                    coordinator_id: (1 << 32) | 1,
                    instance_id: vec![77; 16].into(),
                };
            }
        }
        replaced.1 = told.encode_to_vec();
    }
    let rounds = [
        vec![answer(2, 0), answer(3, 0)],
        vec![answer(2, 0)],
        vec![answer(2, 0), answer(3, 3)],
        vec![answer(2, 3), replaced],
        // More than can be read again.
        vec![answer(2, 17)],
    ];
    let join = |round: &Vec<(u8, Vec<u8>)>| {
        let answers = round
            .iter()
            .map(|(kind, answer)| (*kind, answer.as_slice()));
        join(answers)
    };
    rounds.iter().map(join).collect()
}
