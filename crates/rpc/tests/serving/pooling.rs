use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use api::{ApiError, Reason};
use futures::StreamExt as _;
use rpc::channel::{Pool, PoolConfig};
use rpc::{Deadline, ServerConfig};
use runtime::{Listener, Runtime};

use crate::support::{PATIENCE, record, start, start_on};

async fn ask(pool: &Pool, runtime: &Runtime, address: &str) -> Result<u64, ApiError> {
    let mut client = AutocompleteServiceClient::new(pool.get(address)?);
    let deadline = Deadline::after(runtime, Duration::from_secs(5));
    let request = deadline.request(runtime, record("abc"))?;
    let answer = deadline.call(runtime, client.record(request)).await?;
    Ok(answer.into_inner().count)
}

#[tokio::test]
async fn calls_take_turns_on_a_few_kept_connections() {
    let runtime = Runtime::real();
    let listener = runtime
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let local = listener.local_addr();
    let counted = listener.inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let listener = Listener::from_stream(counted, local);
    let server = start_on(runtime.clone(), listener, ServerConfig::internal());
    let pool = Pool::new(&runtime, PoolConfig::default());
    for _ in 0..10 {
        assert_eq!(ask(&pool, &runtime, &server.address).await, Ok(3));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    assert_eq!(pool.peers(), 1);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let first = start(ServerConfig::internal()).await;
    let (runtime, address) = (first.runtime.clone(), first.address.clone());
    let pool = Pool::new(&runtime, PoolConfig::default());
    assert_eq!(ask(&pool, &runtime, &address).await, Ok(3));
    first.stopped().await;
    let error = ask(&pool, &runtime, &address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Disconnected);

    let listener = runtime.bind(address.parse().unwrap()).await.unwrap();
    let _second = start_on(runtime.clone(), listener, ServerConfig::internal());
    let back = async {
        // Each of the connections finds out for itself.
        while ask(&pool, &runtime, &address).await.is_err() {}
    };
    runtime.timeout(PATIENCE, back).await.expect("found again");
}

#[tokio::test]
async fn a_peer_that_is_silent_is_given_up_before_the_deadline() {
    let runtime = Runtime::real();
    let mut listener = runtime
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let address = listener.local_addr().to_string();
    let _holding = runtime.spawn("a peer that only accepts", async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    let config = PoolConfig {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..PoolConfig::default()
    };
    let pool = Pool::new(&runtime, config);
    let begun = runtime.now();
    let error = ask(&pool, &runtime, &address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Disconnected, "{error}");
    assert!(runtime.now().saturating_since(begun) < Duration::from_secs(4));
}
