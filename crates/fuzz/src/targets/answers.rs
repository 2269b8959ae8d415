//! What shard servers answer: to a coordinator that writes, reads, or changes a group, and to a watchdog that looks at them.

use std::collections::BTreeSet;

use api::shard::v1 as shard;
use api::validate::{GetTopK, ListTerms, RecordBatch};
use api::{ApiError, Outcome, Reason, v1};
use cluster::{KeyRange, NodeId, Replica};
use coordinator::fuzzing;
use prost::Message as _;
use term::Term;

use super::requests::request_id;
use super::services::passed;
use super::{decoded, joined, sure, tagged};
use crate::{Target, mend};

/// What a health service says of what serves.
const SERVING: i32 = 1;

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "shard-answers",
        run: shard_answers,
        mend: mend::nothing,
        seeds,
        quick: 18_000,
    }]
}

fn shard_answers(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => written(bytes),
        1 => completed(bytes),
        2 => listed(bytes),
        3 => members(bytes),
        4 => progress(bytes),
        5 => health(bytes),
        _ => {}
    }
}

fn batch(items: u8) -> RecordBatch {
    let item = |number: u8| v1::RecordItem {
        term: format!("term {number}"),
        count: 1,
    };
    sure(RecordBatch::try_from(v1::RecordBatchRequest {
        items: (0..items).map(item).collect(),
        request_id: request_id(),
        ..v1::RecordBatchRequest::default()
    }))
}

/// Nothing is called applied that no shard called so, and nothing is called refused that a try before may have applied.
fn written(input: &[u8]) {
    let Some((items, tries)) = decoded::<shard::WriteResponse>(input) else {
        return;
    };
    match fuzzing::written(&batch(items), tries.clone()) {
        Ok(found) => {
            assert_eq!(found.results.len(), usize::from(items));
            let says_so = |answer: &shard::WriteResponse| match answer.results.as_slice() {
                [said] => said.results == found.results,
                [] | [_, _, ..] => false,
            };
            let is_applied = |item: &v1::ItemResult| item.error().is_none();
            assert!(!found.results.iter().any(is_applied) || tries.iter().any(says_so));
        }
        Err(error) => {
            let first = tries.first().and_then(|first| first.error.as_ref());
            let is_unknown = first.is_some_and(|first| first.outcome() == shard::Outcome::Unknown);
            assert!(error.outcome().is_some());
            assert!(!is_unknown || error.outcome() == Some(Outcome::Unknown));
        }
    }
}

/// The parts of the shards that answer.
fn parts() -> [KeyRange; 2] {
    let part = |start: &str, end: Option<&str>| {
        let part = KeyRange::new(start.to_owned(), end.map(str::to_owned));
        sure(part.ok_or("it has no terms"))
    };
    [part("", Some("m")), part("m", None)]
}

/// What is answered is in order, and as complete as it says.
fn completed(input: &[u8]) {
    let Some((how, answers)) = decoded::<shard::TopKResponse>(input) else {
        return;
    };
    if answers.len() != parts().len() {
        return;
    }
    let ask = sure(GetTopK::try_from(v1::GetTopKRequest {
        k: u32::from(how >> 1),
        require_complete: how & 1 > 0,
        ..v1::GetTopKRequest::default()
    }));
    let parts: Vec<_> = parts().into_iter().zip(answers).collect();
    let is_one = |part: &&(KeyRange, shard::TopKResponse)| {
        fuzzing::completed(&ask, vec![(*part).clone()]).is_ok()
    };
    let sound = parts.iter().filter(is_one).count();
    let found = match fuzzing::completed(&ask, parts) {
        Ok(found) => found,
        Err(error) => {
            let is_callers = error.reason() == Reason::UnknownIncarnation;
            let is_hole = sound == 1 && ask.require_complete;
            return assert!(sound == 0 || is_hole || is_callers, "{error:?}");
        }
    };
    let told = found.completeness.unwrap_or_default();
    assert_eq!(told.shards_attempted, 2);
    assert_eq!(told.shards_succeeded as usize, sound);
    assert_eq!(told.shards_failed as usize, told.missing.len());
    assert!(told.missing.is_empty() || !ask.require_complete);
    assert!(found.suggestions.len() <= ask.k as usize);
    assert!(found.suggestions.is_sorted_by(|one, next| {
        let next = (next.count, next.term.as_bytes());
        trie_core::compare((one.count, one.term.as_bytes()), next).is_lt()
    }));
    for range in told.missing {
        let range = sure(KeyRange::try_from(range));
        assert!(!found.suggestions.iter().any(|at| range.contains(&at.term)));
    }
}

