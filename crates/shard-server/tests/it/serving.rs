use api::shard::v1 as shard;
use api::v1::*;
use cluster::limits::{ANSWER_BYTES_MAX, PAGE_BYTES_MAX, PAGE_TERMS_MAX};
use futures::{StreamExt as _, stream};
use prost::Message as _;

use crate::bad_input::{HERE, write};
use crate::harness::{Node, World, reason, request_id};

#[tokio::test]
async fn what_is_recorded_is_completed_counted_listed_and_deleted() {
    let world = World::new().await;
    let node = world.start().await;
    assert_eq!(node.record("New York", 3).await, 3);
    assert_eq!(node.record("new  YORK ", 2).await, 5);
    assert_eq!(node.record("newark", 5).await, 5);
    assert_eq!(node.record("boston", 9).await, 9);
    assert_eq!(
        node.top("NEW", 10).await,
        [("new york".into(), 5), ("newark".into(), 5)]
    );
    assert_eq!(node.top("new ", 10).await, [("new york".into(), 5)]);
    assert_eq!(node.count("New York").await, 5);
    assert_eq!(node.count("never").await, 0);

    let request = GetCountRequest {
        term: "new york".into(),
        ..GetCountRequest::default()
    };
    let answer = node.public().get_count(request).await.unwrap().into_inner();
    assert_eq!(answer.display, "New York");

    let delete = DeleteRequest {
        term: "New York".into(),
        ..DeleteRequest::default()
    };
    let answer = node
        .public()
        .delete(delete.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(answer.existed);
    let answer = node.public().delete(delete).await.unwrap().into_inner();
    assert!(!answer.existed);
    assert_eq!(node.top("new", 10).await, [("newark".into(), 5)]);

    let list = ListTermsRequest {
        prefix: "n".into(),
        ..ListTermsRequest::default()
    };
    let listed = node.public().list_terms(list).await.unwrap().into_inner();
    assert_eq!(listed.terms.len(), 1);
    assert_eq!(listed.next_page_token, "");
    node.stop().await.unwrap();
}

/// Records terms of 256 bytes, with display forms that make 1 KiB of each, and tells them in order.
async fn fill(node: &Node, shard_id: u64, initial: char, number: u32) -> Vec<String> {
    let terms: Vec<String> = (0..number).map(|n| format!("{initial}{n:0>255}")).collect();
    // A part of them at a time, for a message has its limit.
    for part in terms.chunks(256) {
        let items = (0..).zip(part).map(|(number, term)| shard::NumberedItem {
            number,
            term: term.clone(),
            count: 1,
            display: "D".repeat(768),
        });
        let items = shard::RecordItems {
            items: items.collect(),
        };
        let write = shard::Write {
            namespace_id: 1,
            generation: 1,
            operation: Some(shard::write::Operation::Record(items)),
            ..Default::default()
        };
        let request = shard::WriteRequest {
            route: Some(shard::Route {
                shard_id,
                incarnation: 1,
                epoch: 2,
                ..Default::default()
            }),
            writes: vec![write],
            ..Default::default()
        };
        node.shards().write(request).await.unwrap();
    }
    terms
}

#[tokio::test]
async fn a_listing_over_many_shards_of_a_node_keeps_to_the_limits_of_one_answer() {
    let world = World::new().await;
    let starts = ["", "d", "h", "m", "q"];
    world.registry.state.lock().give_all(&starts);
    let node = world.start().await;
    world.until_serving(&node, &[1, 2, 3, 4, 5]).await;
    // The first write of the namespace, which only the public interface creates, and the last term.
    node.record("zebra", 1).await;
    let mut expected = Vec::new();
    // No shard has more than a page holds, together they have more than an answer may. The first fills a page exactly, and then
    // pages end inside shards.
    for (shard_id, initial, number) in [
        (1, 'a', 512),
        (2, 'd', 300),
        (3, 'h', 512),
        (4, 'm', 512),
        (5, 'q', 512),
    ] {
        expected.extend(fill(&node, shard_id, initial, number).await);
    }
    expected.push("zebra".to_owned());
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTermsRequest {
            page_size: PAGE_TERMS_MAX,
            page_token,
            ..ListTermsRequest::default()
        };
        let page = node.public().list_terms(request).await;
        let page = page.unwrap().into_inner();
        let encoded = page.encoded_len();
        assert!(encoded <= ANSWER_BYTES_MAX, "{encoded} bytes");
        let texts = page.terms.iter().map(|at| at.term.len() + at.display.len());
        let texts: usize = texts.sum();
        assert!(texts <= PAGE_BYTES_MAX, "{texts} bytes of texts");
        listed.extend(page.terms.into_iter().map(|at| at.term));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        assert_eq!(texts, PAGE_BYTES_MAX, "only the last page has room left");
    }
    assert!(listed == expected, "{} of {}", listed.len(), expected.len());
    node.stop().await.unwrap();
}

