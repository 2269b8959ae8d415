use std::time::Duration;

use api::shard::v1 as shard;
use api::v1::*;
use api::{ApiError, Outcome, Reason};
use prost::Message as _;
use runtime::{Network as _, TcpNetwork};
use shard_server::config::{AtBudget, QueueConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};

use crate::harness::{Node, World, request_id};

fn record(term: &str, count: u64) -> RecordRequest {
    RecordRequest {
        term: term.to_owned(),
        count,
        ..RecordRequest::default()
    }
}

fn check(status: &Status, expected: Reason, what: &str) {
    let error = ApiError::from_status(status);
    assert_eq!(error.reason(), expected, "{what}: {status}");
    assert_eq!(status.code(), expected.code(), "{what}");
}

#[tokio::test]
async fn each_bad_record_gets_its_status_and_says_that_nothing_was_applied() {
    let world = World::new().await;
    let node = world.start().await;
    let long = "x".repeat(257);
    let raw = "x".repeat(4097);
    let id = |change: fn(&mut RequestId)| {
        let mut id = request_id(1, 1);
        change(&mut id);
        RecordRequest {
            request_id: Some(id),
            ..record("paris", 1)
        }
    };
    let cases = [
        (record("", 1), Reason::BadTerm),
        (record(" \t\n", 1), Reason::BadTerm),
        (record(&long, 1), Reason::BadTerm),
        (record(&raw, 1), Reason::BadTerm),
        (
            record("paris", cluster::limits::RECORD_COUNT_MAX + 1),
            Reason::BadCount,
        ),
        (
            RecordRequest {
                namespace: "No Spaces".into(),
                ..record("paris", 1)
            },
            Reason::BadNamespace,
        ),
        (
            id(|id| id.client_id = vec![1; 15].into()),
            Reason::BadRequestId,
        ),
        (id(|id| id.acked_below = 2), Reason::BadRequestId),
        (id(|id| id.issued_at_ms += 3_600_000), Reason::BadRequestId),
    ];
    for (request, expected) in cases {
        let what = format!("{request:?}");
        let refused = node.public().record(request).await.unwrap_err();
        check(&refused, expected, &what);
        let error = ApiError::from_status(&refused);
        assert_eq!(error.outcome(), Some(Outcome::NotApplied), "{what}");
        assert!(error.field_name().is_some(), "{what}: {refused}");
    }
    assert_eq!(node.count("paris").await, 0);
    assert_eq!(node.record("paris", 0).await, 1, "unset means 1");
}

#[tokio::test]
async fn a_batch_with_one_bad_item_is_refused_as_a_whole() {
    let world = World::new().await;
    let node = world.start().await;
    let item = |term: &str| RecordItem {
        term: term.to_owned(),
        count: 1,
    };
    let batch = |items| RecordBatchRequest {
        items,
        ..RecordBatchRequest::default()
    };
    let refused = node
        .public()
        .record_batch(batch(vec![item("a"), item("b"), item("")]))
        .await
        .unwrap_err();
    check(&refused, Reason::BadTerm, "items[2]");
    assert!(refused.message().contains("items[2]"), "{refused}");
    let refused = node
        .public()
        .record_batch(batch(vec![item("a"); 1001]))
        .await
        .unwrap_err();
    check(&refused, Reason::BatchTooLarge, "1001 items");
    // One of them belongs to another node: nothing is applied either.
    let refused = node
        .public()
        .record_batch(batch(vec![item("a"), item("zebra")]))
        .await
        .unwrap_err();
    check(&refused, Reason::WrongShard, "zebra");
    assert_eq!(node.count("a").await, 0);
    node.public()
        .record_batch(batch(vec![item("a"); 1000]))
        .await
        .unwrap();
    assert_eq!(node.count("a").await, 1000);
}