/// A page has what was listed first, and says where the next one begins, unless it has all.
fn listed(input: &[u8]) {
    let Some((size, answers)) = decoded::<shard::ListResponse>(input) else {
        return;
    };
    let all: Vec<v1::Suggestion> = answers.iter().flat_map(|at| at.terms.clone()).collect();
    let Some(page) = passed(fuzzing::listed(size.max(1).into(), answers)) else {
        return;
    };
    let page = sure(page.ok_or("somebody has answered"));
    assert!(all.starts_with(&page.terms));
    if page.next_page_token.is_empty() {
        return assert_eq!(page.terms.len(), all.len());
    }
    let next = sure(ListTerms::try_from(v1::ListTermsRequest {
        page_token: page.next_page_token,
        ..v1::ListTermsRequest::default()
    }));
    let last = page.terms.last().map(|last| sure(Term::new(&last.term)));
    assert_eq!(next.page_token.map(|token| token.after), last);
}

/// A group is as the map shows it, or it is known why not.
fn members(input: &[u8]) {
    let Ok(answer) = shard::ChangeMembersResponse::decode(input) else {
        return;
    };
    let shown = [(1, true), (2, true), (3, false)].map(|(node, voter)| Replica {
        node: NodeId(node),
        voter,
    });
    let (stranger, is_as_shown) = fuzzing::members(&answer, &shown);
    let named: BTreeSet<u64> = answer.members.iter().map(|at| at.node_id).collect();
    let expected = BTreeSet::from([1, 2, 3]);
    assert_eq!(stranger.is_some(), !named.is_subset(&expected));
    assert!(stranger.is_none_or(|node| named.contains(&node.0)));
    assert!(!is_as_shown || named == expected);
}

/// A shard moves with every process of it that opens its log.
fn progress(input: &[u8]) {
    let Some((told, mut nodes)) = decoded::<shard::GetNodeResponse>(input) else {
        return;
    };
    let told = Some(u64::from(told)).filter(|told| *told > 0);
    let before = watchdog::fuzzing::progress(told, &nodes);
    let mut opening = nodes.iter_mut().filter_map(|at| at.opening_bytes.as_mut());
    if let Some(bytes) = opening.next() {
        *bytes = bytes.wrapping_add(1);
        let after = watchdog::fuzzing::progress(told, &nodes);
        assert_eq!(after, before.map(|before| before.wrapping_add(1)));
    }
}

/// Whoever answers lives, and only what says so serves.
fn health(input: &[u8]) {
    let Some(([refuses, number @ ..], _)) = input.split_first_chunk::<5>() else {
        return;
    };
    let number = i32::from_le_bytes(*number);
    let answer = match refuses {
        0 => Ok(number),
        _ => Err(number),
    };
    let served = watchdog::fuzzing::served(answer);
    assert_eq!(served == Some(true), answer == Ok(SERVING));
    assert!(served.is_some() || answer.is_err());
}