#[tokio::test]
async fn k_is_served_exactly_around_its_borders() {
    let world = World::new().await;
    let node = world.start().await;
    let items = (0..400).map(|n| RecordItem {
        term: format!("a{n:04}"),
        count: 1 + n % 50,
    });
    let batch = RecordBatchRequest {
        items: items.clone().collect(),
        ..RecordBatchRequest::default()
    };
    node.public().record_batch(batch).await.unwrap();
    let mut expected: Vec<(String, u64)> = items.map(|item| (item.term, item.count)).collect();
    expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (k, served) in [
        (0, 10),
        (1, 1),
        (9, 9),
        (10, 10),
        (11, 11),
        (399, 399),
        (1000, 1000),
        (5000, 1000),
    ] {
        let request = GetTopKRequest {
            prefix: "a".into(),
            k,
            ..GetTopKRequest::default()
        };
        let answer = node.public().get_top_k(request).await.unwrap().into_inner();
        assert_eq!(answer.k_served, served);
        let found: Vec<_> = answer
            .suggestions
            .into_iter()
            .map(|s| (s.term, s.count))
            .collect();
        assert_eq!(
            found,
            expected[..expected.len().min(served as usize)],
            "k = {k}"
        );
    }
}

#[tokio::test]
async fn the_three_levels_of_reads_see_what_was_written() {
    let world = World::new().await;
    let node = world.start().await;
    for n in 1..=20 {
        let request = RecordRequest {
            term: "paris".into(),
            ..RecordRequest::default()
        };
        let recorded = node.public().record(request).await.unwrap().into_inner();
        for consistency in [
            Consistency::Unspecified,
            Consistency::Leader,
            Consistency::Linearizable,
            Consistency::Stale,
        ] {
            let request = GetTopKRequest {
                prefix: "par".into(),
                consistency: consistency.into(),
                token: recorded.token.clone(),
                ..GetTopKRequest::default()
            };
            let answer = node.public().get_top_k(request).await.unwrap().into_inner();
            assert_eq!(answer.suggestions[0].count, n, "{consistency:?}");
            assert_eq!(answer.age_ms, 0);
            let seen = |token: &Option<SessionToken>| token.as_ref().unwrap().positions[0].index;
            assert!(seen(&answer.token) >= seen(&recorded.token));
        }
    }
}

const LEVELS: [Consistency; 3] = [
    Consistency::Leader,
    Consistency::Linearizable,
    Consistency::Stale,
];

/// Whether somebody who brings `seen` along is shown what is at a position.
fn covers(seen: &[Position], at: &Position) -> bool {
    let place = |at: &Position| (at.shard_id, at.incarnation);
    seen.iter()
        .any(|seen| place(seen) == place(at) && seen.index >= at.index)
}

#[tokio::test]
async fn whoever_reads_is_told_how_much_was_seen_though_nothing_was_brought_along() {
    let world = World::new().await;
    let node = world.start().await;
    let mut written = Vec::new();
    for term in ["boston", "paris"] {
        let request = RecordRequest {
            term: term.into(),
            ..RecordRequest::default()
        };
        let recorded = node.public().record(request).await.unwrap().into_inner();
        written.extend(recorded.token.unwrap().positions);
    }
    assert_eq!(written.len(), 2);
    let asked = LEVELS.map(|level| GetTopKRequest {
        consistency: level.into(),
        ..GetTopKRequest::default()
    });
    let mut answers = Vec::new();
    for request in asked.clone() {
        let answer = node.public().get_top_k(request).await;
        answers.push(answer.unwrap().into_inner());
    }
    let streamed = node.public().top_k_stream(stream::iter(asked)).await;
    let streamed: Vec<_> = streamed.unwrap().into_inner().collect().await;
    answers.extend(streamed.into_iter().map(Result::unwrap));
    assert_eq!(answers.len(), 2 * LEVELS.len());
    for answer in answers {
        let seen = answer.token.unwrap().positions;
        assert!(written.iter().all(|at| covers(&seen, at)), "{seen:?}");
    }
}

