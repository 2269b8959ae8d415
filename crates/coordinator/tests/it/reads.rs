//! Reads over several shards.

use std::collections::BTreeMap;

use api::v1::{
    Consistency, GetCountRequest, GetTopKRequest, ListTermsRequest, Position, RecordBatchRequest,
    RecordItem, RecordRequest, SessionToken,
};
use tonic::Code;

use super::harness::{Cluster, listed, reason};

/// Terms of all three shards, with many ties, and display forms among them.
fn terms() -> BTreeMap<String, u64> {
    let words = [
        "ant", "apple", "fig", "g", "go", "gold", "kiwi", "pear", "plum", "zoo",
    ];
    let endings = ["", " a", " b", " c", "er", "ing"];
    let all = words
        .iter()
        .flat_map(|word| endings.iter().map(move |end| format!("{word}{end}")));
    all.zip([5, 3, 5, 1, 4, 3, 5].into_iter().cycle()).collect()
}

async fn load(cluster: &Cluster) -> BTreeMap<String, u64> {
    let terms = terms();
    let items = terms.iter().map(|(term, count)| RecordItem {
        term: term.to_uppercase(),
        count: *count,
    });
    let batch = RecordBatchRequest {
        items: items.collect(),
        ..RecordBatchRequest::default()
    };
    let answer = cluster
        .client()
        .record_batch(batch)
        .await
        .unwrap()
        .into_inner();
    let counts: Vec<u64> = answer.results.iter().map(|at| at.count).collect();
    assert_eq!(counts, terms.values().copied().collect::<Vec<_>>());
    assert_eq!(
        answer.token.unwrap().positions.len(),
        3,
        "every shard took part"
    );
    terms
}

