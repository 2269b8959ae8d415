//! HTTP/2 by hand, for requests that no gRPC client would send.

use api::ApiError;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use runtime::{Network as _, TcpNetwork};
use tonic::Status;

use crate::support::{PATIENCE, Running};

pub(crate) const RECORD: &str = "/autocomplete.v1.AutocompleteService/Record";
pub(crate) const RECORD_STREAM: &str = "/autocomplete.v1.AutocompleteService/RecordStream";

/// A message with its flag and length in front.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}

/// Calls a method with these headers and bytes, and returns the status it ends with.
pub(crate) async fn call(
    server: &Running,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Status {
    let calling = async {
        let connection = TcpNetwork.connect(server.address.clone()).await.unwrap();
        let (client, connection) = h2::client::handshake(connection).await.unwrap();
        let driving = server.runtime.spawn("raw connection", async move {
            // Ends with an error when the server closes first.
            let _closed = connection.await;
        });
        let mut request = Request::post(format!("http://{}{path}", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut client = client.ready().await.unwrap();
        let (answer, mut sending) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        // The server may answer, and reset, before it has taken all.
        let _reset = sending.send_data(body, true);
        let (head, mut body) = answer.await.unwrap().into_parts();
        let status = match Status::from_header_map(&head.headers) {
            Some(status) => status,
            None => {
                while let Some(data) = body.data().await {
                    let length = data.unwrap().len();
                    body.flow_control().release_capacity(length).unwrap();
                }
                let trailers: HeaderMap = body.trailers().await.unwrap().unwrap();
                Status::from_header_map(&trailers).unwrap()
            }
        };
        driving.abort();
        status
    };
    server
        .runtime
        .timeout(PATIENCE, calling)
        .await
        .expect("an answer")
}

/// As [`call`], in our words.
pub(crate) async fn refused(
    server: &Running,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> ApiError {
    ApiError::from_status(&call(server, path, headers, body).await)
}
