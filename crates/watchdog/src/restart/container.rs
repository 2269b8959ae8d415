//! Restarting containers through the socket of a Docker Engine.
//!
//! A restart policy brings back what has ended; a process that hangs has not. The container of a node is the one whose label
//! [`NODE_LABEL`] is the node's name. Whoever holds the socket can do anything to the machine, so this is for operators to turn on.
//!
//! What always holds: only a container with the label is touched, and none if several have it, for they may belong to two clusters. One
//! that does not run is left alone: its policy brings it back, unless it was stopped by hand.
//!
//! On failure: the reason is told, and the attempt goes on. A node on another machine has no container here.

use std::path::PathBuf;

use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtime::Runtime;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{Restart, RestartError, Restarter};
use crate::fleet::NodeTarget;

/// The label by which a node's container is found; its value is the node's name.
pub const NODE_LABEL: &str = "autocomplete.node";

/// How long the engine waits for the process to end by itself before it kills it, in seconds: one that hangs does not, and one that
/// answers without getting on may.
const STOP_SECONDS: u32 = 3;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Has a Docker Engine restart the container of a node that hangs or does not get on.
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    socket: PathBuf,
}

/// What the engine says of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

/// What it says when it refuses.
#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

impl Container {
    /// A restarter that asks the engine behind a Unix socket.
    #[must_use]
    pub fn new(runtime: Runtime, socket: PathBuf) -> Self {
        Self { runtime, socket }
    }

    async fn find(&self, node: &str) -> Result<String, RestartError> {
        let filters = serde_json::json!({ "label": [format!("{NODE_LABEL}={node}")] }).to_string();
        let filters = utf8_percent_encode(&filters, NON_ALPHANUMERIC);
        let path = format!("/containers/json?filters={filters}");
        only_one(node, &self.ask(Method::GET, &path).await?)
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, RestartError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream =
            stream.map_err(|error| failed(format_args!("{}: {error}", self.socket.display())))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        // Ends when the sender is dropped; what fails in it fails the request.
        let driver = self.runtime.spawn("docker-engine", async move {
            drop(connection.await);
        });
        drop(driver);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(failed)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(refused(status, &body))
    }
}

/// The container of a node, of those that the engine lists for it.
pub(crate) fn only_one(node: &str, listed: &[u8]) -> Result<String, RestartError> {
    let mut listed: Vec<Listed> = serde_json::from_slice(listed).map_err(failed)?;
    match (listed.pop(), listed.len()) {
        (Some(container), 0) => Ok(container.id),
        (Some(_), others) => Err(failed(format_args!(
            "{} containers have the label {NODE_LABEL}={node}",
            others + 1
        ))),
        (None, _) => Err(failed(format_args!(
            "no running container has the label {NODE_LABEL}={node}"
        ))),
    }
}

/// Where the engine is asked to restart a container. The id of one is hex, and nothing else must lead to another place.
pub(crate) fn restart_path(id: &str) -> String {
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    format!("/containers/{id}/restart?t={STOP_SECONDS}")
}

/// What the engine says when it does not do what it is asked.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> RestartError {
    let refusal = serde_json::from_slice(body).map(|refusal: Refusal| refusal.message);
    let reason = refusal.unwrap_or_default();
    failed(format_args!("the engine answered {status}: {reason}"))
}

impl Restarter for Container {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        Box::pin(async move {
            let id = self.find(&node.name).await?;
            self.ask(Method::POST, &restart_path(&id)).await?;
            Ok(Restart::Begun)
        })
    }
}

fn failed(reason: impl ToString) -> RestartError {
    RestartError::Supervisor(reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use http_body_util::Full;
    use hyper::Response;
    use hyper::service::service_fn;
    use parking_lot::Mutex;
    use tokio::net::UnixListener;

    use super::*;
    use crate::fleet::node;

    /// An engine that answers as told, and notes what it is asked.
    #[derive(Debug, Default)]
    struct Engine {
        listed: &'static str,
        restarts: u16,
        asked: Mutex<Vec<String>>,
    }

    impl Engine {
        fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
            let asked = format!("{} {}", request.method(), request.uri());
            let (status, body) = if request.method() == Method::GET {
                (StatusCode::OK, self.listed)
            } else {
                let body = r#"{"message": "it does not end"}"#;
                (StatusCode::from_u16(self.restarts).unwrap(), body)
            };
            self.asked.lock().push(asked);
            let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
            *response.status_mut() = status;
            response
        }

        async fn serve(self: Arc<Self>, listener: UnixListener) {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let engine = Arc::clone(&self);
                let service = service_fn(move |request| {
                    let answer = engine.answer(&request);
                    std::future::ready(Ok::<_, std::convert::Infallible>(answer))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connection.await.unwrap();
            }
        }
    }

    async fn restart(
        socket: &Path,
        engine: Engine,
    ) -> (Result<Restart, RestartError>, Vec<String>) {
        let engine = Arc::new(engine);
        let listener = UnixListener::bind(socket).unwrap();
        let restarter = Container::new(Runtime::real(), socket.to_owned());
        let seven = node(7);
        let restarted = tokio::select! {
            restarted = restarter.restart(&seven) => restarted,
            () = Arc::clone(&engine).serve(listener) => unreachable!("it serves for ever"),
        };
        let asked = engine.asked.lock().clone();
        (restarted, asked)
    }

    /// What a refusal says.
    fn said(restarted: Result<Restart, RestartError>) -> String {
        restarted.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_one_container_with_the_label_is_restarted() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine {
            listed: r#"[{"Id": "abc", "Names": ["/x"]}]"#,
            restarts: 204,
            ..Engine::default()
        };
        let (restarted, asked) = restart(&dir.path().join("one"), engine).await;
        assert_eq!(restarted.unwrap(), Restart::Begun);
        let list = "GET /containers/json?filters=\
            %7B%22label%22%3A%5B%22autocomplete%2Enode%3Dn7%22%5D%7D";
        assert_eq!(asked, [list, "POST /containers/abc/restart?t=3"]);
    }

    #[tokio::test]
    async fn nothing_is_restarted_in_doubt_and_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (name, listed, expected) in [
            (
                "none",
                "[]",
                "no running container has the label autocomplete.node=n7",
            ),
            (
                "two",
                r#"[{"Id": "abc"}, {"Id": "def"}]"#,
                "2 containers have the label autocomplete.node=n7",
            ),
            ("nonsense", "{}", "invalid type"),
        ] {
            let engine = Engine {
                listed,
                ..Engine::default()
            };
            let (restarted, asked) = restart(&dir.path().join(name), engine).await;
            let said = said(restarted);
            assert!(said.contains(expected), "{said}");
            assert_eq!(asked.len(), 1, "{name}");
        }
    }

    #[tokio::test]
    async fn what_the_engine_refuses_and_an_engine_that_is_not_there_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine {
            listed: r#"[{"Id": "abc"}]"#,
            restarts: 500,
            ..Engine::default()
        };
        let (restarted, _) = restart(&dir.path().join("refuses"), engine).await;
        let text = said(restarted);
        assert!(
            text.contains("500") && text.contains("it does not end"),
            "{text}"
        );
        let nowhere = dir.path().join("nowhere");
        let absent = Container::new(Runtime::real(), nowhere);
        let text = said(absent.restart(&node(7)).await);
        assert!(text.contains("nowhere"), "{text}");
    }
}
