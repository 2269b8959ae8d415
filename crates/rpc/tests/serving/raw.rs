//! HTTP/2 by hand, for requests that no gRPC client would send.

use api::ApiError;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use runtime::{Connection, Network as _, TcpNetwork};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// A connection whose frames are written one by one (RFC 9113), for what no library sends.
pub(crate) struct Frames(Connection);

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
/// Of settings and pings.
const ACK: u8 = 0x1;

impl Frames {
    pub(crate) async fn connect(server: &Running) -> Self {
        let mut connection = TcpNetwork.connect(server.address.clone()).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        connection.write_all(preface).await.unwrap();
        let mut frames = Self(connection);
        frames.write(SETTINGS, 0, 0, b"").await;
        frames
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_uint(payload.len() as u64, 3);
        frame.put_u8(kind);
        frame.put_u8(flags);
        frame.put_u32(stream);
        frame.put_slice(payload);
        // The server may have closed: the next round trip tells.
        let _closed = self.0.write_all(&frame).await;
    }

    /// The headers of a call (RFC 7541, without any compression).
    pub(crate) fn headers(path: &str) -> Vec<u8> {
        // POST, and the scheme http.
        let mut block = vec![0x83, 0x86];
        let names: [(&[u8], &str); 4] = [
            (&[0x04], path),
            (&[0x01], "server"),
            (&[0x0f, 0x10], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ];
        for (name, value) in names {
            block.extend(name);
            block.push(u8::try_from(value.len()).unwrap());
            block.extend(value.as_bytes());
        }
        block
    }

    /// Reads until a ping comes back, which is after everything that was sent before it was read. Whether it does: the server may close.
    pub(crate) async fn round_trip(&mut self) -> bool {
        self.write(PING, 0, 0, b"are you?").await;
        loop {
            let mut head = [0; 9];
            if self.0.read_exact(&mut head).await.is_err() {
                return false;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if self.0.read_exact(&mut payload).await.is_err() {
                return false;
            }
            match (head[3], head[4] & ACK != 0) {
                (PING, true) => return true,
                (SETTINGS, false) => self.write(SETTINGS, ACK, 0, b"").await,
                _ => {}
            }
        }
    }
}