#[tokio::test]
async fn messages_that_are_too_large_or_no_messages_are_refused() {
    let world = World::new().await;
    let node = world.start().await;
    let large = record(&"x".repeat(cluster::limits::MESSAGE_BYTES_MAX), 1);
    let refused = node.public().record(large).await.unwrap_err();
    check(&refused, Reason::MessageTooLarge, "1 MiB");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let prefix = GetTopKRequest {
        prefix: "x".repeat(257),
        ..GetTopKRequest::default()
    };
    let refused = node.public().get_top_k(prefix).await.unwrap_err();
    check(&refused, Reason::BadPrefix, "prefix");
    let token = ListTermsRequest {
        prefix: "a".into(),
        page_token: "made up".into(),
        ..ListTermsRequest::default()
    };
    let refused = node.public().list_terms(token).await.unwrap_err();
    check(&refused, Reason::BadToken, "page token");
    let partly = ListTermsRequest::default();
    let refused = node.public().list_terms(partly).await.unwrap_err();
    check(&refused, Reason::WrongShard, "a listing over several nodes");
}

/// A record of one term, but for what is changed in it.
pub(crate) fn write(
    route: Option<shard::Route>,
    change: impl FnOnce(&mut shard::Write),
) -> shard::WriteRequest {
    let mut write = shard::Write {
        namespace_id: 1,
        generation: 1,
        operation: Some(shard::write::Operation::Record(shard::RecordItems {
            items: vec![shard::NumberedItem {
                term: "paris".into(),
                count: 1,
                ..Default::default()
            }],
        })),
        ..Default::default()
    };
    change(&mut write);
    shard::WriteRequest {
        route,
        writes: vec![write],
        ..Default::default()
    }
}

fn records(items: Vec<shard::NumberedItem>) -> Option<shard::write::Operation> {
    Some(shard::write::Operation::Record(shard::RecordItems {
        items,
    }))
}

fn numbered(number: u32, term: &str, count: u64) -> shard::NumberedItem {
    shard::NumberedItem {
        number,
        term: term.to_owned(),
        count,
        ..Default::default()
    }
}

/// Spoils a write.
type Change = Box<dyn FnOnce(&mut shard::Write)>;

/// The way to the second shard.
pub(crate) const HERE: shard::Route = shard::Route {
    shard_id: 2,
    incarnation: 1,
    epoch: 1,
    trace_high: 0,
    trace_low: 0,
};

async fn refuse(node: &Node, request: shard::WriteRequest, expected: Reason) {
    let what = format!("{request:?}");
    let refused = node.shards().write(request).await.unwrap_err();
    check(&refused, expected, &what);
}

