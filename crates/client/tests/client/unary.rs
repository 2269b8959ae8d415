//! Single calls: what is retried, under which id, and what the caller is told.

use std::time::Duration;

use api::{ApiError, Outcome, Reason, v1};
use client::{Client, ClientError};
use runtime::Runtime;

use crate::fake::{
    Fake, IMPATIENCE, Play, batch, error, impatient_pair, options, pair, pair_with, prefix, record,
};

#[tokio::test]
async fn a_retry_carries_the_id_of_the_first_try_and_counts_once() {
    let (fake, client) = impatient_pair().await;
    fake.script([
        Play::Refuse(error(Reason::Starting)),
        Play::ApplyThenFail(error(Reason::Disconnected)),
        Play::ApplyThenHang,
    ]);
    let response = client.record(record("new york")).await.unwrap();
    assert_eq!((response.count, response.repeated), (1, true));
    assert_eq!(fake.count("new york"), 1);
    let ids = fake.ids();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(ids[0].client_id.len(), 16);
    assert!((Runtime::real().wall_ms() - ids[0].issued_at_ms).abs() < 60_000);
}

#[tokio::test]
async fn what_cannot_succeed_is_tried_once() {
    for reason in [
        Reason::BadTerm,
        Reason::RequestIdReused,
        Reason::CountOverflow,
        Reason::DataLoss,
        Reason::PermissionDenied,
        Reason::Unauthenticated,
        Reason::SessionExpired,
        // No word on when to come back.
        Reason::Overloaded,
    ] {
        let (fake, client) = pair().await;
        fake.script([Play::Refuse(error(reason))]);
        let failure = client.record(record("a")).await.unwrap_err();
        assert_eq!(failure.reason(), Some(reason));
        assert_eq!(failure.outcome(), reason.outcome_of_write());
        assert_eq!(fake.ids().len(), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn an_overloaded_server_is_given_the_time_it_asks_for() {
    let (fake, client) = pair().await;
    let delay = Duration::from_millis(120);
    fake.script([Play::Refuse(ApiError::overloaded("busy", delay))]);
    let runtime = Runtime::real();
    let begun = runtime.now();
    client.record(record("a")).await.unwrap();
    assert!(runtime.now().saturating_since(begun) >= delay);
    assert_eq!(fake.ids().len(), 2);
}

#[tokio::test]
async fn retries_end_and_the_outcome_covers_all_tries() {
    let (fake, client) = pair().await;
    fake.script([Play::ApplyThenFail(error(Reason::Disconnected))]);
    fake.script(vec![Play::Refuse(error(Reason::Starting)); 20]);
    let failure = client.record(record("a")).await.unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Starting));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    assert!(matches!(failure, ClientError::Call { attempts: 9, .. }));
    assert_eq!(fake.ids().len(), 9);

    let (fake, client) = pair().await;
    fake.script(vec![Play::Refuse(error(Reason::Starting)); 20]);
    let failure = client.record(record("a")).await.unwrap_err();
    assert_eq!(failure.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn the_deadline_ends_the_tries_and_each_try_tells_the_server_its_time() {
    let (fake, client) = pair_with(|options| {
        options.attempt_timeout = IMPATIENCE;
        options.deadline = Duration::from_millis(700);
    })
    .await;
    fake.script(vec![Play::ApplyThenHang; 9]);
    let failure = client.record(record("a")).await.unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Deadline));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    let timeouts = fake.timeouts();
    assert!(timeouts.iter().all(Option::is_some), "{timeouts:?}");
    // One where the end of the first was noticed too late for another.
    assert!((1..=2).contains(&timeouts.len()), "{timeouts:?}");
    assert_eq!(fake.count("a"), 1);
}

#[tokio::test]
async fn no_try_is_begun_without_time_for_an_answer_and_the_last_real_error_is_told() {
    let deadline = Duration::from_secs(60);
    let (fake, client) = pair_with(|options| options.deadline = deadline).await;
    let delay = deadline - Duration::from_millis(15);
    let busy = || [Play::Refuse(ApiError::overloaded("busy", delay))];
    fake.script(busy());
    let failure = client.record(record("a")).await.unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Overloaded));
    assert_eq!(failure.outcome(), Outcome::NotApplied);
    assert!(matches!(failure, ClientError::Call { attempts: 1, .. }));
    assert_eq!(fake.ids().len(), 1);

    fake.script(busy());
    let failure = client.top_k_stream().ask(prefix("a")).await.unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Overloaded));
}

#[tokio::test]
async fn another_coordinator_takes_over_when_one_is_gone() {
    let gone = Runtime::real()
        .bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let dead = gone.local_addr().to_string();
    drop(gone);
    let fake = Fake::default();
    let alive = fake.serve().await;
    let client = Client::connect(Runtime::real(), options(&[&dead, &alive])).unwrap();
    client.record(record("a")).await.unwrap();
    client.record(record("a")).await.unwrap();
    assert_eq!(fake.count("a"), 2);
}

