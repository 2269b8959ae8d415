use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use runtime::{Network as _, TcpNetwork};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::*;

async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_follows_its_closure_and_liveness_does_not() {
    let ready = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ready);
    let readiness = Readiness::new(move || match flag.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("replaying the log: 3 of 9".to_owned()),
    });
    let metrics = Metrics::new(&Runtime::real()).unwrap();
    let router = router(metrics, readiness);
    assert_eq!(
        ask(&router, "/readyz").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "replaying the log: 3 of 9\n".to_owned()
        )
    );
    assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
    ready.store(true, Ordering::Relaxed);
    assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
    assert_eq!(ask(&router, "/else").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_are_served_on_a_port_until_the_stop() {
    let runtime = Runtime::real();
    let metrics = Metrics::new(&runtime).unwrap();
    metrics.trie_operations("record", "m").add(7);
    let router = router(metrics, Readiness::new(|| Ok(())));
    let listener = runtime
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let address = listener.local_addr().to_string();
    let stop = CancellationToken::new();
    let serving = {
        let (runtime, stop) = (runtime.clone(), stop.clone());
        runtime.clone().spawn("admin", async move {
            serve(&runtime, listener, router, stop).await;
        })
    };

    let mut connection = TcpNetwork.connect(address.clone()).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    assert!(
        answer.contains("trie_operations_total{operation=\"record\",shard_key=\"m\"} 7\n"),
        "{answer}"
    );

    // A connection that asks nothing does not hold up the stop.
    let _idle = TcpNetwork.connect(address).await.unwrap();
    stop.cancel();
    runtime
        .timeout(2 * DRAIN, serving)
        .await
        .expect("ends in time")
        .unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let runtime = Runtime::real();
    let router = router(Metrics::new(&runtime).unwrap(), Readiness::new(|| Ok(())));
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = runtime.bind(anywhere).await.unwrap();
    let address = listener.local_addr().to_string();
    let stop = CancellationToken::new();
    let limits = Limits {
        connections: 2,
        idle: Duration::from_millis(200),
    };
    let serving = {
        let (runtime, stop) = (runtime.clone(), stop.clone());
        runtime.clone().spawn("admin", async move {
            serve_within(limits, &runtime, listener, router, stop).await;
        })
    };
    // They take all places, one of them with half of a request.
    let mut silent = TcpNetwork.connect(address.clone()).await.unwrap();
    let mut halting = TcpNetwork.connect(address.clone()).await.unwrap();
    halting
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .await
        .unwrap();
    let mut third = TcpNetwork.connect(address.clone()).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    third.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let answered = third.read_to_string(&mut answer);
    let patience = Duration::from_secs(20);
    runtime.timeout(patience, answered).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for closed in [&mut silent, &mut halting] {
        let mut rest = Vec::new();
        let ended = runtime
            .timeout(patience, closed.read_to_end(&mut rest))
            .await;
        drop(ended.expect("it is closed"));
    }
    stop.cancel();
    serving.await.unwrap();
}
