//! Streams: order, the window, and what a broken stream leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use api::{Outcome, Reason, v1};
use client::ClientError;
use futures::FutureExt;
use runtime::Runtime;

use crate::fake::{IMPATIENCE, Play, batch, error, pair, pair_with, prefix};

/// Sends `count` batches of one term each, and a common one.
async fn send_all(
    stream: &client::RecordStream,
    count: usize,
) -> Vec<Result<v1::RecordBatchResponse, ClientError>> {
    let mut pending = Vec::new();
    for number in 0..count {
        let term = format!("term {number}");
        pending.push(stream.send(batch(&["all", &term])).await.unwrap());
    }
    futures::future::join_all(pending).await
}

#[tokio::test]
async fn batches_are_answered_and_ids_settle() {
    let (fake, client) = pair().await;
    let stream = client.record_stream(4).unwrap();
    let answers = send_all(&stream, 100).await;
    assert!(answers.iter().all(Result::is_ok));
    stream.close().await.unwrap();
    assert_eq!((fake.count("all"), fake.count("term 99")), (100, 1));
    let ids = fake.ids();
    let sequences: Vec<_> = ids.iter().map(|id| id.sequence).collect();
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>(), "in order, once");
    // At most the window, and the one that waits in front of it, are unsettled.
    assert!(ids.iter().all(|id| id.sequence - id.acked_below <= 5));
}

#[tokio::test]
async fn a_broken_stream_is_resumed_under_the_same_ids() {
    // More than the script has failures: one batch may meet them all.
    let (fake, client) = pair_with(|options| options.retries = 40).await;
    let stream = client.record_stream(8).unwrap();
    fake.script(
        std::iter::repeat_n(
            [
                Play::ApplyThenFail(error(Reason::Disconnected)),
                Play::Refuse(error(Reason::Starting)),
                Play::LeaveOut(vec![0], Reason::ShardUnavailable),
                Play::LeaveOut(vec![], Reason::ShardUnavailable),
            ],
            10,
        )
        .flatten(),
    );
    let answers = send_all(&stream, 60).await;
    for answer in &answers {
        let answer = answer.as_ref().unwrap();
        assert!(answer.results.iter().all(|result| result.code == 0));
    }
    stream.close().await.unwrap();
    assert_eq!(fake.script_left(), 0);
    assert_eq!(fake.count("all"), 60, "every batch counted exactly once");
    let distinct: BTreeSet<_> = fake.ids().iter().map(|id| id.sequence).collect();
    assert_eq!(distinct.len(), 60);
    assert!(fake.ids().len() > 80);
}

#[tokio::test]
async fn a_refused_batch_gets_its_error_and_the_others_go_on() {
    let (fake, client) = pair().await;
    let stream = client.record_stream(4).unwrap();
    fake.script([
        Play::LeaveOut(vec![], Reason::ShardUnavailable),
        Play::Refuse(error(Reason::BadTerm)),
    ]);
    let answers = send_all(&stream, 6).await;
    let failed: Vec<_> = answers
        .iter()
        .enumerate()
        .filter_map(|(number, answer)| Some((number, answer.as_ref().err()?.reason())))
        .collect();
    assert_eq!(failed, [(1, Some(Reason::BadTerm))]);
    assert_eq!(fake.count("all"), 5);
}

#[tokio::test]
async fn a_full_window_holds_the_sender_back() {
    let (fake, client) = pair().await;
    let stream = client.record_stream(2).unwrap();
    fake.script([Play::ApplyThenHang]);
    let mut accepted = 0;
    while stream.send(batch(&["a"])).now_or_never().is_some() || fake.script_left() > 0 {
        accepted += 1;
        assert!(accepted < 10_000, "nothing held the sender back");
        tokio::task::yield_now().await;
    }
    assert!(fake.ids().len() <= 2);
}

#[tokio::test]
async fn a_window_out_of_range_is_refused() {
    let (_fake, client) = pair().await;
    for window in [0, 1_025] {
        assert!(matches!(
            client.record_stream(window),
            Err(ClientError::Options {
                field: "window",
                ..
            })
        ));
    }
}

#[tokio::test]
async fn dropping_the_stream_lets_what_was_given_go_through() {
    let (fake, client) = pair().await;
    let stream = client.record_stream(4).unwrap();
    let pending = stream.send(batch(&["a", "b"])).await.unwrap();
    drop(stream);
    assert_eq!(pending.await.unwrap().results.len(), 2);
    assert_eq!(fake.count("b"), 1);
}

