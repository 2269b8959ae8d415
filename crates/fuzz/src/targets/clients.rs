//! What coordinators answer to clients: as the client goes on by it, and as the commands show it to people.
//!
//! What the commands show of a status and of held snapshots is tried with the status.

use api::admin::v1::{GetStatusResponse, ListSnapshotsResponse};
use api::error::item_error;
use api::{Outcome, Reason, admin, v1};
use client::ClientError;
use cluster::{Epoch, ShardMap, limits};
use prost::Message as _;
use term::NamespaceName;

use super::requests::shard_map_seeds;
use super::{decoded, join, joined, pieces, status, sure, tagged};
use crate::{Target, mend};

/// A term that is looked up in maps.
const TERM: &str = "new york";
/// The shard and the node of which people are told.
const ABOUT: (u64, &str) = (1, "1");

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "client-answers",
        run: client_answers,
        mend: mend::nothing,
        seeds,
        quick: 9_000,
    }]
}

fn client_answers(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => recorded(bytes),
        1 => routed(bytes),
        2 => paged(bytes),
        3 => completed(bytes),
        4 => map_shown(bytes),
        5 => told(bytes),
        _ => {}
    }
}

/// An answer speaks of all items, and calls none refused that an answer before called applied.
fn recorded(input: &[u8]) {
    let Some((items, tries)) = decoded::<v1::RecordBatchResponse>(input) else {
        return;
    };
    let recorded = client::fuzzing::recorded(items.into(), tries.clone());
    let recorded = sure(recorded.ok_or("somebody has answered"));
    let answer = match recorded.answer {
        Ok(answer) => answer,
        Err(error) => return assert!(matches!(error, ClientError::Protocol { problem: _ })),
    };
    assert_eq!(answer.results.len(), usize::from(items));
    let is_refused = |item: &v1::ItemResult| {
        let reason = item.error().filter(|at| *at != Reason::CountOverflow);
        reason.map(Reason::outcome_of_write) == Some(Outcome::NotApplied)
    };
    let failed = tries.iter().take(recorded.failed as usize);
    for before in failed {
        for (before, item) in before.results.iter().zip(&answer.results) {
            assert!(before.error().is_some() || !is_refused(item));
        }
    }
    let positions = recorded.token.map_or(0, |token| token.positions.len());
    assert!(positions <= limits::TOKEN_POSITIONS_MAX);
}

/// A client goes by the newest map that makes sense.
fn routed(input: &[u8]) {
    let Some((_, maps)) = decoded::<admin::v1::ShardMap>(input) else {
        return;
    };
    let found = client::fuzzing::routed(maps.clone(), TERM);
    assert_eq!(found.len(), maps.len());
    let mut expected = (Epoch(0), None);
    for (map, found) in maps.into_iter().zip(found) {
        if let Ok(map) = ShardMap::try_from(map)
            && map.epoch >= expected.0
        {
            let owner = map.owner(&NamespaceName::default(), TERM);
            expected = (map.epoch, Some(owner));
        }
        assert_eq!(found, expected);
    }
}

/// No page is asked for twice in a row.
fn paged(input: &[u8]) {
    let Some((_, pages)) = decoded::<v1::ListTermsResponse>(input) else {
        return;
    };
    let mut token = String::new();
    for page in pages {
        let is_same = !page.next_page_token.is_empty() && page.next_page_token == token;
        assert_eq!(client::fuzzing::page(&token, &page).is_err(), is_same);
        token = page.next_page_token;
    }
}

/// All suggestions are shown, and each can be taken into the line.
fn completed(input: &[u8]) {
    let Ok(answer) = v1::GetTopKResponse::decode(input) else {
        return;
    };
    let json = autocomplete::fuzzing::top_json(&answer);
    let shown = json.get("suggestions").and_then(|list| list.as_array());
    assert_eq!(shown.map_or(0, Vec::len), answer.suggestions.len());
    let missing = answer.completeness.iter().flat_map(|at| &at.missing);
    let is_partial = json.get("partial").and_then(|at| at.as_bool());
    assert_eq!(is_partial, Some(missing.count() > 0));
    let last = answer.suggestions.len().saturating_sub(1);
    for steps in 0..4_usize {
        let chosen = answer.suggestions.get(steps.saturating_sub(1).min(last));
        let text = chosen.map_or("", |chosen| match chosen.display.as_str() {
            "" => chosen.term.as_str(),
            display => display,
        });
        let line = autocomplete::fuzzing::completed(answer.clone(), steps);
        assert_eq!(line, text);
    }
}

