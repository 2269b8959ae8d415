use std::sync::atomic::Ordering;
use std::time::Duration;

use api::v1::RecordBatchRequest;
use api::{ApiError, Outcome, Reason};
use rpc::{ServerConfig, healthcheck};
use runtime::{Network as _, TcpNetwork};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::raw::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RECORD, framed};
use crate::support::{PANIC, PATIENCE, Running, Seen, WAIT, record, start};

#[tokio::test]
async fn calls_above_the_limit_are_shed_and_health_is_not() {
    let delay_max = Duration::from_millis(100);
    let server = start(ServerConfig {
        calls_max: 2,
        // However long it took to get here.
        overload_delay_max: delay_max,
        deadline_default: PATIENCE,
        ..ServerConfig::default()
    })
    .await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = server.client();
            server.runtime.spawn("a waiting call", async move {
                client.record(record(WAIT)).await
            })
        })
        .collect();
    let begun = std::sync::Arc::clone(&server.script.begun);
    server
        .until("two calls are in work", || {
            begun.load(Ordering::SeqCst) == 2
        })
        .await;

    let status = server.client().record(record("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let error = ApiError::from_status(&status);
    assert_eq!(error.reason(), Reason::Overloaded);
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    let delay = error.retry_after().unwrap();
    assert!((delay_max..=2 * delay_max).contains(&delay), "{delay:?}");
    assert!(error.message().contains('2'), "{error}");
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    healthcheck(&server.runtime, &server.address, "", PATIENCE)
        .await
        .unwrap();

    server.script.release.add_permits(2);
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap().into_inner().count, 1);
    }
    let answer = server.client().record(record("xyz")).await.unwrap();
    assert_eq!(answer.into_inner().count, 3);
}

/// A server that takes on no call, and a connection to it.
async fn refusing(refused_message_timeout: Duration) -> (Running, Frames) {
    let server = start(ServerConfig {
        calls_max: 0,
        refused_message_timeout,
        ..ServerConfig::default()
    })
    .await;
    let frames = Frames::connect(&server).await;
    (server, frames)
}

#[tokio::test]
async fn refused_calls_whose_messages_come_later_do_not_cost_the_connection() {
    let (mut server, mut frames) = refusing(PATIENCE).await;
    let calls = (0..200).map(|number| 2 * number + 1);
    let headers = Frames::headers(RECORD);
    for stream in calls.clone() {
        frames.write(HEADERS, END_HEADERS, stream, &headers).await;
    }
    // Time to refuse them all, where messages are not waited for.
    for _ in 0..20 {
        assert!(frames.round_trip().await);
    }
    let message = framed(0, b"");
    for stream in calls.clone() {
        frames.write(DATA, END_STREAM, stream, &message).await;
    }
    assert!(frames.round_trip().await, "the connection is closed");
    for _ in calls {
        let seen = server.runtime.timeout(PATIENCE, server.seen.recv()).await;
        assert_eq!(seen.unwrap().unwrap().code, Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn the_message_of_a_refused_call_is_not_waited_for_for_ever() {
    let limit = Duration::from_millis(50);
    let (mut server, mut frames) = refusing(limit).await;
    let headers = Frames::headers(RECORD);
    let begun = server.runtime.now();
    frames.write(HEADERS, END_HEADERS, 1, &headers).await;
    let seen = server.runtime.timeout(PATIENCE, server.seen.recv()).await;
    assert_eq!(seen.unwrap().unwrap().code, Code::ResourceExhausted);
    assert!(server.runtime.now().saturating_since(begun) >= limit);
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let mut server = start(ServerConfig::default()).await;
    let mut client = server.client();
    let status = client.record(record(PANIC)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(ApiError::from_status(&status).reason(), Reason::Internal);
    assert!(!status.message().contains("as asked"), "nothing leaks");
    let seen = server.seen.recv().await.unwrap();
    assert_eq!(seen.code, Code::Internal);

    let (send, batches) = mpsc::channel(1);
    let answers = client
        .record_stream(ReceiverStream::new(batches))
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    send.send(RecordBatchRequest::default()).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    let panics = RecordBatchRequest {
        namespace: PANIC.into(),
        ..Default::default()
    };
    send.send(panics).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let expected = Seen {
        method: "autocomplete.v1.AutocompleteService/RecordStream".into(),
        code: Code::Internal,
        streaming: true,
    };
    assert_eq!(server.seen.recv().await.unwrap(), expected);

    // The same connection goes on.
    assert_eq!(
        client
            .record(record("ab"))
            .await
            .unwrap()
            .into_inner()
            .count,
        2
    );
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    let server = start(ServerConfig {
        connections_max: 1,
        ..ServerConfig::default()
    })
    .await;
    let mut first = server.client();
    first.record(record("a")).await.unwrap();
    let mut second = TcpNetwork.connect(server.address.clone()).await.unwrap();
    let mut bytes = Vec::new();
    // The close may also show as a reset.
    let _closed = server
        .runtime
        .timeout(PATIENCE, second.read_to_end(&mut bytes))
        .await
        .expect("closed at once");
    assert!(bytes.is_empty());
    first.record(record("a")).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = start(ServerConfig {
        first_byte_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    })
    .await;
    let mut silent = TcpNetwork.connect(server.address.clone()).await.unwrap();
    let mut bytes = Vec::new();
    server
        .runtime
        .timeout(PATIENCE, silent.read_to_end(&mut bytes))
        .await
        .expect("closed soon")
        .unwrap();
}

#[tokio::test]
async fn streams_of_one_connection_are_limited() {
    let server = start(ServerConfig {
        streams_per_connection_max: 3,
        ..ServerConfig::default()
    })
    .await;
    let connection = TcpNetwork.connect(server.address.clone()).await.unwrap();
    let (client, connection) = h2::client::handshake(connection).await.unwrap();
    let driving = server.runtime.spawn("raw connection", async move {
        let _closed = connection.await;
    });
    let client = client.ready().await.unwrap();
    // Known once the server's settings have come.
    server
        .until("the settings came", || {
            client.current_max_send_streams() == 3
        })
        .await;
    driving.abort();
}

#[tokio::test]
async fn headers_are_limited() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.client();
    let mut request = tonic::Request::new(record("a"));
    let long = "x".repeat(20_000);
    request
        .metadata_mut()
        .insert("x-long", long.parse().unwrap());
    assert!(client.record(request).await.is_err());
    assert_eq!(server.script.begun.load(Ordering::SeqCst), 0);
}
