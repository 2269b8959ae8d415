//! Writes over several shards, and their retries.

use std::time::Duration;

use api::Reason;
use api::v1::{
    DeleteRequest, GetTopKRequest, RecordBatchRequest, RecordBatchResponse, RecordItem,
    RecordRequest, RequestId,
};
use bytes::Bytes;
use tonic::{Code, Response, Status};

use super::harness::{Cluster, listed, reason};

fn id(cluster: &Cluster, sequence: u64) -> RequestId {
    RequestId {
        client_id: Bytes::from_static(b"sixteen bytes id"),
        sequence,
        issued_at_ms: cluster.runtime.wall_ms(),
        acked_below: 0,
    }
}

fn batch(terms: &[(&str, u64)], request_id: Option<RequestId>) -> RecordBatchRequest {
    let item = |(term, count): &(&str, u64)| RecordItem {
        term: (*term).to_owned(),
        count: *count,
    };
    RecordBatchRequest {
        items: terms.iter().map(item).collect(),
        namespace: String::new(),
        request_id,
    }
}

fn counts(answer: &RecordBatchResponse) -> Vec<(u64, bool)> {
    let results = answer.results.iter();
    results.map(|at| (at.count, at.repeated)).collect()
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until every shard answers. The status of a server that came back soon may still be what it said before it went.
pub(super) async fn until_complete(cluster: &Cluster) {
    let request = GetTopKRequest {
        require_complete: true,
        ..GetTopKRequest::default()
    };
    settled(cluster, async || {
        cluster.client().get_top_k(request.clone()).await
    })
    .await;
}

/// Sends again what a server that has just come back does not answer yet, as a client does.
pub(super) async fn settled<T>(
    cluster: &Cluster,
    send: impl AsyncFn() -> Result<Response<T>, Status>,
) -> T {
    let answered = async {
        loop {
            match send().await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let answered = cluster.runtime.timeout(PATIENCE, answered).await;
    answered.expect("it is answered in the end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_all_shards_is_applied_once_however_often_it_is_sent() {
    let cluster = Cluster::start().await;
    let terms = [("zoo", 2), ("ant", 3), ("kiwi", 4), ("ant", 5)];
    let request = batch(&terms, Some(id(&cluster, 1)));
    let mut client = cluster.client();
    let first = client
        .record_batch(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        counts(&first),
        [(2, false), (3, false), (4, false), (8, false)]
    );
    for _ in 0..3 {
        let again = client
            .record_batch(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(counts(&again), [(2, true), (8, true), (4, true), (8, true)]);
    }
    let other = batch(&[("zoo", 3)], request.request_id.clone());
    let refused = client.record_batch(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), Reason::RequestIdReused);
    let expected = [("ant", 8), ("kiwi", 4), ("zoo", 2)];
    assert_eq!(listed(&cluster.top("", 10).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_and_a_delete_are_applied_once() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let record = RecordRequest {
        term: "Apple".into(),
        count: 7,
        namespace: String::new(),
        request_id: Some(id(&cluster, 1)),
    };
    let first = client.record(record.clone()).await.unwrap().into_inner();
    assert_eq!((first.count, first.repeated), (7, false));
    let again = client.record(record).await.unwrap().into_inner();
    assert_eq!((again.count, again.repeated), (7, true));
    assert_eq!(cluster.record("APPLE", 0).await, 8);

    let delete = |sequence| DeleteRequest {
        term: "apple".into(),
        namespace: String::new(),
        request_id: Some(id(&cluster, sequence)),
    };
    let deleted = client.delete(delete(2)).await.unwrap().into_inner();
    assert!(deleted.existed);
    assert_eq!(deleted.token.unwrap().positions.len(), 1);
    assert_eq!(listed(&cluster.top("", 10).await), []);
    assert!(!client.delete(delete(3)).await.unwrap().into_inner().existed);
    let nowhere = DeleteRequest {
        term: "apple".into(),
        namespace: "nobody-wrote-here".into(),
        request_id: None,
    };
    assert!(!client.delete(nowhere).await.unwrap().into_inner().existed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_found_no_namespace_is_remembered_all_the_same() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let delete = DeleteRequest {
        term: "apple".into(),
        namespace: "new".into(),
        request_id: Some(id(&cluster, 1)),
    };
    let first = client.delete(delete.clone()).await.unwrap();
    assert!(!first.into_inner().existed);
    let record = RecordRequest {
        term: "apple".into(),
        namespace: "new".into(),
        ..RecordRequest::default()
    };
    client.record(record.clone()).await.unwrap();
    let again = client.delete(delete).await.unwrap();
    assert!(!again.into_inner().existed);
    assert_eq!(client.record(record).await.unwrap().into_inner().count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_batches_is_answered_one_for_one() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..50)
        .map(|n| format!("{}{n}", ["a", "h", "q"][n % 3]))
        .collect();
    let requests: Vec<RecordBatchRequest> = (0..400)
        .map(|n| {
            batch(
                &[
                    (names[n % 50].as_str(), 1),
                    (names[(n + 7) % 50].as_str(), 2),
                ],
                None,
            )
        })
        .collect();
    let stream = cluster
        .client()
        .record_stream(futures::stream::iter(requests))
        .await;
    let mut answers = stream.unwrap().into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.results.iter().all(|at| at.code == 0));
        answered += 1;
    }
    assert_eq!(answered, 400);
    let all = cluster.top("", 100).await;
    assert_eq!(all.suggestions.len(), 50);
    assert!(
        all.suggestions.iter().all(|at| at.count == 8 * 3),
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_applies_the_batches_of_a_stream_in_their_order() {
    let cluster = Cluster::start().await;
    let requests = vec![batch(&[("ant", 1)], None); 1_000];
    let stream = cluster
        .client()
        .record_stream(futures::stream::iter(requests))
        .await;
    let mut answers = stream.unwrap().into_inner();
    for expected in 1..=1_000 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(counts(&answer), [(expected, false)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_ends_a_stream_after_the_answers_before_it() {
    let cluster = Cluster::start().await;
    let requests = [
        batch(&[("ant", 1)], None),
        batch(&[("ant", 1), (" ", 1)], None),
        batch(&[("ant", 1)], None),
    ];
    let stream = cluster
        .client()
        .record_stream(futures::stream::iter(requests))
        .await;
    let mut answers = stream.unwrap().into_inner();
    assert_eq!(
        counts(&answers.message().await.unwrap().unwrap()),
        [(1, false)]
    );
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("items[1]"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_the_shards_that_are_there_take_their_part() {
    let mut cluster = Cluster::start().await;
    cluster.record("ant", 1).await;
    cluster.stop_server(1).await;
    let request = batch(
        &[("ant", 1), ("kiwi", 1), ("zoo", 1)],
        Some(id(&cluster, 1)),
    );
    let mut client = cluster.client();
    let answer = client
        .record_batch(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.results[0].code, answer.results[0].count), (0, 2));
    assert_eq!((answer.results[2].code, answer.results[2].count), (0, 1));
    assert_eq!(
        answer.results[1].code,
        Code::Unavailable as i32,
        "{answer:?}"
    );
    assert!(!answer.results[1].reason.is_empty());

    let alone = batch(&[("kiwi", 1)], None);
    let refused = client.record_batch(alone).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(api::ApiError::from_status(&refused).outcome().is_some());

    cluster.start_server(1).await;
    until_complete(&cluster).await;
    let again = settled(&cluster, async || {
        let answer = client.clone().record_batch(request.clone()).await?;
        let open = answer.get_ref().results.iter().find(|at| at.code != 0);
        match open {
            Some(open) => Err(Status::new(Code::from(open.code), open.reason.clone())),
            None => Ok(answer),
        }
    })
    .await;
    let counts: Vec<u64> = again.results.iter().map(|at| at.count).collect();
    assert_eq!(counts, [2, 1, 1]);
    assert!(again.results[0].repeated && again.results[2].repeated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_again_after_a_restart_of_all() {
    let mut cluster = Cluster::start().await;
    for (term, count) in [("ant", 5), ("kiwi", 6), ("zoo", 7)] {
        cluster.record(term, count).await;
    }
    let before = cluster.top("", 10).await;
    for place in 0..3 {
        cluster.stop_server(place).await;
    }
    cluster.stop_coordinator().await;
    cluster.start_coordinator().await;
    for place in 0..3 {
        cluster.start_server(place).await;
    }
    cluster.until_serving().await;
    assert_eq!(listed(&cluster.top("", 10).await), listed(&before));
    assert_eq!(cluster.record("kiwi", 1).await, 7);
}