fn naive(terms: &BTreeMap<String, u64>, prefix: &str, k: usize) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = terms
        .iter()
        .filter(|(term, _)| term.starts_with(prefix))
        .map(|(term, count)| (term.clone(), *count))
        .collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_is_what_one_dictionary_would_answer() {
    reads_are_those_of_one_dictionary(Cluster::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_every_read_of_shards_in_the_same_process() {
    reads_are_those_of_one_dictionary(Cluster::near().await).await;
}

async fn reads_are_those_of_one_dictionary(cluster: Cluster) {
    let terms = load(&cluster).await;
    for prefix in ["", "a", "ap", "g", "go", "gold ", "p", "z", "nothing"] {
        for k in [1, 9, 10, 11, 1000] {
            let answer = cluster.top(prefix, k).await;
            let naive = naive(&terms, prefix, k as usize);
            let expected: Vec<(&str, u64)> =
                naive.iter().map(|(at, n)| (at.as_str(), *n)).collect();
            assert_eq!(listed(&answer), expected, "{prefix:?} {k}");
            let completeness = answer.completeness.unwrap();
            assert_eq!(completeness.missing, []);
            let shards = if prefix.is_empty() { 3 } else { 1 };
            assert_eq!(completeness.shards_attempted, shards, "{prefix:?}");
            assert_eq!(completeness.shards_succeeded, shards);
        }
    }
    let answer = cluster.top("gold", 100).await;
    for at in &answer.suggestions {
        assert_eq!(
            at.display,
            at.term.to_uppercase(),
            "as it was first written"
        );
    }
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let request = GetTopKRequest {
            consistency: consistency.into(),
            ..GetTopKRequest::default()
        };
        let answer = cluster
            .client()
            .get_top_k(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.suggestions.len(), 10);
    }
    let count = |term: &str| GetCountRequest {
        term: term.into(),
        ..GetCountRequest::default()
    };
    for (term, expected) in &terms {
        let answer = cluster.client().get_count(count(term)).await.unwrap();
        assert_eq!(answer.into_inner().count, *expected, "{term}");
    }
    let never = cluster
        .client()
        .get_count(count("never recorded"))
        .await
        .unwrap();
    assert_eq!(never.into_inner().count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_tell_how_much_they_saw_of_every_shard() {
    how_much_is_seen_is_told(Cluster::start().await).await;
    how_much_is_seen_is_told(Cluster::near().await).await;
}

async fn how_much_is_seen_is_told(cluster: Cluster) {
    let mut written = Vec::new();
    for term in ["ant", "gold", "zoo"] {
        let request = RecordRequest {
            term: term.into(),
            ..RecordRequest::default()
        };
        let recorded = cluster.client().record(request).await.unwrap();
        written.extend(recorded.into_inner().token.unwrap().positions);
    }
    assert_eq!(written.len(), 3);
    let place = |at: &Position| (at.shard_id, at.incarnation);
    for level in [
        Consistency::Leader,
        Consistency::Linearizable,
        Consistency::Stale,
    ] {
        let request = GetTopKRequest {
            consistency: level.into(),
            ..GetTopKRequest::default()
        };
        let answer = cluster.client().get_top_k(request).await.unwrap();
        let seen = answer.into_inner().token.unwrap().positions;
        let is_seen = |at: &Position| {
            let mut seen = seen.iter();
            seen.any(|seen| place(seen) == place(at) && seen.index >= at.index)
        };
        assert!(written.iter().all(is_seen), "{level:?}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_list_every_term_once_in_order_over_all_shards() {
    let cluster = Cluster::start().await;
    let terms = load(&cluster).await;
    for (prefix, size) in [
        ("", 1),
        ("", 7),
        ("", 1000),
        ("g", 3),
        ("gold", 100),
        ("x", 5),
    ] {
        let mut seen = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListTermsRequest {
                prefix: prefix.into(),
                page_size: size,
                page_token,
                ..ListTermsRequest::default()
            };
            let page = cluster
                .client()
                .list_terms(request)
                .await
                .unwrap()
                .into_inner();
            assert!(page.terms.len() <= size as usize);
            seen.extend(page.terms.into_iter().map(|at| (at.term, at.count)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let expected = terms.iter().filter(|(term, _)| term.starts_with(prefix));
        let expected: Vec<(String, u64)> = expected.map(|(at, n)| (at.clone(), *n)).collect();
        assert_eq!(seen, expected, "{prefix:?} {size}");
    }
    let forged = ListTermsRequest {
        page_token: "made up".into(),
        ..ListTermsRequest::default()
    };
    let refused = cluster.client().list_terms(forged).await.unwrap_err();
    assert_eq!(reason(&refused), api::Reason::BadToken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_waited_for_and_one_of_another_life_is_refused() {
    let cluster = Cluster::start().await;
    let request = RecordRequest {
        term: "apple".into(),
        ..RecordRequest::default()
    };
    let token = cluster
        .client()
        .record(request)
        .await
        .unwrap()
        .into_inner()
        .token;
    let ask = |token: Option<SessionToken>| GetTopKRequest {
        prefix: "a".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetTopKRequest::default()
    };
    let answer = cluster
        .client()
        .get_top_k(ask(token.clone()))
        .await
        .unwrap();
    assert_eq!(listed(answer.get_ref()), [("apple", 1)]);

    let mut foreign: SessionToken = token.unwrap();
    foreign.positions[0].incarnation = 99;
    let refused = cluster
        .client()
        .get_top_k(ask(Some(foreign)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), api::Reason::UnknownIncarnation);

    let unknown = SessionToken {
        positions: vec![Position {
            shard_id: 77,
            incarnation: 1,
            index: 1,
        }],
    };
    let refused = cluster
        .client()
        .get_top_k(ask(Some(unknown)))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), api::Reason::UnknownIncarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typing_session_is_answered_in_order() {
    let cluster = Cluster::start().await;
    let terms = load(&cluster).await;
    let prefixes = ["", "g", "go", "gol", "gold", "p", "pl", "", "a"];
    let keys: Vec<&str> = prefixes.iter().copied().cycle().take(200).collect();
    let requests: Vec<GetTopKRequest> = keys
        .iter()
        .map(|prefix| GetTopKRequest {
            prefix: (*prefix).to_owned(),
            k: 5,
            ..GetTopKRequest::default()
        })
        .collect();
    let stream = cluster
        .client()
        .top_k_stream(futures::stream::iter(requests))
        .await;
    let mut answers = stream.unwrap().into_inner();
    for prefix in keys {
        let answer = answers.message().await.unwrap().unwrap();
        let naive = naive(&terms, prefix, 5);
        let expected: Vec<(&str, u64)> = naive.iter().map(|(at, n)| (at.as_str(), *n)).collect();
        assert_eq!(listed(&answer), expected, "{prefix:?}");
    }
    assert!(answers.message().await.unwrap().is_none());
}