#[tokio::test]
async fn a_coordinator_that_is_lost_costs_each_call_one_retry_at_most() {
    let [lost, next, last] = <[Fake; 3]>::default();
    // Its connections are closed where they stand, as those of a process that is killed.
    let machine = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let serving = lost.clone();
    let at_lost = machine.spawn(async move { serving.serve().await });
    let at_lost = at_lost.await.unwrap();
    let (at_next, at_last) = (next.serve().await, last.serve().await);
    let mut options = options(&[&at_lost, &at_next, &at_last]);
    options.retries = 1;
    let connect = || Client::connect(Runtime::real(), options.clone()).unwrap();
    let (client, reader) = (connect(), connect());
    client.record(record("a")).await.unwrap();
    reader.top_k(prefix("a")).await.unwrap();
    lost.script(vec![Play::ApplyThenHang; 3]);
    let under_way = ["b", "c", "d"].map(|term| {
        let client = client.clone();
        Runtime::real().spawn("slow", async move { client.record(record(term)).await })
    });
    while lost.script_left() > 0 {
        tokio::task::yield_now().await;
    }
    machine.shutdown_background();
    for call in under_way {
        call.await.unwrap().unwrap();
    }
    client.record(record("e")).await.unwrap();
    reader.top_k(prefix("a")).await.unwrap();
    // One try of each went to the one that was lost, and one to the next; what came later was tried there alone.
    let tries = [&lost, &next, &last].map(|at| (at.ids().len(), at.reads()));
    assert_eq!(tries, [(4, 1), (4, 1), (0, 0)]);
}

#[tokio::test]
async fn items_that_failed_for_now_are_sent_again_under_the_same_id() {
    let (fake, client) = pair().await;
    fake.script([
        Play::LeaveOut(vec![1], Reason::ShardUnavailable),
        Play::LeaveOut(vec![1], Reason::Overloaded),
    ]);
    let response = client.record_batch(batch(&["a", "b", "c"])).await.unwrap();
    assert!(response.results.iter().all(|result| result.code == 0));
    assert_eq!(["a", "b", "c"].map(|term| fake.count(term)), [1, 1, 1]);
    let ids = fake.ids();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn items_that_failed_for_good_are_reported_as_they_are() {
    let (fake, client) = pair().await;
    fake.script([Play::LeaveOut(vec![0], Reason::CountOverflow)]);
    let response = client.record_batch(batch(&["a", "b"])).await.unwrap();
    assert_eq!(response.results[0].error(), Some(Reason::CountOverflow));
    assert_eq!(response.results[1].error(), None);
    assert_eq!(fake.ids().len(), 1);

    // Retries run out: what was reached is handed out.
    let left_out = Play::LeaveOut(vec![1], Reason::ShardUnavailable);
    fake.script(vec![left_out; 20]);
    let response = client.record_batch(batch(&["c", "d"])).await.unwrap();
    assert_eq!(response.results[0].error(), None);
    assert_eq!(response.results[1].error(), Some(Reason::ShardUnavailable));
}

#[tokio::test]
async fn what_was_applied_in_part_is_never_called_refused() {
    let (fake, client) = pair().await;
    fake.script([
        Play::LeaveOut(vec![0], Reason::ShardUnavailable),
        Play::Refuse(error(Reason::DiskFull)),
    ]);
    let failure = client.record_batch(batch(&["a", "b"])).await.unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::DiskFull));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    assert_eq!(["a", "b"].map(|term| fake.count(term)), [0, 1]);
}

#[tokio::test]
async fn an_item_that_a_lost_try_may_have_applied_is_never_called_refused() {
    let (fake, client) = pair_with(|options| options.retries = 1).await;
    fake.script([
        Play::ApplyThenFail(error(Reason::Disconnected)),
        Play::LeaveOut(vec![1], Reason::DiskFull),
    ]);
    let response = client.record_batch(batch(&["a", "b"])).await.unwrap();
    assert_eq!(fake.count("b"), 1);
    let errors = [0, 1].map(|at: usize| response.results[at].error());
    assert_eq!(errors, [None, Some(Reason::ShardUnavailable)]);

    // Refused by every try, it was not applied.
    fake.script(vec![Play::LeaveOut(vec![1], Reason::DiskFull); 2]);
    let response = client.record_batch(batch(&["c", "d"])).await.unwrap();
    assert_eq!(response.results[1].error(), Some(Reason::DiskFull));
    assert_eq!(fake.count("d"), 0);
}

#[tokio::test]
async fn settled_writes_are_told_to_the_server() {
    let (fake, client) = impatient_pair().await;
    client.record(record("a")).await.unwrap();
    client.record(record("b")).await.unwrap();
    fake.script([Play::ApplyThenHang]);
    let runtime = Runtime::real();
    let slow = {
        let client = client.clone();
        runtime.spawn("slow", async move { client.record(record("c")).await })
    };
    while fake.script_left() > 0 {
        tokio::task::yield_now().await;
    }
    // The third write hangs: it holds the mark while the fourth is sent.
    client.record(record("d")).await.unwrap();
    slow.await.unwrap().unwrap();
    client.record(record("e")).await.unwrap();
    let ids = fake.ids();
    let of = |sequence: u64| {
        let sent = ids.iter().find(|id| id.sequence == sequence);
        sent.map(|id| id.acked_below)
    };
    assert_eq!(
        [1, 2, 3, 4, 5].map(of),
        [Some(1), Some(2), Some(3), Some(3), Some(5)]
    );
}

