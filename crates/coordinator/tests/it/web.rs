//! The HTTP port.

use std::net::SocketAddr;

use api::Reason;
use api::v1::GetTopKRequest;
use runtime::{Network as _, TcpNetwork};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Cluster, PATIENCE, Shape, reason};

pub(crate) struct Answer {
    status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request as it is, and reads until the server closes the connection.
pub(crate) async fn send(to: SocketAddr, request: String) -> Answer {
    let mut connection = TcpNetwork.connect(to.to_string()).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) async fn get(cluster: &Cluster, path: &str) -> Answer {
    let host = cluster.http;
    send(
        host,
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

async fn post(cluster: &Cluster, headers: &str, body: &str) -> Answer {
    let (host, length) = (cluster.http, body.len());
    let request = format!(
        "POST /v1/record HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    send(host, request).await
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_records_once_and_completes_at_once() {
    let cluster = Cluster::start().await;
    let body = json!({
        "term": "New York",
        "count": 3,
        "request_id": {
            "client_id": "00112233445566778899aabbccddeeff",
            "sequence": 1,
            "issued_at_ms": cluster.runtime.wall_ms(),
        },
    })
    .to_string();
    let own = format!("{JSON}Origin: http://{}\r\n", cluster.http);
    let first = post(&cluster, &own, &body).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(
        first.json(),
        json!({"term": "new york", "count": 3, "repeated": false})
    );
    let again = post(&cluster, &own, &body).await;
    assert_eq!(
        again.json(),
        json!({"term": "new york", "count": 3, "repeated": true})
    );

    let answer = get(&cluster, "/v1/suggest?q=NEW%20&k=5").await;
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!(
        answer["suggestions"],
        json!([{"term": "new york", "count": 3, "display": "New York"}])
    );
    assert_eq!(answer["complete"], json!(true));
    let answer = get(&cluster, "/suggest?q=new").await;
    assert!(
        answer.head.contains("application/x-suggestions+json"),
        "{}",
        answer.head
    );
    assert_eq!(answer.json(), json!(["new", ["New York"]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_has_not_opened_its_data_says_so_at_once() {
    let mut cluster = Cluster::of(Shape {
        coordinators: 3,
        ..Shape::default()
    })
    .await;
    cluster.stop_coordinators(&[0, 1, 2]).await;
    // Without a disk it knows of no cluster before another one tells it.
    let config = cluster.coordinator_config(0);
    config.data_dir = config.data_dir.with_extension("empty");
    cluster.start_coordinator_at(0).await;
    let told = async {
        assert_eq!(get(&cluster, "/healthz").await.status, 200);
        assert_eq!(get(&cluster, "/readyz").await.status, 503);
        let refused = get(&cluster, "/v1/suggest?q=a").await;
        let told = refused.json()["reason"].clone();
        assert_eq!((refused.status, told), (503, json!("STARTING")));
        let refused = post(&cluster, JSON, &json!({"term": "a"}).to_string()).await;
        assert_eq!(refused.json()["outcome"], "NOT_APPLIED");
        let refused = cluster.client().get_top_k(GetTopKRequest::default()).await;
        assert_eq!(reason(&refused.unwrap_err()), Reason::Starting);
    };
    let told = cluster.runtime.timeout(PATIENCE, told).await;
    told.expect("it does not answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pages_and_bad_requests_are_refused() {
    let cluster = Cluster::start().await;
    let body = json!({"term": "spam"}).to_string();
    let foreign = format!("{JSON}Origin: https://evil.example\r\n");
    let refused = post(&cluster, &foreign, &body).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()["status"], "PERMISSION_DENIED");
    let refused = post(&cluster, "Content-Type: text/plain\r\n", &body).await;
    assert_eq!(refused.status, 400, "only JSON");
    assert_eq!(refused.json()["outcome"], "NOT_APPLIED");
    for bad in ["", "{", "{}", r#"{"term": 1}"#, r#"{"term":"a","extra":1}"#] {
        let refused = post(&cluster, JSON, bad).await;
        assert_eq!(refused.status, 400, "{bad}");
        assert_eq!(refused.json()["reason"], "MALFORMED", "{bad}");
    }
    let refused = post(&cluster, JSON, r#"{"term": "  "}"#).await;
    assert_eq!(
        (refused.status, refused.json()["reason"].clone()),
        (400, json!("BAD_TERM"))
    );
    let large = json!({"term": "x".repeat(20_000)}).to_string();
    let refused = post(&cluster, JSON, &large).await;
    assert_eq!(refused.status, 413, "{}", refused.body);
    assert_eq!(refused.json()["reason"], "MESSAGE_TOO_LARGE");
    let refused = get(&cluster, "/v1/suggest?k=many").await;
    assert_eq!(
        (refused.status, refused.json()["reason"].clone()),
        (400, json!("MALFORMED"))
    );
    for path in [
        "/v1/suggest?q=caf%C3",
        "/v1/suggest?q=caf%E9",
        "/suggest?q=caf%E9",
    ] {
        let refused = get(&cluster, path).await;
        let reason = refused.json()["reason"].clone();
        assert_eq!(
            (refused.status, reason),
            (400, json!("MALFORMED")),
            "{path}"
        );
    }
    let refused = get(&cluster, &format!("/v1/suggest?q={}", "p".repeat(300))).await;
    assert_eq!(refused.json()["reason"], "BAD_PREFIX");
    assert_eq!(get(&cluster, "/nothing").await.status, 404);
    let refused = get(&cluster, "/v1/record").await;
    assert_eq!(
        (refused.status, refused.json()["reason"].clone()),
        (405, json!("UNIMPLEMENTED"))
    );
    assert!(
        cluster.top("", 1).await.suggestions.is_empty(),
        "nothing was recorded"
    );

    let allowed = format!("{JSON}Origin: https://search.example\r\n");
    let done = post(&cluster, &allowed, &body).await;
    assert_eq!(done.status, 200);
    assert!(
        done.head
            .contains("access-control-allow-origin: https://search.example")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_the_probes_are_served() {
    let cluster = Cluster::start().await;
    cluster.record("kiwi", 1).await;
    for (path, content_type, part) in [
        ("/", "text/html", "role=\"combobox\""),
        ("/app.js", "text/javascript", "/v1/suggest"),
        ("/style.css", "text/css", "prefers-color-scheme"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        ("/healthz", "text/plain", "ok"),
    ] {
        let answer = get(&cluster, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.head.contains(content_type),
            "{path}: {}",
            answer.head
        );
        assert!(answer.body.contains(part), "{path}");
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'"),
            "{path}"
        );
        assert!(
            answer.head.contains("x-content-type-options: nosniff"),
            "{path}"
        );
    }
    let description = get(&cluster, "/opensearch.xml").await;
    let template = format!("http://{}/suggest?q={{searchTerms}}", cluster.http);
    assert!(description.body.contains(&template), "{}", description.body);

    let page = get(&cluster, "/").await.body;
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "nothing from elsewhere"
    );
    let status = get(&cluster, "/v1/status").await.json();
    assert_eq!(status["shards"].as_array().unwrap().len(), 3);
    assert_eq!(status["shards"][0]["state"], "serving");
    assert_eq!(status["shards"][1]["shard_key"], "g");

    let metrics = get(&cluster, "/metrics").await.body;
    assert!(
        metrics.contains(
            "grpc_latency_seconds_count{method=\"autocomplete.v1.AutocompleteService/Record\"} 1"
        ),
        "{metrics}"
    );
    let ready = async {
        while get(&cluster, "/readyz").await.status != 200 {
            cluster
                .runtime
                .sleep(std::time::Duration::from_millis(20))
                .await;
        }
    };
    cluster
        .runtime
        .timeout(std::time::Duration::from_secs(10), ready)
        .await
        .unwrap();
}