#[tokio::test]
async fn a_typing_session_answers_each_key_and_survives_its_stream() {
    let (fake, client) = pair().await;
    client
        .record_batch(batch(&["a", "ab", "abc"]))
        .await
        .unwrap();
    let mut session = client.top_k_stream();
    let mut sizes = Vec::new();
    for typed in ["", "a", "ab", "abc", "abcd"] {
        sizes.push(session.ask(prefix(typed)).await.unwrap().suggestions.len());
    }
    assert_eq!(sizes, [3, 3, 2, 1, 0]);

    fake.script([
        Play::Refuse(error(Reason::ShardUnavailable)),
        Play::Refuse(error(Reason::BadPrefix)),
    ]);
    let refused = session.ask(prefix("a")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadPrefix));
    assert_eq!(
        session.ask(prefix("ab")).await.unwrap().suggestions.len(),
        2
    );
    assert_eq!(fake.reads(), 8);
    assert!(fake.read_tokens().iter().all(Option::is_some));
}

#[tokio::test]
async fn many_questions_at_once_are_answered_in_their_order_and_only_the_open_ones_again() {
    let (fake, client) = pair().await;
    client.record_batch(batch(&["a", "ab"])).await.unwrap();
    let mut session = client.top_k_stream();
    assert_eq!(session.ask_all(Vec::new()).await.unwrap(), []);
    let wanted = ["a", "ab", "b"].iter().cycle().take(200);
    let wanted: Vec<_> = wanted.map(|typed| prefix(typed)).collect();
    let plays = (0..100).map(|_| Play::Serve);
    fake.script(plays.chain([Play::Refuse(error(Reason::ShardUnavailable))]));
    let answers = session.ask_all(wanted.clone()).await.unwrap();
    let sizes: Vec<_> = answers.iter().map(|at| at.suggestions.len()).collect();
    let expected: Vec<_> = [2, 1, 0].iter().copied().cycle().take(200).collect();
    assert_eq!(sizes, expected);
    assert_eq!(fake.reads(), 201);

    let plays = (0..100).map(|_| Play::Serve);
    fake.script(plays.chain([Play::Refuse(error(Reason::BadPrefix))]));
    let refused = session.ask_all(wanted).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadPrefix));
    assert_eq!(session.ask(prefix("a")).await.unwrap().suggestions.len(), 2);
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_not_given_to_the_next_question() {
    let (_fake, client) = pair().await;
    client.record_batch(batch(&["a", "ab"])).await.unwrap();
    let mut session = client.top_k_stream();
    session.ask(prefix("")).await.unwrap();
    // Polled once, the question is on its way; dropped, its answer is nobody's.
    assert!(session.ask(prefix("zzz")).now_or_never().is_none());
    assert_eq!(session.ask(prefix("a")).await.unwrap().suggestions.len(), 2);
}

#[tokio::test]
async fn a_batch_that_was_applied_in_part_is_never_called_refused() {
    let (fake, client) = pair().await;
    let stream = client.record_stream(4).unwrap();
    fake.script([
        Play::LeaveOut(vec![0], Reason::ShardUnavailable),
        Play::Refuse(error(Reason::DiskFull)),
    ]);
    let answers = send_all(&stream, 1).await;
    let failure = answers[0].as_ref().unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::DiskFull));
    assert_eq!(failure.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn an_item_that_a_lost_try_on_a_stream_may_have_applied_is_never_called_refused() {
    let (fake, client) = pair_with(|options| options.retries = 1).await;
    let stream = client.record_stream(4).unwrap();
    fake.script([
        Play::ApplyThenFail(error(Reason::Disconnected)),
        Play::LeaveOut(vec![1], Reason::DiskFull),
    ]);
    let answers = send_all(&stream, 1).await;
    assert_eq!(fake.count("term 0"), 1);
    let results = &answers[0].as_ref().unwrap().results;
    assert_eq!(results[1].error(), Some(Reason::ShardUnavailable));
}

#[tokio::test]
async fn a_batch_that_is_never_answered_is_given_up_at_its_deadline() {
    let (fake, client) = pair_with(|options| {
        options.attempt_timeout = IMPATIENCE;
        options.deadline = Duration::from_secs(1);
    })
    .await;
    let stream = client.record_stream(4).unwrap();
    fake.script([Play::ApplyThenHang]);
    let runtime = Runtime::real();
    let begun = runtime.now();
    let answers = send_all(&stream, 1).await;
    let failure = answers[0].as_ref().unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Deadline));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    // Nobody waits for what was given up, although its stream is open.
    stream.close().await.unwrap();
    assert!(runtime.now().saturating_since(begun) < Duration::from_secs(5));
}
