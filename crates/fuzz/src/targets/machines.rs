//! The commands of both state machines, as they stand in the log.

use cluster::{ClusterId, Generation, Incarnation, Layout, NamespaceId, NodeId, ShardId};
use coordinator::metadata::{Command, Metadata, Registration, ShardProgress};
use repeat_table::{ClientId, RequestId};
use replication::{Applied, SnapshotView, StateMachine};
use shard_server::state::command::{
    KIND_CLEAR, KIND_CONFIGURE, KIND_EVICT, KIND_WRITES, encode_clear, encode_configure,
    encode_evict, encode_writes,
};
use shard_server::state::{DictionaryState, Identity, Item, Operation, Rare, Write};
use trie_core::Options;

use super::{AT, join, pieces, sure};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "shard-commands",
            run: shard,
            mend: mend::nothing,
            seeds: shard_seeds,
            quick: 9_000,
        },
        Target {
            name: "metadata-commands",
            run: metadata,
            mend: mend::nothing,
            seeds: metadata_seeds,
            quick: 9_000,
        },
    ]
}

fn encoded(view: impl SnapshotView) -> Vec<u8> {
    let mut bytes = Vec::new();
    sure(view.encode(&mut bytes));
    bytes
}

/// Two replicas with lists of different lengths come to the same state, and a third one by a snapshot.
fn shard(input: &[u8]) {
    let short = Options {
        cached_k: 1,
        ..Options::default()
    };
    let replicas = [
        DictionaryState::new(Options::default()),
        DictionaryState::new(short),
    ];
    for (index, (kind, command)) in (1..).zip(pieces(input)) {
        let at = Applied { index, term: 1 };
        let stamp_ms = i64::try_from(index).unwrap_or_default();
        let answers = replicas
            .each_ref()
            .map(|replica| replica.apply(at, stamp_ms, kind.into(), command));
        let [one, two] = answers.map(|answer| format!("{answer:?}"));
        assert_eq!(one, two, "the same answer everywhere");
    }
    let views = replicas.each_ref().map(StateMachine::view);
    let [one, two] = views.each_ref().map(shard_server::state::StateView::hash);
    assert_eq!(one, two, "the same state everywhere");
    let bytes = encoded(replicas[0].view());
    let third = DictionaryState::new(short);
    sure(third.restore(AT, &mut bytes.as_slice()));
    assert_eq!(third.view().hash(), one, "the same state by a snapshot");
}

fn shard_seeds() -> Vec<Vec<u8>> {
    let identity = |sequence, issued_at_ms| Identity {
        id: RequestId {
            client: ClientId([5; 16]),
            sequence,
            issued_at_ms,
            acked_below: 1,
        },
        fingerprint: 77,
    };
    let item = |number, term: &str, count, display: Option<&str>| Item {
        number,
        term: term.to_owned(),
        count,
        display: display.map(str::to_owned),
    };
    let write = |identity, operation| Write {
        namespace: NamespaceId(1),
        generation: Generation(1),
        identity,
        operation,
    };
    let few = vec![
        item(0, "new york", 3, Some("New York")),
        item(2, "new delhi", 1, None),
        item(7, "newcastle", u64::MAX, None),
    ];
    let delete = Operation::Delete {
        term: "new delhi".to_owned(),
    };
    let writes = encode_writes(&[
        write(Some(identity(2, 1_000)), Operation::Record(few)),
        write(
            None,
            Operation::Record(vec![item(0, "zürich", 5, Some("Zürich"))]),
        ),
        write(Some(identity(3, 1_001)), delete),
    ]);
    let clear = encode_clear(NamespaceId(1), Generation(2));
    let configure = encode_configure(1 << 20);
    let evict = encode_evict(&Rare {
        namespace: NamespaceId(1),
        generation: Generation(1),
        count_max: 5,
        terms: vec!["zürich".into(), b"paris".to_vec()],
    });
    let kind = |kind: u16| u8::try_from(kind).unwrap_or_default();
    let (writes, clear, configure, evict) = (
        (kind(KIND_WRITES), writes.as_ref()),
        (kind(KIND_CLEAR), clear.as_ref()),
        (kind(KIND_CONFIGURE), configure.as_ref()),
        (kind(KIND_EVICT), evict.as_ref()),
    );
    vec![
        join([writes]),
        join([writes, writes, clear, configure]),
        join([writes, evict, writes]),
        join([configure, clear, writes]),
    ]
}

/// What commands lead to is the same after a snapshot, byte for byte.
fn metadata(input: &[u8]) {
    let metadata = Metadata::default();
    for (index, (kind, command)) in (1..).zip(pieces(input)) {
        let at = Applied { index, term: 1 };
        let stamp_ms = i64::try_from(index).unwrap_or_default() * 10_000;
        let _ = metadata.apply(at, stamp_ms, kind.into(), command);
    }
    let bytes = encoded(metadata.view());
    let restored = Metadata::default();
    sure(restored.restore(AT, &mut bytes.as_slice()));
    assert_eq!(encoded(restored.view()), bytes, "the same state");
    assert_eq!(restored.map(), metadata.map(), "the same map");
}

fn metadata_seeds() -> Vec<Vec<u8>> {
    let bytes: Vec<(u8, Vec<u8>)> = metadata_commands()
        .iter()
        .map(|command| {
            let kind = u8::try_from(command.kind()).unwrap_or_default();
            (kind, command.encode())
        })
        .collect();
    let all = bytes
        .iter()
        .map(|(kind, command)| (*kind, command.as_slice()));
    vec![join(all.clone()), join(all.take(5))]
}

fn metadata_commands() -> Vec<Command> {
    let layout = [String::new(), "m".to_owned()].into_iter();
    let template = sure(Layout::new(layout.zip([ShardId(1), ShardId(2)]).collect()));
    let register = |number: u8| {
        Command::RegisterNode(Registration {
            name: format!("node-{number}"),
            address: format!("host-{number}:1"),
            region: "r".to_owned(),
            instance: [number; 16],
        })
    };
    let request = RequestId {
        client: ClientId([9; 16]),
        sequence: 4,
        issued_at_ms: 20_000,
        acked_below: 2,
    };
    let (shard, incarnation) = (ShardId(1), Incarnation::FIRST);
    vec![
        Command::Init {
            cluster: ClusterId([3; 16]),
            template,
            replicas: 1,
        },
        register(1),
        register(2),
        Command::UpdateAddress {
            node: NodeId(1),
            address: "elsewhere:2".to_owned(),
        },
        Command::PlaceShards(vec![
            (shard, vec![NodeId(1)]),
            (ShardId(2), vec![NodeId(2)]),
        ]),
        Command::ShardBegun { shard, incarnation },
        Command::CreateNamespace {
            name: "shop".to_owned(),
            normaliser_version: 1,
            unicode_version: "16.0.0".to_owned(),
        },
        Command::RaiseGeneration {
            name: "shop".to_owned(),
            request: Some((request, 8)),
        },
        Command::NoteProgress(vec![ShardProgress {
            shard,
            incarnation,
            index: 12,
        }]),
        Command::SetDraining {
            node: NodeId(2),
            draining: true,
        },
        Command::BeginRecovery(coordinator::metadata::TurnRequest {
            shard,
            watchdog: "w".to_owned(),
            known: 0,
            reason: "silent".to_owned(),
            lease_ms: 15_000,
            concurrent_percent: 10,
            acts: true,
        }),
        Command::MarkNodeLost { node: NodeId(2) },
    ]
}
