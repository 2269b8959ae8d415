//! The page and its parts, compiled in.

use axum::http::{HeaderMap, HeaderName, header};
use axum::response::IntoResponse;

/// Pages change with the program: browsers ask again each time.
const CACHE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-cache");

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type), CACHE], text)
}

pub(crate) async fn index() -> impl IntoResponse {
    asset(
        "text/html; charset=utf-8",
        include_str!("../../assets/index.html"),
    )
}

pub(crate) async fn script() -> impl IntoResponse {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../../assets/app.js"),
    )
}

pub(crate) async fn style() -> impl IntoResponse {
    asset(
        "text/css; charset=utf-8",
        include_str!("../../assets/style.css"),
    )
}

pub(crate) async fn icon() -> impl IntoResponse {
    asset("image/svg+xml", include_str!("../../assets/icon.svg"))
}

/// The description by which a browser adds this as a search engine. Its addresses are those that the browser came by.
pub(crate) async fn opensearch(headers: HeaderMap) -> impl IntoResponse {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| is_authority(host))
        .unwrap_or("127.0.0.1:8080");
    let scheme = match headers
        .get("x-forwarded-proto")
        .map(|proto| proto.as_bytes())
    {
        Some(b"https") => "https",
        Some(_) | None => "http",
    };
    let text = include_str!("../../assets/opensearch.xml")
        .replace("{origin}", &format!("{scheme}://{host}"));
    let content_type = "application/opensearchdescription+xml; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type), CACHE], text)
}

/// What may stand in a document unescaped: names, addresses and a port.
fn is_authority(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
        })
}
