//! What nobody should send, and the status that each gets.

use std::time::Duration;

use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, SyncRequest};
use api::v1::{
    DeleteRequest, GetCountRequest, GetTopKRequest, RecordBatchRequest, RecordItem, RecordRequest,
    RequestId,
};
use api::{ApiError, Outcome, Reason};
use bytes::Bytes;
use tonic::{Code, Request, Status};

use super::harness::{Cluster, reason};

fn assert_refused(status: &Status, code: Code, expected: Reason, field: Option<&str>) {
    let error = ApiError::from_status(status);
    assert_eq!(
        (status.code(), error.reason()),
        (code, expected),
        "{status}"
    );
    if field.is_some() {
        assert_eq!(error.field_name(), field, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_record_is_refused_by_its_own_cause() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let good = RecordRequest {
        term: "good".into(),
        ..RecordRequest::default()
    };
    let record = |change: &dyn Fn(&mut RecordRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let bad_id = |change: &dyn Fn(&mut RequestId)| {
        let mut id = RequestId {
            client_id: Bytes::from_static(b"sixteen bytes id"),
            sequence: 5,
            issued_at_ms: cluster.runtime.wall_ms(),
            acked_below: 5,
        };
        change(&mut id);
        record(&|request| request.request_id = Some(id.clone()))
    };
    let ahead = 6 * 60 * 1000;
    let cases = [
        (
            record(&|at| at.term = String::new()),
            Reason::BadTerm,
            "term",
        ),
        (
            record(&|at| at.term = " \u{1}\n ".into()),
            Reason::BadTerm,
            "term",
        ),
        (
            record(&|at| at.term = "x".repeat(257)),
            Reason::BadTerm,
            "term",
        ),
        (
            record(&|at| at.term = " ".repeat(5000)),
            Reason::BadTerm,
            "term",
        ),
        (
            record(&|at| at.namespace = "Upper".into()),
            Reason::BadNamespace,
            "namespace",
        ),
        (
            record(&|at| at.namespace = "n".repeat(64)),
            Reason::BadNamespace,
            "namespace",
        ),
        (
            record(&|at| at.count = 1_000_000_000_001),
            Reason::BadCount,
            "count",
        ),
        (
            bad_id(&|id| id.client_id = Bytes::new()),
            Reason::BadRequestId,
            "request_id.client_id",
        ),
        (
            bad_id(&|id| id.issued_at_ms = -1),
            Reason::BadRequestId,
            "request_id.issued_at_ms",
        ),
        (
            bad_id(&|id| id.acked_below = 6),
            Reason::BadRequestId,
            "request_id.acked_below",
        ),
    ];
    for (request, expected, field) in cases {
        let status = client.record(request).await.unwrap_err();
        assert_refused(&status, Code::InvalidArgument, expected, Some(field));
        let outcome = ApiError::from_status(&status).outcome();
        assert_eq!(outcome, Some(Outcome::NotApplied), "{status}");
    }
    let future = bad_id(&|id| id.issued_at_ms += ahead);
    let status = client.record(future).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, Reason::BadRequestId, None);
    assert_eq!(
        cluster.record("good", 0).await,
        1,
        "0 counts as 1, and nothing came before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_batches_reads_and_sizes_are_refused() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client();
    let item = |term: &str| RecordItem {
        term: term.into(),
        count: 1,
    };
    let batch = |items: Vec<RecordItem>| RecordBatchRequest {
        items,
        ..RecordBatchRequest::default()
    };
    let status = client
        .record_batch(batch(vec![item("a"), item("")]))
        .await
        .unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BadTerm,
        Some("items[1].term"),
    );
    let status = client
        .record_batch(batch(vec![item("a"); 1001]))
        .await
        .unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BatchTooLarge,
        Some("items"),
    );
    assert_eq!(
        cluster.top("", 10).await.suggestions,
        [],
        "nothing of them was applied"
    );
    let empty = client
        .record_batch(batch(Vec::new()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(empty.results, []);

    let large = batch(vec![item(&"x".repeat(3000)); 400]);
    let status = client.record_batch(large).await.unwrap_err();
    assert_refused(
        &status,
        Code::ResourceExhausted,
        Reason::MessageTooLarge,
        None,
    );

    let ask = GetTopKRequest {
        prefix: "p".repeat(257),
        ..GetTopKRequest::default()
    };
    let status = client.get_top_k(ask).await.unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BadPrefix,
        Some("prefix"),
    );
    let ask = GetTopKRequest {
        consistency: 17,
        ..GetTopKRequest::default()
    };
    let status = client.get_top_k(ask).await.unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BadArgument,
        Some("consistency"),
    );
    let status = client
        .get_count(GetCountRequest::default())
        .await
        .unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BadTerm,
        Some("term"),
    );
    let status = client.delete(DeleteRequest::default()).await.unwrap_err();
    assert_refused(
        &status,
        Code::InvalidArgument,
        Reason::BadTerm,
        Some("term"),
    );
    assert_eq!(cluster.top("", 5000).await.k_served, 1000);
}