#[tokio::test]
async fn routes_are_checked() {
    let world = World::new().await;
    let node = world.start().await;
    let to = |shard_id, incarnation, epoch| {
        Some(shard::Route {
            shard_id,
            incarnation,
            epoch,
            ..HERE
        })
    };
    refuse(&node, write(None, |_| {}), Reason::BadArgument).await;
    refuse(&node, write(to(77, 1, 1), |_| {}), Reason::UnknownShard).await;
    refuse(&node, write(to(3, 1, 1), |_| {}), Reason::WrongShard).await;
    refuse(&node, write(to(2, 2, 1), |_| {}), Reason::StaleIncarnation).await;
    refuse(&node, write(to(1, 1, 1), |_| {}), Reason::WrongShard).await;
    refuse(&node, write(to(1, 1, 5), |_| {}), Reason::StaleEpoch).await;
    // An older or newer epoch is no harm where the term is owned all the same.
    for epoch in [0, 1, 9] {
        node.shards()
            .write(write(to(2, 1, epoch), |_| {}))
            .await
            .unwrap();
    }
    assert_eq!(
        node.count("paris").await,
        0,
        "a namespace that nobody created"
    );
    let read = |range| shard::TopKRequest {
        route: Some(HERE),
        namespace_id: 1,
        generation: 1,
        prefix: String::new(),
        range,
        ..Default::default()
    };
    let range = |start: &str, end: &str| {
        Some(TermRange {
            start: start.into(),
            end: end.into(),
        })
    };
    let answer = node
        .shards()
        .top_k(read(range("m", "t")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.suggestions.len(), answer.range),
        (1, range("m", "t"))
    );
    let answer = node.shards().top_k(read(None)).await.unwrap().into_inner();
    assert_eq!(answer.range, range("m", "t"));
    let answer = node
        .shards()
        .top_k(read(range("m", "p")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.suggestions, [], "paris lies behind the range");
    for wrong in [range("", "t"), range("m", ""), range("a", "b")] {
        let refused = node.shards().top_k(read(wrong)).await.unwrap_err();
        check(&refused, Reason::WrongShard, "range");
    }
    let refused = node
        .shards()
        .top_k(read(range("t", "m")))
        .await
        .unwrap_err();
    check(&refused, Reason::BadArgument, "empty range");
}

#[tokio::test]
async fn what_coordinators_send_is_checked_too() {
    let world = World::new().await;
    let node = world.start().await;
    let cases: Vec<(Change, Reason)> = vec![
        (
            Box::new(|write| write.namespace_id = 0),
            Reason::BadArgument,
        ),
        (Box::new(|write| write.generation = 0), Reason::BadArgument),
        (
            Box::new(|write| write.operation = None),
            Reason::BadArgument,
        ),
        (
            Box::new(|write| write.operation = records(vec![numbered(0, "", 1)])),
            Reason::BadTerm,
        ),
        (
            Box::new(|write| write.operation = records(vec![numbered(0, &"p".repeat(257), 1)])),
            Reason::BadTerm,
        ),
        (
            Box::new(|write| write.operation = records(vec![numbered(0, "p", 0)])),
            Reason::BadCount,
        ),
        (
            Box::new(|write| write.operation = records(vec![numbered(1000, "p", 1)])),
            Reason::BadArgument,
        ),
        (
            Box::new(|write| {
                write.operation = records(vec![numbered(5, "p", 1), numbered(5, "q", 1)])
            }),
            Reason::BadArgument,
        ),
        (
            Box::new(|write| {
                let mut long = numbered(0, "p", 1);
                long.display = "P".repeat(2000);
                write.operation = records(vec![long]);
            }),
            Reason::BadTerm,
        ),
        (
            Box::new(|write| {
                let term = String::new();
                write.operation = Some(shard::write::Operation::Delete(shard::DeleteTerm { term }));
            }),
            Reason::BadTerm,
        ),
    ];
    for (change, expected) in cases {
        refuse(&node, write(Some(HERE), change), expected).await;
    }
    let mut many = write(Some(HERE), |_| {});
    many.writes = vec![many.writes[0].clone(); 1001];
    refuse(&node, many, Reason::BatchTooLarge).await;
}

#[tokio::test]
async fn records_of_nothing_and_places_to_go_on_from_have_limits() {
    let world = World::new().await;
    let node = world.start().await;
    let mut empty = write(Some(HERE), |write| write.operation = records(Vec::new()));
    empty.writes = vec![empty.writes[0].clone(); 1001];
    refuse(&node, empty, Reason::BatchTooLarge).await;
    let list = |after: &str| shard::ListRequest {
        route: Some(HERE),
        namespace_id: 1,
        generation: 1,
        after: after.to_owned(),
        ..Default::default()
    };
    node.shards().list(list(&"p".repeat(256))).await.unwrap();
    let refused = node.shards().list(list(&"p".repeat(257))).await;
    let refused = refused.unwrap_err();
    check(&refused, Reason::BadTerm, "after");
    assert_eq!(ApiError::from_status(&refused).field_name(), Some("after"));
}

#[tokio::test]
async fn an_expired_deadline_is_not_begun() {
    let world = World::new().await;
    let node = world.start().await;
    node.record("paris", 1).await;
    // By hand, as gRPC-Web: the client library gives up before it sends a call that has no time left.
    let message = record("paris", 1).encode_to_vec();
    let length = (message.len() as u32).to_be_bytes();
    let head = format!(
        "POST /autocomplete.v1.AutocompleteService/Record HTTP/1.1\r\nhost: test\r\n\
         content-type: application/grpc-web+proto\r\ngrpc-timeout: 0n\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        message.len() + 5
    );
    let request = [head.as_bytes(), &[0], &length, &message].concat();
    let mut connection = TcpNetwork.connect(node.address.clone()).await.unwrap();
    connection.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).replace(' ', "");
    assert!(answer.contains("grpc-status:4"), "{answer}");
    assert_eq!(node.count("paris").await, 1);
}

