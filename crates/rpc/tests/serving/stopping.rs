use std::sync::atomic::Ordering;
use std::time::Duration;

use api::v1::RecordBatchRequest;
use api::{ApiError, Reason};
use http::Request;
use prost::Message as _;
use rpc::{Drained, ServerConfig};
use runtime::{Network as _, TcpNetwork};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::raw::{RECORD, framed};
use crate::support::{PATIENCE, Seen, WAIT, record, start};

#[tokio::test]
async fn calls_in_work_end_before_the_server_does() {
    let server = start(ServerConfig {
        deadline_default: PATIENCE,
        ..ServerConfig::default()
    })
    .await;
    let mut client = server.client();
    let call = server.runtime.spawn("a waiting call", async move {
        client.record(record(WAIT)).await
    });
    let begun = std::sync::Arc::clone(&server.script.begun);
    server
        .until("the call is in work", || begun.load(Ordering::SeqCst) == 1)
        .await;
    let (address, runtime) = (server.address.clone(), server.runtime.clone());
    let release = std::sync::Arc::clone(&server.script.release);
    let stop = server.stop.clone();
    let stopped = runtime.spawn("stop", server.stopped());
    stop.cancelled().await;
    release.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().into_inner().count, 1);
    assert_eq!(stopped.await.unwrap(), Drained::Clean);

    let refused = rpc::healthcheck(&runtime, &address, "", PATIENCE).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_stop() {
    let mut server = start(ServerConfig {
        drain: Duration::from_millis(100),
        ..ServerConfig::default()
    })
    .await;
    let (send, batches) = tokio::sync::mpsc::channel(1);
    let mut client = server.client();
    let answers = client
        .record_stream(ReceiverStream::new(batches))
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    send.send(RecordBatchRequest::default()).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());

    let mut seen = std::mem::replace(&mut server.seen, tokio::sync::mpsc::unbounded_channel().1);
    let runtime = server.runtime.clone();
    let begun = runtime.now();
    let stopped = runtime.spawn("stop", server.stopped());
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(ApiError::from_status(&status).reason(), Reason::Stopped);
    assert_eq!(stopped.await.unwrap(), Drained::Forced);
    let took = runtime.now().saturating_since(begun);
    assert!(took < Duration::from_secs(3), "{took:?}");
    let expected = Seen {
        method: "autocomplete.v1.AutocompleteService/RecordStream".into(),
        code: Code::Unavailable,
        streaming: true,
    };
    assert_eq!(seen.recv().await.unwrap(), expected);
    drop(send);
}

#[tokio::test]
async fn a_call_that_never_ends_is_cut() {
    let server = start(ServerConfig {
        drain: Duration::from_millis(50),
        deadline_default: Duration::from_secs(60),
        ..ServerConfig::default()
    })
    .await;
    let mut client = server.client();
    let call = server.runtime.spawn("a waiting call", async move {
        client.record(record(WAIT)).await
    });
    let begun = std::sync::Arc::clone(&server.script.begun);
    server
        .until("the call is in work", || begun.load(Ordering::SeqCst) == 1)
        .await;
    let runtime = server.runtime.clone();
    let from = runtime.now();
    assert_eq!(server.stopped().await, Drained::Forced);
    let took = runtime.now().saturating_since(from);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_up_the_stop() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.client();
    client.record(record("a")).await.unwrap();
    let silent = TcpNetwork.connect(server.address.clone()).await.unwrap();
    assert_eq!(server.stopped().await, Drained::Clean);
    drop(silent);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_go_and_its_calls_may_end() {
    let server = start(ServerConfig {
        first_byte_timeout: Duration::from_millis(1),
        first_call_timeout: Duration::from_millis(50),
        age_max: Some(Duration::from_millis(80)),
        deadline_default: PATIENCE,
        ..ServerConfig::default()
    })
    .await;
    let connection = TcpNetwork.connect(server.address.clone()).await.unwrap();
    let (client, connection) = h2::client::handshake(connection).await.unwrap();
    let closed = server.runtime.spawn("raw connection", connection);
    let request = Request::post(format!("http://{}{RECORD}", server.address))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (answer, mut sending) = client.send_request(request, false).unwrap();
    let body = framed(0, &record(WAIT).encode_to_vec());
    sending.send_data(body, true).unwrap();

    // Told to go, the client's side takes no further call.
    let refused = server.runtime.timeout(PATIENCE, async {
        let mut client = Some(client);
        while let Some(ready) = client.take() {
            client = ready.ready().await.ok();
            server.runtime.sleep(Duration::from_millis(2)).await;
        }
    });
    refused.await.expect("asked to go");
    server.script.release.add_permits(1);
    let mut body = answer.await.unwrap().into_body();
    assert!(body.data().await.unwrap().unwrap().ends_with(&[0x08, 1]));
    drop((body, sending));
    server
        .runtime
        .timeout(PATIENCE, closed)
        .await
        .expect("closed when its call has ended")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn callers_of_connections_that_come_and_go_see_nothing_worse_than_unavailable() {
    let server = start(ServerConfig {
        first_byte_timeout: Duration::from_millis(1),
        first_call_timeout: Duration::from_millis(1),
        age_max: Some(Duration::from_millis(20)),
        ..ServerConfig::default()
    })
    .await;
    let mut client = server.client();
    let begun = server.runtime.now();
    let passed = || server.runtime.now().saturating_since(begun);
    let mut answered = 0;
    while passed() < Duration::from_millis(400) || answered <= 10 {
        assert!(passed() < PATIENCE, "{answered} were answered");
        match client.record(record("a")).await {
            Ok(_) => answered += 1,
            Err(status) => {
                let error = ApiError::from_status(&status);
                assert_eq!(error.reason(), Reason::Disconnected, "{status:?}");
            }
        }
    }
    assert_eq!(server.stopped().await, Drained::Clean);
}