/// Bytes that are sent as they are.
#[derive(Debug, Clone, Default)]
struct Raw(Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buffer: &mut impl bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(0);
    for bytes in [
        vec![0x0a, 0x02, 0xff, 0xfe],
        vec![0x0a, 0x7f, b'x'],
        vec![0xff; 30],
    ] {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = "/autocomplete.v1.AutocompleteService/Record"
            .parse()
            .unwrap();
        let codec = api::codec::ClientCodec::<Raw, Raw>::default();
        let status = grpc
            .unary(Request::new(Raw(bytes.clone())), path, codec)
            .await
            .unwrap_err();
        assert_refused(&status, Code::InvalidArgument, Reason::Malformed, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_and_a_shard_that_nobody_knows() {
    let cluster = Cluster::start().await;
    // Over gRPC-Web, for the library's own client would not even send it.
    let host = cluster.grpc;
    let request = format!(
        "POST /autocomplete.v1.AutocompleteService/GetTopK HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/grpc-web+proto\r\nGrpc-Timeout: 0n\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0"
    );
    let answer = super::web::send(cluster.grpc, request).await;
    assert!(answer.head.contains("grpc-status: 4"), "{}", answer.head);
    let mut request = Request::new(GetTopKRequest::default());
    request.set_timeout(Duration::from_secs(60));
    cluster.client().get_top_k(request).await.unwrap();

    let unknown = api::admin::v1::RecoverShardRequest {
        shard_id: 99,
        ..Default::default()
    };
    let status = cluster.admin().recover_shard(unknown).await.unwrap_err();
    assert_eq!(reason(&status), Reason::UnknownShard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_there_are_shards_everything_is_unavailable_and_not_ready() {
    let mut cluster = Cluster::without_servers().await;
    cluster
        .until("the metadata is there", |status| status.metadata_available)
        .await;
    let ready = async |cluster: &Cluster| {
        let address = cluster.grpc.to_string();
        let service = rpc::health::READY_SERVICE;
        rpc::healthcheck(&cluster.runtime, &address, service, Duration::from_secs(1)).await
    };
    assert!(ready(&cluster).await.is_err());
    let record = RecordRequest {
        term: "early".into(),
        ..RecordRequest::default()
    };
    let status = cluster.client().record(record).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let outcome = ApiError::from_status(&status).outcome();
    assert_eq!(outcome, Some(Outcome::NotApplied));
    cluster.add_servers(3).await;
    cluster.until_serving().await;
    let wait = async {
        while ready(&cluster).await.is_err() {
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    cluster
        .runtime
        .timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
    assert_eq!(cluster.record("early", 1).await, 1);
}

/// Two servers were started under one name: the one that is heard keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_node_that_is_heard_is_not_given_away() {
    let cluster = Cluster::without_servers().await;
    let mut registry = RegistryServiceClient::new(cluster.channel(0));
    let register = |instance: u8| RegisterRequest {
        node_name: "shard-1".into(),
        address: "127.0.0.1:1".into(),
        region: String::new(),
        instance_id: vec![instance; 16].into(),
    };
    let first = registry.register(register(1)).await.unwrap().into_inner();
    let report = SyncRequest {
        node_id: first.node_id,
        cluster_id: first.cluster_id.clone(),
        address: "127.0.0.1:1".into(),
        ..SyncRequest::default()
    };
    registry.sync(report.clone()).await.unwrap();
    let refused = registry.register(register(2)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Starting, "{refused}");
    // It is still who it was.
    registry.sync(report).await.unwrap();
}
