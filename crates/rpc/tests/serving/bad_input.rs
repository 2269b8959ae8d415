use std::io::Write as _;

use api::{ApiError, Outcome, Reason};
use bytes::Bytes;
use cluster::limits::MESSAGE_BYTES_MAX;
use prost::Message as _;
use rpc::ServerConfig;
use tonic::Code;

use crate::raw::{RECORD, RECORD_STREAM, call, framed, refused};
use crate::support::{record, start};

/// A term that is not UTF-8: field 1, two bytes.
const NOT_UTF8: [u8; 4] = [0x0a, 2, 0xc3, 0x28];

#[tokio::test]
async fn invalid_utf8_is_the_callers_fault() {
    let server = start(ServerConfig::default()).await;
    let error = refused(&server, RECORD, &[], framed(0, &NOT_UTF8)).await;
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.reason(), Reason::Malformed);
    assert!(error.message().contains("UTF-8"), "{error}");
    // As an item's term, inside of a stream: items, then the term.
    let item = [&[0x0a, 4][..], &NOT_UTF8].concat();
    let error = refused(&server, RECORD_STREAM, &[], framed(0, &item)).await;
    assert_eq!(error.reason(), Reason::Malformed);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let server = start(ServerConfig::default()).await;
    let whole = framed(0, &record("abc").encode_to_vec());
    let cut = whole.slice(..whole.len() - 1);
    let bodies: [(&str, Bytes); 6] = [
        ("a field of an unknown wire type", framed(0, &[0x0f])),
        (
            "a string longer than the message",
            framed(0, &[0x0a, 9, b'a']),
        ),
        ("a message that ends early", cut),
        ("no message at all", Bytes::new()),
        ("an unknown compression flag", framed(7, &[])),
        ("compressed, but nobody said how", framed(1, &[1, 2, 3])),
    ];
    for (what, body) in bodies {
        let status = call(&server, RECORD, &[], body).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason(), Reason::Malformed, "{what}");
        assert_eq!(error.outcome(), Some(Outcome::NotApplied), "{what}");
    }
    // And the server is none the worse for it.
    let answer = server.client().record(record("abc")).await.unwrap();
    assert_eq!(answer.into_inner().count, 3);
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_by_its_length() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.client();
    // Tag and length take four bytes.
    let largest = "x".repeat(MESSAGE_BYTES_MAX - 4);
    let answer = client.record(record(&largest)).await.unwrap();
    assert_eq!(answer.into_inner().count as usize, largest.len());

    let too_large = "x".repeat(MESSAGE_BYTES_MAX - 3);
    let status = client.record(record(&too_large)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let error = ApiError::from_status(&status);
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    assert!(error.message().contains("1048577"), "{error}");
    assert!(error.message().contains("1048576"), "{error}");

    // Of a message on a stream only the length is sent.
    let mut head = framed(0, &[]).to_vec();
    head[1..].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = refused(&server, RECORD_STREAM, &[], head.into()).await;
    assert_eq!(error.reason(), Reason::MessageTooLarge);
}

#[tokio::test]
async fn what_inflates_above_the_limit_is_refused() {
    let server = start(ServerConfig::default()).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let headers = [("grpc-encoding", "gzip")];
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let error = refused(&server, RECORD, &headers, framed(1, &bomb)).await;
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    assert_eq!(error.code(), Code::ResourceExhausted);

    let broken = refused(&server, RECORD, &headers, framed(1, b"not gzip")).await;
    assert_eq!(broken.reason(), Reason::Malformed);

    let sound = gzip(&record("abcd").encode_to_vec());
    let status = call(&server, RECORD, &headers, framed(1, &sound)).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
}

#[tokio::test]
async fn unknown_methods_are_said_to_be_unknown() {
    let mut server = start(ServerConfig::default()).await;
    let path = "/autocomplete.v1.AutocompleteService/Nothing";
    let status = call(&server, path, &[], framed(0, &[])).await;
    assert_eq!(status.code(), Code::Unimplemented);
    let seen = server.seen.recv().await.unwrap();
    assert_eq!(seen.method, "unknown", "callers cannot make labels up");
}