/// Whatever a map says, all of it has a line for people and a place for programs.
fn map_shown(input: &[u8]) {
    let Ok(map) = admin::v1::ShardMap::decode(input) else {
        return;
    };
    let ranges = map.template.as_ref().map_or(0, |all| all.ranges.len());
    let namespaces = map.namespaces.len();
    let tables = coordinator::fuzzing::map_tables(&map);
    assert_eq!(tables.len(), 1 + usize::from(namespaces > 0));
    for (table, rows) in tables.iter().zip([ranges, namespaces]) {
        assert!(table.lines().count() > rows, "{table}");
    }
    let json = coordinator::fuzzing::map_json(&map);
    let length = |list: &str| {
        let list = json.get(list).and_then(|list| list.as_array());
        list.map_or(0, Vec::len)
    };
    assert_eq!(length("template"), ranges);
    assert_eq!(length("shards"), map.shards.len());
    assert_eq!(length("nodes"), map.nodes.len());
    assert_eq!(length("namespaces"), namespaces);
}

/// Nobody is told that nothing is left of a shard of which a snapshot is held.
fn told(input: &[u8]) {
    let pieces = pieces(input);
    let Some(((_, status), held)) = pieces.split_first() else {
        return;
    };
    let held = held
        .iter()
        .map(|(_, bytes)| ListSnapshotsResponse::decode(*bytes).ok());
    let held: Option<Vec<ListSnapshotsResponse>> = held.collect();
    let (Ok(status), Some(held)) = (GetStatusResponse::decode(*status), held) else {
        return;
    };
    let mut snapshots = held.iter().flat_map(|held| &held.snapshots);
    let is_held = snapshots.any(|at| at.shard_id == ABOUT.0);
    let [recovery, promotion] = coordinator::fuzzing::outlook(ABOUT, status, held);
    assert_eq!(recovery.len(), 2, "{recovery:?}");
    assert!((2..=3).contains(&promotion.len()), "{promotion:?}");
    let is_nothing = |line: &String| line.starts_with("It would begin anew EMPTY");
    let is_told_so = recovery.iter().any(is_nothing);
    assert!(!is_held || !is_told_so, "{recovery:?}");
}

fn seeds() -> Vec<Vec<u8>> {
    let maps = shard_map_seeds();
    let map = maps.first().map(Vec::as_slice).unwrap_or_default();
    let (status, strange) = (status::full(), status::strange());
    let (status, strange) = (status.encode_to_vec(), strange.encode_to_vec());
    let held = status::snapshot_seeds();
    let all = [&strange].into_iter().chain(&held);
    let outlook = join(all.map(|bytes| (0, bytes.as_slice())));
    let page = |next_page_token: &str| v1::ListTermsResponse {
        terms: vec![suggestion("york", "")],
        next_page_token: next_page_token.to_owned(),
    };
    vec![
        tagged(0, &joined(2, &batches())),
        tagged(1, &join([(0, map), (0, map)])),
        tagged(2, &joined(0, &[page("1:york"), page("1:york"), page("")])),
        tagged(3, &top().encode_to_vec()),
        tagged(4, map),
        tagged(5, &outlook),
        tagged(5, &join([(0, status.as_slice())])),
    ]
}

fn suggestion(term: &str, display: &str) -> v1::Suggestion {
    v1::Suggestion {
        term: term.to_owned(),
        count: 3,
        display: display.to_owned(),
    }
}

/// One whose first item is applied by the first try, and refused by the second, whose second item is.
fn batches() -> [v1::RecordBatchResponse; 2] {
    let applied = || v1::ItemResult {
        count: 4,
        ..v1::ItemResult::default()
    };
    let position = v1::Position {
        shard_id: 1,
        incarnation: 1,
        index: 40,
    };
    let answers = [
        vec![applied(), item_error(Reason::NoQuorum)],
        vec![item_error(Reason::DiskFull), applied()],
    ];
    answers.map(|results| v1::RecordBatchResponse {
        results,
        token: Some(v1::SessionToken {
            positions: vec![position],
        }),
    })
}

fn top() -> v1::GetTopKResponse {
    v1::GetTopKResponse {
        suggestions: vec![suggestion("york", ""), suggestion("zürich", "Zürich")],
        k_served: 10,
        completeness: Some(v1::Completeness {
            shards_attempted: 2,
            shards_succeeded: 1,
            shards_failed: 1,
            missing: vec![v1::TermRange {
                start: String::new(),
                end: "m".to_owned(),
            }],
        }),
        token: None,
        age_ms: 7,
    }
}
