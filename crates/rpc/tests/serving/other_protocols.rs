use std::collections::BTreeSet;

use prost::Message as _;
use rpc::ServerConfig;
use runtime::{Network as _, TcpNetwork};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::raw::{RECORD, framed};
use crate::support::{Running, record, start};

async fn reflect(server: &Running, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(server.channel());
    let answers = client
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    answer.message_response.unwrap()
}

#[tokio::test]
async fn reflection_lists_the_services_and_shows_their_comments() {
    let server = start(ServerConfig::default()).await;
    let listed = reflect(&server, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = listed else {
        panic!("{listed:?}");
    };
    let names: BTreeSet<_> = list.service.into_iter().map(|found| found.name).collect();
    for name in [
        "autocomplete.v1.AutocompleteService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    let symbol = "autocomplete.v1.AutocompleteService".to_owned();
    let found = reflect(&server, MessageRequest::FileContainingSymbol(symbol)).await;
    let MessageResponse::FileDescriptorResponse(files) = found else {
        panic!("{found:?}");
    };
    let bytes = files.file_descriptor_proto.concat();
    let file = prost_types::FileDescriptorProto::decode(bytes.as_slice()).unwrap();
    let comments = file.source_code_info.unwrap().location;
    assert!(comments.iter().any(|place| {
        place
            .leading_comments()
            .contains("Adds to the exact count of a term")
    }));
}

/// Sends bytes over a plain connection and reads until the server closes it.
async fn plain(server: &Running, head: &str, body: &[u8]) -> Vec<u8> {
    let mut connection = TcpNetwork.connect(server.address.clone()).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    answer
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn grpc_web_works_over_http1_and_lets_no_other_origin_in() {
    let server = start(ServerConfig::default()).await;
    let web = |body: Vec<u8>| {
        let head = format!(
            "POST {RECORD} HTTP/1.1\r\nhost: x\r\norigin: http://evil.example\r\n\
             content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let server = &server;
        async move { plain(server, &head, &body).await }
    };
    let answer = web(framed(0, &record("abcde").encode_to_vec()).to_vec()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    // Field 1, a varint: the count.
    assert!(contains(&answer, &[0x08, 5]));
    assert!(contains(&answer, b"grpc-status:0"));
    assert!(!contains(&answer, b"access-control-allow-origin"));

    // Errors of ours come the same way.
    let answer = web(framed(0, &[0x0a, 2, 0xc3, 0x28]).to_vec()).await;
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(
        text.contains("grpc-status: 3") || text.contains("grpc-status:3"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_no_grpc_is_refused() {
    let server = start(ServerConfig::default()).await;
    let head = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = plain(&server, head, b"").await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
}
