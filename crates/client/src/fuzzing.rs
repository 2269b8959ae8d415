//! A door to what a client makes of a coordinator's answers, for `crates/fuzz`.
//!
//! On failure: what is refused says why. Nothing here sends anything.

use api::{admin, v1};
use cluster::{Epoch, ShardId};
use rpc::channel::{Pool, PoolConfig};
use runtime::Runtime;

use crate::client::{answers_all, unfinished};
use crate::retry::{Attempts, Kind, Patience, Step};
use crate::routing::{Route, Routing};
use crate::session::Session;
use crate::{ClientError, ClientOptions, pages};

/// What came of a batch.
#[derive(Debug)]
pub struct Recorded {
    /// What the caller gets.
    pub answer: Result<v1::RecordBatchResponse, ClientError>,
    /// How many tries left something to be tried again.
    pub failed: u32,
    /// What the client has seen.
    pub token: Option<v1::SessionToken>,
}

/// What comes of a batch of so many items when its tries are answered like this: the last answer counts where another try is due.
/// Nothing without an answer.
#[must_use]
pub fn recorded(items: usize, tries: Vec<v1::RecordBatchResponse>) -> Option<Recorded> {
    let options = ClientOptions::default();
    let patience = Patience {
        retries: options.retries,
        backoff_min: options.backoff_min,
        backoff_max: options.backoff_max,
        servers: options.endpoints.len(),
    };
    let mut attempts = Attempts::new(Kind::Write);
    let mut tries = tries.into_iter();
    let mut answer = tries.next()?;
    while let Some(error) = unfinished(&answer) {
        if attempts.decide_in_part(&answer.results, &error, &patience) == Step::GiveUp {
            break;
        }
        match tries.next() {
            Some(next) => answer = next,
            None => break,
        }
    }
    attempts.cover(&mut answer.results);
    let session = Session::default();
    let answer = answers_all(&answer, items).map(|()| {
        session.see(answer.token.as_ref());
        answer
    });
    Some(Recorded {
        answer,
        failed: attempts.failed(),
        token: session.token(),
    })
}

/// What a client goes by after each of these maps: the epoch, and the shard that owns a term of the default namespace.
#[must_use]
pub fn routed(maps: Vec<admin::v1::ShardMap>, term: &str) -> Vec<(Epoch, Option<ShardId>)> {
    let runtime = Runtime::real();
    let pool = Pool::new(&runtime, PoolConfig::default());
    let routing = Routing::new(runtime, pool);
    let routed = maps.into_iter().map(|map| {
        // One that makes no sense leaves the one before.
        let _ = routing.install(map);
        let namespace = "";
        let shard = routing.shard(Route::Term { namespace, term });
        (routing.epoch(), shard)
    });
    routed.collect()
}

/// Whether a listing gets on with the page that came for a token.
///
/// # Errors
/// As the caller is told.
pub fn page(token: &str, page: &v1::ListTermsResponse) -> Result<(), ClientError> {
    pages::check(token, page)
}