#[tokio::test]
async fn overload_is_refused_at_once_and_what_was_accepted_counts() {
    let mut world = World::new().await;
    world.config.queue = QueueConfig {
        calls_max: 1,
        entries_in_flight: 1,
        ..QueueConfig::default()
    };
    let node = world.start().await;
    node.record("paris", 1).await;
    let calls = (0..300).map(|_| {
        let mut client = node.public();
        async move { client.record(record("paris", 1)).await }
    });
    let answers = futures::future::join_all(calls).await;
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        check(refused, Reason::Overloaded, "overload");
        let error = ApiError::from_status(refused);
        assert_eq!(error.outcome(), Some(Outcome::NotApplied));
        assert!(
            error
                .retry_after()
                .is_some_and(|delay| delay > Duration::ZERO)
        );
    }
    assert!(accepted < 300, "nothing was refused");
    assert_eq!(node.count("paris").await, 1 + accepted);
}

#[tokio::test]
async fn a_shard_above_its_budget_gives_up_its_rarest_terms_where_that_was_asked_for() {
    let mut world = World::new().await;
    let budget = 10_000;
    world.config.state.shard_bytes_max = Some(budget);
    world.config.state.at_budget = AtBudget::Evict;
    let node = world.start().await;
    let mut public = node.public();
    public.record(record("popular", 1000)).await.unwrap();
    // Three times the budget, for that would be refused if nothing were given up.
    for n in 0..1500 {
        let mut tries = 0;
        while let Err(status) = public.record(record(&format!("rare {n:07}"), 1)).await {
            check(&status, Reason::MemoryBudget, "shard-bytes-max");
            tries += 1;
            assert!(tries < 1000, "nothing is given up: {status}");
            world.runtime.sleep(Duration::from_millis(20)).await;
        }
    }
    world
        .until("the shard is within its budget", || async {
            // Of 12 bytes and 8 for the count each, but for one.
            node.top("", 1000).await.len() as u64 * 20 <= budget
        })
        .await;
    assert_eq!(node.count("popular").await, 1000);
}

#[tokio::test]
async fn above_the_budget_of_a_shard_records_are_refused() {
    let mut world = World::new().await;
    world.config.state.shard_bytes_max = Some(100);
    let node = world.start().await;
    let with_id = RecordRequest {
        request_id: Some(request_id(3, 0)),
        ..record("paris 0", 1)
    };
    let first = node.public().record(with_id.clone()).await.unwrap();
    assert!(!first.into_inner().repeated);
    let mut accepted = 1;
    let refused = loop {
        match node
            .public()
            .record(record(&format!("paris {accepted}"), 1))
            .await
        {
            Ok(_) => accepted += 1,
            Err(status) => break status,
        }
    };
    check(&refused, Reason::MemoryBudget, "shard-bytes-max is 100");
    // Of 7 bytes and 8 for the count each.
    assert_eq!(accepted, 7);
    // What was applied is not called refused, however late it is asked.
    let again = node.public().record(with_id).await.unwrap().into_inner();
    assert!(again.repeated && again.count == 1, "{again:?}");
}

#[tokio::test]
async fn above_the_memory_budget_records_are_refused_and_deletes_pass() {
    let mut world = World::new().await;
    world.config.state.memory_bytes_max = Some(1);
    let node = world.start().await;
    let mut refused = None;
    for n in 0..10 {
        if let Err(status) = node.public().record(record(&format!("paris {n}"), 1)).await {
            refused = Some(status);
        }
    }
    check(&refused.unwrap(), Reason::MemoryBudget, "memory-bytes-max");
    let delete = DeleteRequest {
        term: "paris 0".into(),
        ..DeleteRequest::default()
    };
    assert!(
        node.public()
            .delete(delete)
            .await
            .unwrap()
            .into_inner()
            .existed
    );
}
