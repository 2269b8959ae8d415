//! Namespaces: apart, created by their first record, cleared at once.

use api::v1::{ClearNamespaceRequest, GetTopKRequest, RecordRequest, RequestId};
use bytes::Bytes;
use tonic::Code;

use super::harness::{Cluster, listed};
use super::writes::{settled, until_complete};

fn record(namespace: &str, term: &str) -> RecordRequest {
    RecordRequest {
        term: term.into(),
        namespace: namespace.into(),
        ..RecordRequest::default()
    }
}

async fn terms(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let request = GetTopKRequest {
        namespace: namespace.into(),
        ..GetTopKRequest::default()
    };
    let answer = cluster
        .client()
        .get_top_k(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.completeness.clone().unwrap().missing.is_empty());
    listed(&answer)
        .iter()
        .map(|(term, _)| (*term).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_do_not_see_each_other() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    // Many at once, each created by its first record: shard servers learn of them by the way.
    for number in 0..20 {
        for term in ["ant", "kiwi", "zoo"] {
            let request = record(&format!("tenant-{number}"), &format!("{term} {number}"));
            client.record(request).await.unwrap();
        }
    }
    for number in 0..20 {
        let expected = ["ant", "kiwi", "zoo"].map(|term| format!("{term} {number}"));
        assert_eq!(terms(&cluster, &format!("tenant-{number}")).await, expected);
    }
    assert!(terms(&cluster, "").await.is_empty());
    assert!(terms(&cluster, "nobody-wrote-here").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearing_takes_effect_at_once_and_once() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    for term in ["ant", "kiwi", "zoo"] {
        client.record(record("a", term)).await.unwrap();
        client.record(record("b", term)).await.unwrap();
    }
    let clear = ClearNamespaceRequest {
        namespace: "a".into(),
        request_id: Some(RequestId {
            client_id: Bytes::from_static(b"sixteen bytes id"),
            sequence: 1,
            issued_at_ms: cluster.runtime.wall_ms(),
            acked_below: 0,
        }),
    };
    let first = client
        .clear_namespace(clear.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.generation, 2);
    assert!(terms(&cluster, "a").await.is_empty());
    assert_eq!(terms(&cluster, "b").await.len(), 3);

    client.record(record("a", "new")).await.unwrap();
    let again = client.clear_namespace(clear).await.unwrap().into_inner();
    assert_eq!(again.generation, 2, "a repeat clears nothing");
    assert_eq!(terms(&cluster, "a").await, ["new"]);

    let nobody = ClearNamespaceRequest {
        namespace: "nobody-wrote-here".into(),
        request_id: None,
    };
    let answer = client.clear_namespace(nobody).await.unwrap().into_inner();
    assert_eq!(answer.generation, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_away_forgets_what_was_cleared_meanwhile() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client();
    for term in ["ant", "kiwi", "zoo"] {
        client.record(record("a", term)).await.unwrap();
    }
    cluster.stop_server(1).await;
    let clear = ClearNamespaceRequest {
        namespace: "a".into(),
        request_id: Some(RequestId {
            client_id: Bytes::from_static(b"sixteen bytes id"),
            sequence: 1,
            issued_at_ms: cluster.runtime.wall_ms(),
            acked_below: 0,
        }),
    };
    let refused = client.clear_namespace(clear.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let outcome = api::ApiError::from_status(&refused).outcome();
    assert_eq!(outcome, Some(api::Outcome::Unknown));
    let partial = GetTopKRequest {
        namespace: "a".into(),
        ..GetTopKRequest::default()
    };
    let partial = client.get_top_k(partial).await.unwrap().into_inner();
    assert!(listed(&partial).is_empty(), "{partial:?}");
    assert_eq!(partial.completeness.unwrap().shards_failed, 1);

    cluster.start_server(1).await;
    until_complete(&cluster).await;
    // A retry of what was not answered: the first try had raised the generation.
    let again = settled(&cluster, async || {
        client.clone().clear_namespace(clear.clone()).await
    })
    .await;
    assert_eq!(again.generation, 2);
    let all = GetTopKRequest {
        namespace: "a".into(),
        require_complete: true,
        ..GetTopKRequest::default()
    };
    let left = settled(&cluster, async || {
        client.clone().get_top_k(all.clone()).await
    })
    .await;
    assert!(listed(&left).is_empty(), "{left:?}");
    let mut kiwi = record("a", "kiwi");
    kiwi.request_id = Some(RequestId {
        client_id: Bytes::from_static(b"sixteen bytes id"),
        sequence: 2,
        issued_at_ms: cluster.runtime.wall_ms(),
        acked_below: 0,
    });
    let counted = settled(&cluster, async || client.clone().record(kiwi.clone()).await).await;
    assert_eq!(counted.count, 1);
}
