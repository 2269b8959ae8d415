//! The headers of calls and of browsers' requests.

use std::time::Duration;

use api::Reason;
use cluster::limits;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rpc::trace::TRACE_HEADER;
use rpc::{ServerConfig, Trace};

use super::{join, pieces, sure};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "traceparent",
            run: traceparent,
            mend: mend::nothing,
            seeds: || vec![b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec()],
            quick: 30_000,
        },
        Target {
            name: "grpc-timeout",
            run: timeout,
            mend: mend::nothing,
            seeds: || {
                let texts = ["1S", "99999999u", "0n", "00000001H", "99999999H", "250m"];
                texts.map(|text| text.as_bytes().to_vec()).to_vec()
            },
            quick: 30_000,
        },
        Target {
            name: "http-origin",
            run: origin,
            mend: mend::nothing,
            seeds: origin_seeds,
            quick: 30_000,
        },
    ]
}

/// A trace that was taken from a header is passed on in one that says the same.
fn traceparent(input: &[u8]) {
    let of = |value: &[u8]| {
        let value = HeaderValue::from_bytes(value).ok()?;
        Trace::of(&HeaderMap::from_iter([(TRACE_HEADER.parse().ok()?, value)]))
    };
    if let Some(trace) = of(input) {
        assert_eq!(of(trace.header().as_bytes()), Some(trace));
        let (high, low) = trace.halves();
        assert_eq!(Trace::from_halves(high, low), Some(trace));
    }
}

fn headers<'a>(fields: impl IntoIterator<Item = (HeaderName, &'a [u8])>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// A call may take as long as it says, within the limit, and what it asks of others has not more time.
fn timeout(input: &[u8]) {
    let config = ServerConfig::default();
    let patience = |headers: &HeaderMap| rpc::fuzzing::patience(&config, headers);
    let name = HeaderName::from_static("grpc-timeout");
    let Some(headers) = headers([(name, input)]) else {
        return;
    };
    let left = match patience(&headers) {
        Ok(left) => left,
        Err(error) => return assert_eq!(error.field_name(), Some("grpc-timeout")),
    };
    assert!(left <= limits::DEADLINE_MAX);
    let (unit, digits) = sure(input.split_last().ok_or("it is empty"));
    assert!(b"HMSmun".contains(unit) && (1..=8).contains(&digits.len()));
    assert!(digits.iter().all(u8::is_ascii_digit));
    let pass = |left| {
        let request = rpc::request((), left);
        sure(patience(&request.metadata().clone().into_headers()))
    };
    let (once, twice) = (pass(left), pass(pass(left)));
    assert!(once <= left && left - once < Duration::from_micros(1));
    assert_eq!(once, twice);
}

const ALLOWED: &str = "https://search.example";

/// Only the own page, those of an origin that is allowed, and who is no browser may record.
fn origin(input: &[u8]) {
    let pieces = pieces(input);
    let named = |kind: u8| match kind {
        0 => header::ORIGIN,
        _ => header::HOST,
    };
    let fields = pieces.iter().map(|(kind, value)| (named(*kind), *value));
    let Some(headers) = headers(fields) else {
        return;
    };
    let first = |name| headers.get(name).map(HeaderValue::as_bytes);
    match coordinator::fuzzing::origin(&headers, &[ALLOWED.to_owned()]) {
        Ok(Some(page)) => assert_eq!(page, ALLOWED),
        Ok(None) => {
            if let Some(page) = first(header::ORIGIN) {
                let host = first(header::HOST).unwrap_or_default();
                let own = ["http://", "https://"].map(|scheme| [scheme.as_bytes(), host].concat());
                assert!(own.iter().any(|own| own == page));
            }
        }
        Err(error) => assert_eq!(error.reason(), Reason::PermissionDenied),
    }
}

fn origin_seeds() -> Vec<Vec<u8>> {
    let asked = |origin: &str, host: &str| join([(0, origin.as_bytes()), (1, host.as_bytes())]);
    vec![
        asked("http://127.0.0.1:8080", "127.0.0.1:8080"),
        asked("https://[::1]:8080", "[::1]:8080"),
        asked(ALLOWED, "127.0.0.1:8080"),
        asked("null", "127.0.0.1:8080"),
        join([(1, b"127.0.0.1:8080".as_slice())]),
    ]
}