#[tokio::test]
async fn an_id_of_the_caller_is_left_alone() {
    let (fake, client) = pair().await;
    let id = v1::RequestId {
        client_id: vec![9; 16].into(),
        sequence: 77,
        issued_at_ms: 5,
        acked_below: 70,
    };
    let mut request = record("a");
    request.request_id = Some(id.clone());
    client.record(request).await.unwrap();
    assert_eq!(fake.ids(), [id]);
}

#[tokio::test]
async fn reads_carry_what_was_seen_and_a_token_can_be_handed_over() {
    let (fake, client) = pair().await;
    client.top_k(prefix("a")).await.unwrap();
    client.record(record("a")).await.unwrap();
    client.record_batch(batch(&["a"])).await.unwrap();
    client.top_k(prefix("a")).await.unwrap();
    let seen = |index| {
        Some(v1::SessionToken {
            positions: vec![v1::Position {
                shard_id: 1,
                incarnation: 1,
                index,
            }],
        })
    };
    client.merge_session_token(&seen(1).unwrap());
    let count = v1::GetCountRequest {
        term: "a".to_owned(),
        ..Default::default()
    };
    client.count(count.clone()).await.unwrap();
    client.merge_session_token(&seen(9).unwrap());
    client.count(count.clone()).await.unwrap();
    assert_eq!(client.session_token(), seen(9));
    client.forget_session();
    client.count(count).await.unwrap();
    assert_eq!(fake.read_tokens(), [None, seen(2), seen(2), seen(9), None]);
}

#[tokio::test]
async fn the_other_operations_reach_the_server() {
    let (fake, client) = pair().await;
    client
        .record_batch(batch(&["a", "b", "c", "d", "e"]))
        .await
        .unwrap();
    let mut pages = client.list_terms(v1::ListTermsRequest::default());
    let mut sizes = Vec::new();
    let mut terms = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        sizes.push(page.len());
        terms.extend(page.into_iter().map(|suggestion| suggestion.term));
    }
    assert_eq!((sizes, terms.concat()), (vec![2, 2, 1], "abcde".to_owned()));
    assert_eq!(pages.next().await.unwrap(), None);

    let delete = v1::DeleteRequest {
        term: "a".to_owned(),
        ..Default::default()
    };
    assert!(client.delete(delete.clone()).await.unwrap().existed);
    assert!(!client.delete(delete).await.unwrap().existed);
    let cleared = client.clear(v1::ClearNamespaceRequest::default()).await;
    assert_eq!(cleared.unwrap().generation, 2);
    assert_eq!(fake.count("b"), 0);
    assert_eq!(client.status().await.unwrap().epoch, 7);
    assert!(matches!(
        client.map().await,
        Err(ClientError::Protocol { .. })
    ));
}

#[tokio::test]
async fn what_a_deletion_or_a_read_was_answered_is_seen_by_what_comes_next() {
    let fake = Fake::default();
    let at = fake.serve().await;
    let client = || Client::connect(Runtime::real(), options(&[&at])).unwrap();
    let (writer, deleter, reader, typist) = (client(), client(), client(), client());
    writer.record(record("a")).await.unwrap();
    reader.top_k(prefix("a")).await.unwrap();
    typist.top_k_stream().ask(prefix("a")).await.unwrap();
    let first = writer.session_token();
    assert!(first.is_some());
    assert_eq!(reader.session_token(), first);
    assert_eq!(typist.session_token(), first);
    let delete = v1::DeleteRequest {
        term: "a".to_owned(),
        ..v1::DeleteRequest::default()
    };
    deleter.delete(delete).await.unwrap();
    writer.record(record("b")).await.unwrap();
    let index = |client: &Client| client.session_token().map(|token| token.positions[0].index);
    assert_eq!([index(&deleter), index(&writer)], [Some(2), Some(3)]);
}

#[tokio::test]
async fn a_batch_under_way_is_not_settled_by_what_comes_after() {
    let (fake, client) = impatient_pair().await;
    fake.script([Play::ApplyThenHang]);
    let slow = {
        let client = client.clone();
        Runtime::real().spawn(
            "slow",
            async move { client.record_batch(batch(&["a"])).await },
        )
    };
    while fake.script_left() > 0 {
        tokio::task::yield_now().await;
    }
    client.record(record("b")).await.unwrap();
    slow.await.unwrap().unwrap();
    let sent = fake.ids();
    let second = sent.iter().find(|id| id.sequence == 2).unwrap();
    assert_eq!(second.acked_below, 1);
}
