//! `GET /v1/suggest` for the page, `GET /suggest` for browsers' search boxes.

use std::convert::Infallible;
use std::sync::Arc;

use api::v1::{GetTopKRequest, GetTopKResponse};
use api::{ApiError, Reason, validate};
use axum::Json;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use rpc::Deadline;
use serde::{Deserialize, Serialize};

use super::error::HttpError;
use super::{PATIENCE, Site, origin};

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    #[serde(default)]
    q: String,
    #[serde(default)]
    k: u32,
    #[serde(default)]
    namespace: String,
}

/// What a query says, or what is wrong with it, which is answered as every error is.
#[derive(Debug)]
pub(crate) struct Asked(Result<Question, ApiError>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(read(&parts.uri)))
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    prefix: String,
    suggestions: Vec<Item>,
    k_served: u32,
    complete: bool,
    shards_attempted: u32,
    shards_failed: u32,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct Item {
    term: String,
    count: u64,
    display: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    start: String,
    end: String,
}

pub(crate) async fn json(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Asked(question): Asked,
) -> Response {
    let response = match ask(&site, question).await {
        Ok((prefix, answer)) => {
            let answer = Json(to_json(prefix, answer));
            ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
        }
        Err(error) => HttpError(error).into_response(),
    };
    // Reading is free for every page; only those in the configuration are told that they may.
    match origin::check(&headers, &site.allowed_origins) {
        Ok(from) => from.mark(response),
        Err(_) => response,
    }
}

fn to_json(prefix: String, answer: GetTopKResponse) -> Answer {
    let completeness = answer.completeness.unwrap_or_default();
    Answer {
        prefix,
        suggestions: answer
            .suggestions
            .into_iter()
            .map(|at| Item {
                display: if at.display.is_empty() {
                    at.term.clone()
                } else {
                    at.display
                },
                term: at.term,
                count: at.count,
            })
            .collect(),
        k_served: answer.k_served,
        complete: completeness.missing.is_empty(),
        shards_attempted: completeness.shards_attempted,
        shards_failed: completeness.shards_failed,
        missing: completeness
            .missing
            .into_iter()
            .map(|range| Missing {
                start: range.start,
                end: range.end,
            })
            .collect(),
    }
}

/// `["q", ["a", "b"]]`, as browsers want it.
pub(crate) async fn opensearch(
    State(site): State<Arc<Site>>,
    Asked(question): Asked,
) -> Result<Response, HttpError> {
    let typed = question.as_ref().map(|question| question.q.clone());
    let typed = typed.unwrap_or_default();
    let (_, answer) = ask(&site, question).await?;
    let suggestions: Vec<String> = answer
        .suggestions
        .into_iter()
        .map(|at| {
            if at.display.is_empty() {
                at.term
            } else {
                at.display
            }
        })
        .collect();
    let headers = [
        (header::CONTENT_TYPE, "application/x-suggestions+json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((
        headers,
        Json((typed, suggestions)).into_response().into_body(),
    )
        .into_response())
}

/// What a query means.
pub(crate) fn sound(uri: &Uri) -> Result<validate::GetTopK, ApiError> {
    meant(read(uri)?)
}

/// What a query says. One that is not UTF-8 is refused: what is read in its place is not what was typed.
fn read(uri: &Uri) -> Result<Question, ApiError> {
    let query = percent_decode_str(uri.query().unwrap_or_default());
    if let Err(error) = query.decode_utf8() {
        let message = format!("the query is not UTF-8: {error}");
        return Err(ApiError::new(Reason::Malformed, message));
    }
    match Query::try_from_uri(uri) {
        Ok(Query(question)) => Ok(question),
        Err(rejection) => Err(ApiError::new(Reason::Malformed, rejection.body_text())),
    }
}

fn meant(question: Question) -> Result<validate::GetTopK, ApiError> {
    validate::GetTopK::try_from(GetTopKRequest {
        prefix: question.q,
        k: question.k,
        namespace: question.namespace,
        ..GetTopKRequest::default()
    })
}

async fn ask(
    site: &Site,
    question: Result<Question, ApiError>,
) -> Result<(String, GetTopKResponse), ApiError> {
    let ask = meant(question?)?;
    let prefix = ask.prefix.as_str().to_owned();
    let deadline = Deadline::after(&site.runtime, PATIENCE);
    Ok((prefix, site.router.top_k(ask, deadline.at()).await?))
}