fn seeds() -> Vec<Vec<u8>> {
    let node = |opening_bytes| shard::GetNodeResponse {
        node_id: 1,
        cluster_id: vec![9; 16].into(),
        opening_bytes,
        ..shard::GetNodeResponse::default()
    };
    let member = |node_id| shard::GroupMember {
        node_id,
        voter: node_id < 3,
        matched_index: 40,
    };
    let changed = shard::ChangeMembersResponse {
        done: true,
        settled: true,
        members: (1..=3).map(member).collect(),
    };
    let joined_by_another = shard::ChangeMembersResponse {
        members: (2..=4).map(member).collect(),
        ..changed.clone()
    };
    let pages = [
        page(&["new delhi", "new york"], false),
        page(&["york", "zürich"], true),
    ];
    let [lower, upper] = tops();
    let failed = shard::TopKResponse {
        error: Some(ApiError::new(Reason::Starting, "not yet").into()),
        ..shard::TopKResponse::default()
    };
    let how = |k: u8, complete: bool| (k << 1) | u8::from(complete);
    let nodes = [node(Some(77)), node(Some(u64::MAX)), node(None)];
    let complete = [lower.clone(), upper];
    vec![
        tagged(0, &joined(2, &[lost(), applied()])),
        tagged(0, &joined(2, &[applied()])),
        tagged(1, &joined(how(3, true), &complete)),
        tagged(1, &joined(how(3, false), &[lower.clone(), failed.clone()])),
        tagged(1, &joined(how(0, true), &[lower, failed])),
        tagged(2, &joined(3, &pages)),
        tagged(2, &joined(9, &pages)),
        tagged(3, &changed.encode_to_vec()),
        tagged(3, &joined_by_another.encode_to_vec()),
        tagged(4, &joined(7, &nodes)),
        tagged(4, &joined(0, &nodes)),
        tagged(5, &[0, 1, 0, 0, 0]),
        tagged(5, &[1, 5, 0, 0, 0]),
    ]
}

/// A try of which nobody knows what became.
fn lost() -> shard::WriteResponse {
    let error = ApiError::new(Reason::Disconnected, "it has gone").with_outcome(Outcome::Unknown);
    shard::WriteResponse {
        error: Some(error.into()),
        ..shard::WriteResponse::default()
    }
}

/// Two items, one of which is refused.
fn applied() -> shard::WriteResponse {
    let item = v1::ItemResult {
        count: 9,
        repeated: true,
        ..v1::ItemResult::default()
    };
    let refused = api::error::item_error(Reason::CountOverflow);
    shard::WriteResponse {
        correlation: 1,
        results: vec![shard::WriteResult {
            results: vec![item, refused],
            ..shard::WriteResult::default()
        }],
        position: Some(position(1)),
        error: None,
    }
}

fn position(shard_id: u64) -> v1::Position {
    v1::Position {
        shard_id,
        incarnation: 1,
        index: 40,
    }
}

fn suggestion(term: &str, count: u64) -> v1::Suggestion {
    v1::Suggestion {
        term: term.to_owned(),
        count,
        display: String::new(),
    }
}

/// What both shards answer to a completion.
fn tops() -> [shard::TopKResponse; 2] {
    let top = |number: u64, range: KeyRange, suggestions| shard::TopKResponse {
        correlation: 1,
        suggestions,
        position: Some(position(number)),
        age_ms: 7 * number,
        range: Some(range.into()),
        epoch: 5,
        error: None,
    };
    let [lower, upper] = parts();
    let early = vec![suggestion("berlin", 9), suggestion("basel", 2)];
    let late = vec![suggestion("york", 9), suggestion("zürich", 5)];
    [top(1, lower, early), top(2, upper, late)]
}

fn page(terms: &[&str], more: bool) -> shard::ListResponse {
    shard::ListResponse {
        terms: terms.iter().map(|term| suggestion(term, 3)).collect(),
        more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_mean_something() {
        let written = fuzzing::written(&batch(2), vec![lost(), applied()]).unwrap();
        let errors: Vec<_> = written.results.iter().map(v1::ItemResult::error).collect();
        assert_eq!(errors, [None, Some(Reason::CountOverflow)]);
        let ask = GetTopK::try_from(v1::GetTopKRequest::default()).unwrap();
        let answered = parts().into_iter().zip(tops()).collect();
        let found = fuzzing::completed(&ask, answered).unwrap();
        let told = found.completeness.unwrap_or_default();
        assert_eq!(told.shards_succeeded, 2);
        let offers = vec![page(&["a"], false), page(&["b"], true)];
        let found = fuzzing::listed(3, offers).unwrap().unwrap();
        assert_eq!(found.next_page_token, "1:b");
    }
}
