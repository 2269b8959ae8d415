use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{ApiError, Outcome, Reason};
use prost::Message as _;
use rpc::{Deadline, ServerConfig};
use tonic::Code;

use crate::raw::{RECORD, call, framed, refused};
use crate::support::{HANG, LEFT, Seen, record, start};

const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_default_one() {
    let mut server = start(ServerConfig {
        deadline_default: SHORT,
        ..ServerConfig::default()
    })
    .await;
    let status = server.client().record(record(HANG)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let error = ApiError::from_status(&status);
    assert_eq!(error.reason(), Reason::Deadline);
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    assert!(error.message().contains("60 ms"), "{error}");
    assert_eq!(server.script.dropped.load(Ordering::SeqCst), 1);
    let seen = server.seen.recv().await.unwrap();
    let expected = Seen {
        method: "autocomplete.v1.AutocompleteService/Record".into(),
        code: Code::DeadlineExceeded,
        streaming: false,
    };
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_callers_deadline_counts_and_says_so() {
    let server = start(ServerConfig::default()).await;
    let body = framed(0, &record(HANG).encode_to_vec());
    let error = refused(&server, RECORD, &[("grpc-timeout", "50m")], body).await;
    assert_eq!(error.reason(), Reason::Deadline);
    assert!(error.message().contains("50 ms"), "{error}");
}

#[tokio::test]
async fn a_deadline_above_the_limit_is_cut() {
    let server = start(ServerConfig {
        deadline_max: SHORT,
        ..ServerConfig::default()
    })
    .await;
    let body = framed(0, &record(HANG).encode_to_vec());
    let error = refused(&server, RECORD, &[("grpc-timeout", "100H")], body).await;
    assert!(error.message().contains("60 ms"), "{error}");
}

#[tokio::test]
async fn what_is_too_late_is_not_begun() {
    let server = start(ServerConfig::default()).await;
    let body = framed(0, &record("x").encode_to_vec());
    let error = refused(&server, RECORD, &[("grpc-timeout", "0n")], body).await;
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    assert_eq!(server.script.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_deadline_that_is_none_is_refused() {
    let server = start(ServerConfig::default()).await;
    let body = framed(0, &record("x").encode_to_vec());
    let status = call(&server, RECORD, &[("grpc-timeout", "soon")], body).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("grpc-timeout: "), "{status:?}");
    let error = ApiError::from_status(&status);
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
}

#[tokio::test]
async fn handlers_know_what_is_left() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.client();
    let left = client
        .record(record(LEFT))
        .await
        .unwrap()
        .into_inner()
        .count;
    assert!((1_000..=2_000).contains(&left), "{left}");
    let deadline = Deadline::after(&server.runtime, Duration::from_secs(7));
    let request = deadline.request(&server.runtime, record(LEFT)).unwrap();
    let left = client.record(request).await.unwrap().into_inner().count;
    assert!((6_000..=7_000).contains(&left), "{left}");
}

#[tokio::test]
async fn our_side_speaks_of_a_deadline_too_whoever_notices_first() {
    let server = start(ServerConfig::default()).await;
    let limit = Duration::from_millis(5);
    for _ in 0..20 {
        let mut client = server.client();
        let request = rpc::request(record(HANG), limit);
        let deadline = Deadline::after(&server.runtime, limit);
        let call = deadline.call(&server.runtime, client.record(request));
        assert_eq!(call.await.unwrap_err().reason(), Reason::Deadline);
        // Without the limit of ours, the library's own timer races with the server's answer.
        let request = rpc::request(record(HANG), limit);
        let status = client.record(request).await.unwrap_err();
        assert_eq!(ApiError::from_status(&status).reason(), Reason::Deadline);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_handler() {
    let mut server = start(ServerConfig::default()).await;
    let mut client = server.client();
    let calling = server
        .runtime
        .spawn("a call", async move { client.record(record(HANG)).await });
    let begun = std::sync::Arc::clone(&server.script.begun);
    server
        .until("the call is in work", || begun.load(Ordering::SeqCst) == 1)
        .await;
    calling.abort();
    let dropped = std::sync::Arc::clone(&server.script.dropped);
    server
        .until("the handler is dropped", || {
            dropped.load(Ordering::SeqCst) == 1
        })
        .await;
    let seen = server.seen.recv().await.unwrap();
    assert_eq!(seen.code, Code::Cancelled);
}