#[tokio::test]
async fn a_shard_tells_how_much_was_seen_of_it() {
    let world = World::new().await;
    let node = world.start().await;
    let request = write(Some(HERE), |_| {});
    let written = node.shards().write(request).await.unwrap().into_inner();
    let written = written.position.unwrap();
    for level in LEVELS {
        let top = shard::TopKRequest {
            route: Some(HERE),
            namespace_id: 1,
            generation: 1,
            prefix: "p".into(),
            consistency: level.into(),
            ..Default::default()
        };
        let count = shard::CountRequest {
            route: Some(HERE),
            namespace_id: 1,
            generation: 1,
            term: "paris".into(),
            consistency: level.into(),
            ..Default::default()
        };
        let top = node.shards().top_k(top).await.unwrap().into_inner();
        let count = node.shards().count(count).await.unwrap().into_inner();
        for seen in [top.position, count.position] {
            assert!(covers(&[seen.unwrap()], &written), "{seen:?}, {level:?}");
        }
    }
}

#[tokio::test]
async fn tokens_wait_and_unknown_ones_are_refused() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    let with = |shard_id, incarnation, index| GetTopKRequest {
        prefix: "par".into(),
        consistency: Consistency::Stale.into(),
        token: Some(SessionToken {
            positions: vec![Position {
                shard_id,
                incarnation,
                index,
            }],
        }),
        ..GetTopKRequest::default()
    };
    // Nothing has this index yet: the call waits for as long as it may.
    let mut request = tonic::Request::new(with(2, 1, 1_000_000));
    request.set_timeout(std::time::Duration::from_millis(100));
    let refused = node.public().get_top_k(request).await.unwrap_err();
    assert_eq!(reason(&refused), api::Reason::Deadline);
    for (shard_id, incarnation) in [(2, 7), (55, 1)] {
        let refused = node
            .public()
            .get_top_k(with(shard_id, incarnation, 1))
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), api::Reason::UnknownIncarnation);
    }
}

#[tokio::test]
async fn a_prefix_owned_in_part_says_what_is_missing() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("boston", 2).await;
    node.record("paris", 3).await;
    let request = GetTopKRequest::default();
    let answer = node
        .public()
        .get_top_k(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.suggestions.len(), 2);
    let completeness = answer.completeness.unwrap();
    assert_eq!(
        (
            completeness.shards_attempted,
            completeness.shards_succeeded,
            completeness.shards_failed
        ),
        (3, 2, 1)
    );
    let missing = TermRange {
        start: "t".into(),
        end: String::new(),
    };
    assert_eq!(completeness.missing, [missing]);
    let strict = GetTopKRequest {
        require_complete: true,
        ..request
    };
    let refused = node.public().get_top_k(strict).await.unwrap_err();
    assert_eq!(reason(&refused), api::Reason::Incomplete);

    // What is owned elsewhere altogether is refused with directions.
    let record = RecordRequest {
        term: "zebra".into(),
        ..RecordRequest::default()
    };
    let refused = node.public().record(record).await.unwrap_err();
    let error = api::ApiError::from_status(&refused);
    assert_eq!(error.reason(), api::Reason::WrongShard);
    assert_eq!(error.outcome(), Some(api::Outcome::NotApplied));
    assert_eq!(error.metadata()["owner_address"], "stranger:50061");
    assert!(
        error
            .map()
            .is_some_and(|map| map.epoch == error.epoch().unwrap().0)
    );
}

#[tokio::test]
async fn a_retry_with_the_same_id_counts_once() {
    let world = World::new().await;
    let node = world.start().await;
    let request = RecordRequest {
        term: "paris".into(),
        count: 4,
        request_id: Some(request_id(1, 1)),
        ..RecordRequest::default()
    };
    let first = node
        .public()
        .record(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.count, first.repeated), (4, false));
    let again = node
        .public()
        .record(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((again.count, again.repeated), (4, true));
    let other = RecordRequest {
        count: 5,
        ..request
    };
    let refused = node.public().record(other).await.unwrap_err();
    assert_eq!(reason(&refused), api::Reason::RequestIdReused);
    // Many at once, of which one takes effect.
    let batch = RecordBatchRequest {
        items: vec![
            RecordItem {
                term: "boston".into(),
                count: 1,
            },
            RecordItem {
                term: "oslo".into(),
                count: 1,
            },
            RecordItem {
                term: "boston".into(),
                count: 1,
            },
        ],
        request_id: Some(request_id(1, 2)),
        ..RecordBatchRequest::default()
    };
    let calls = (0..20).map(|_| {
        let (mut client, batch) = (node.public(), batch.clone());
        async move { client.record_batch(batch).await.unwrap().into_inner() }
    });
    let answers = futures::future::join_all(calls).await;
    let fresh =
        |answer: &&RecordBatchResponse| answer.results.iter().all(|result| !result.repeated);
    assert_eq!(answers.iter().filter(fresh).count(), 1);
    assert_eq!(
        (node.count("boston").await, node.count("oslo").await),
        (2, 1)
    );
}

#[tokio::test]
async fn streams_answer_in_order_or_by_correlation() {
    let world = World::new().await;
    let node = world.start().await;
    let batches = (1..=200_u64).map(|n| RecordBatchRequest {
        items: vec![RecordItem {
            term: "paris".into(),
            count: n,
        }],
        ..RecordBatchRequest::default()
    });
    let answers = node
        .public()
        .record_stream(stream::iter(batches))
        .await
        .unwrap()
        .into_inner();
    let counts: Vec<u64> = answers
        .map(|answer| answer.unwrap().results[0].count)
        .collect()
        .await;
    let expected: Vec<u64> = (1..=200_u64).map(|n| n * (n + 1) / 2).collect();
    assert_eq!(counts, expected);

    let keystrokes = ["p", "pa", "par", "pax"].map(|prefix| GetTopKRequest {
        prefix: prefix.into(),
        ..GetTopKRequest::default()
    });
    let answers = node
        .public()
        .top_k_stream(stream::iter(keystrokes))
        .await
        .unwrap()
        .into_inner();
    let found: Vec<usize> = answers
        .map(|answer| answer.unwrap().suggestions.len())
        .collect()
        .await;
    assert_eq!(found, [1, 1, 1, 0]);

    let route = Some(shard::Route {
        shard_id: 2,
        incarnation: 1,
        epoch: 1,
        ..Default::default()
    });
    let requests = (1..=100_u64).map(move |correlation| shard::TopKRequest {
        correlation,
        // Every tenth goes astray.
        route: if correlation % 10 == 0 { None } else { route },
        namespace_id: 1,
        generation: 1,
        prefix: "p".into(),
        k: 5,
        ..Default::default()
    });
    let answers = node
        .shards()
        .top_k_stream(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    answers.sort_by_key(|answer| answer.correlation);
    assert_eq!(answers.len(), 100);
    for answer in answers {
        let is_astray = answer.correlation % 10 == 0;
        assert_eq!(answer.error.is_some(), is_astray, "{answer:?}");
        assert_eq!(answer.suggestions.len(), usize::from(!is_astray));
    }
}

#[tokio::test]
async fn a_cleared_namespace_is_empty_and_nothing_that_follows_is_lost() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.record("boston", 1).await;
    let clear = ClearNamespaceRequest::default();
    let cleared = node
        .public()
        .clear_namespace(clear)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(cleared.generation, 2);
    // Writes race with the news of the clear: each must end up in the new generation.
    let mut recorded = 0;
    world
        .until("the clear has arrived", || {
            recorded += 1;
            let node = &node;
            async move {
                node.record("berlin", 1).await;
                node.top("paris", 10).await.is_empty() && node.top("boston", 10).await.is_empty()
            }
        })
        .await;
    let before = node.count("berlin").await;
    assert_eq!(node.record("berlin", 1).await, before + 1);
    assert!(before <= recorded);
}

/// A coordinator that has heard of a clear reads, and one that has not goes on writing.
#[tokio::test]
async fn what_a_strict_read_has_shown_to_be_cleared_takes_no_write_of_before() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    let top = |namespace_id, consistency: Consistency| shard::TopKRequest {
        route: Some(HERE),
        namespace_id,
        generation: 2,
        prefix: "p".into(),
        k: 5,
        consistency: consistency.into(),
        ..Default::default()
    };
    // A read that may be stale promises nothing, and changes nothing.
    let stale = top(1, Consistency::Stale);
    let seen = node.shards().top_k(stale).await.unwrap().into_inner();
    assert_eq!(seen.suggestions, []);
    assert_eq!(node.record("paris", 1).await, 2);
    // Also where nothing was ever written to it: the write would be there afterwards.
    for (namespace, level) in [(1, Consistency::Leader), (9, Consistency::Linearizable)] {
        let strict = top(namespace, level);
        let seen = node.shards().top_k(strict).await.unwrap().into_inner();
        assert_eq!(seen.suggestions, []);
        let write = write(Some(HERE), |write| write.namespace_id = namespace);
        let written = node.shards().write(write).await;
        let results = written.unwrap().into_inner().results;
        let refused = results[0].error.as_ref().map(|error| error.reason.clone());
        assert_eq!(refused.as_deref(), Some("STALE_GENERATION"), "{results:?}");
    }
}

#[tokio::test]
async fn measurements_are_taken_and_reported() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    node.top("p", 10).await;
    world
        .until("the report says so", || async {
            let Some(report) = world.registry.report(1) else {
                return false;
            };
            report.replicas.iter().any(|replica| {
                replica.shard_id == 2
                    && replica.serving
                    && replica.records_total == 1
                    && replica.terms == 1
                    && replica.reads_total > 0
                    && replica.role() == api::admin::v1::ReplicaRole::Leader
            })
        })
        .await;
}
