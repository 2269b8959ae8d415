//! Which request a piece of work belongs to, on every server that it passes.
//!
//! A caller that wants to follow a request sends the header `traceparent` of the W3C's recommendation *Trace Context*. Each
//! server that such a request passes logs one line about it, with the trace's id, and whatever is logged while the request is
//! worked on stands under the same id. Messages between servers carry the id, see `Route` in `shard.proto`.
//!
//! What always holds: a request without the header costs one look at its headers and leaves no line; a header that is not
//! well-formed is as good as none, for tracing must not fail a request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use http::HeaderMap;
use runtime::Runtime;
use tonic::{Code, Request, Status};
use tracing::Span;

use crate::code_name;

/// The header that carries a trace.
pub const TRACE_HEADER: &str = "traceparent";

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace that a request belongs to. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    /// Never zero, which stands for none.
    id: u128,
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.id)
    }
}

impl Trace {
    /// A new one.
    #[must_use]
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            id: u128::from_le_bytes(runtime.random_id()).max(1),
        }
    }

    /// The one whose id has these halves; none when both are zero.
    #[must_use]
    pub fn from_halves(high: u64, low: u64) -> Option<Self> {
        let id = u128::from(high) << 64 | u128::from(low);
        (id != 0).then_some(Self { id })
    }

    /// The halves of its id, for messages between servers.
    #[must_use]
    pub fn halves(self) -> (u64, u64) {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let low = self.id as u64;
        ((self.id >> 64) as u64, low)
    }

    /// The trace of the work that this task does now, see [`follow`].
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// The trace that a request's headers name.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        parse(headers.get(TRACE_HEADER)?.to_str().ok()?)
    }

    /// What the header of a request of this trace says. We keep no spans, so that the id stands for its parent too.
    #[must_use]
    pub fn header(self) -> String {
        let (_, low) = self.halves();
        format!("00-{self}-{:016x}-01", low.max(1))
    }

    /// Logs how a call ended that was a part of this trace: the name of a code, or an HTTP status.
    pub fn ended(self, call: &str, code: &str, took: Duration) {
        tracing::info!(trace_id = %self, call, code, ?took, "a traced call ended");
    }
}

pin_project_lite::pin_project! {
    /// A piece of work as a part of a trace, see [`follow`].
    #[derive(Debug)]
    pub struct Follow<F> {
        #[pin]
        work: F,
        part: Option<(Trace, Span)>,
    }
}

/// Does a piece of work as a part of a trace, where there is one. Work without one is as large and as quick as it was.
pub fn follow<F: Future>(trace: Option<Trace>, call: &str, work: F) -> Follow<F> {
    let part = trace.map(|trace| {
        let span = tracing::info_span!("request", trace_id = %trace, call);
        (trace, span)
    });
    Follow { work, part }
}

impl<F: Future> Future for Follow<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.part {
            Some((trace, span)) => {
                let _entered = span.enter();
                CURRENT.sync_scope(*trace, || this.work.poll(context))
            }
            None => this.work.poll(context),
        }
    }
}

/// As [`follow`], and logs how the work ended if it is part of a trace.
pub fn traced<T, E, F>(
    runtime: &Runtime,
    trace: Option<Trace>,
    call: &str,
    work: F,
) -> impl Future<Output = Result<T, E>> + use<T, E, F>
where
    E: Clone + Into<Status>,
    F: Future<Output = Result<T, E>>,
{
    let begun = trace.map(|trace| (trace, call.to_owned(), runtime.clone(), runtime.now()));
    follow(trace, call, work).inspect(move |answer| {
        if let Some((trace, call, runtime, began)) = &begun {
            let code = answer
                .as_ref()
                .map_or_else(|error| error.clone().into().code(), |_| Code::Ok);
            let took = runtime.now().saturating_since(*began);
            trace.ended(call, code_name(code), took);
        }
    })
}

/// A request that tells the server how long its answer is waited for, and which trace it belongs to.
#[must_use]
pub fn request<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    let header = Trace::current().and_then(|trace| trace.header().parse().ok());
    if let Some(header) = header {
        request.metadata_mut().insert(TRACE_HEADER, header);
    }
    request
}

/// Version, trace, parent and flags, of which the trace is read. Later versions may have more behind them.
fn parse(text: &str) -> Option<Trace> {
    let mut parts = text.split('-');
    let mut part = |digits: usize| {
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts
            .next()
            .filter(|part| part.len() == digits && part.as_bytes().iter().all(is_hex))
    };
    let (version, id, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let has_more = parts.next().is_some();
    if version == "ff" || (version == "00" && has_more) || u64::from_str_radix(parent, 16) == Ok(0)
    {
        return None;
    }
    let id = u128::from_str_radix(id, 16).ok().filter(|id| *id != 0)?;
    Some(Trace { id })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn headers_are_read_as_the_recommendation_has_them() {
        let known = parse(KNOWN).unwrap();
        assert_eq!(known.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parse(&known.header()), Some(known));
        let later = KNOWN.replacen("00-", "01-", 1) + "-more";
        assert_eq!(parse(&later), Some(known));
        for bad in [
            String::new(),
            KNOWN.to_uppercase(),
            KNOWN.replacen("00-", "ff-", 1),
            KNOWN.to_owned() + "-more",
            KNOWN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            KNOWN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            KNOWN.replace("-01", ""),
            KNOWN.replace("4bf9", "4bf"),
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn halves_are_the_whole() {
        let known = parse(KNOWN).unwrap();
        let (high, low) = known.halves();
        assert_eq!(Trace::from_halves(high, low), Some(known));
        assert_eq!(Trace::from_halves(0, 0), None);
    }

    #[tokio::test]
    async fn requests_carry_the_trace_of_the_work_that_makes_them() {
        let runtime = Runtime::real();
        let header = |request: &Request<()>| {
            let header = request.metadata().get(TRACE_HEADER);
            header.map(|header| header.to_str().unwrap().to_owned())
        };
        let plain = request((), Duration::from_secs(1));
        assert_eq!(header(&plain), None);
        let trace = Trace::new(&runtime);
        let work = async { Ok::<_, Status>(request((), Duration::from_secs(1))) };
        let followed = traced(&runtime, Some(trace), "Test", work).await.unwrap();
        let headers: HeaderMap = followed.metadata().clone().into_headers();
        assert_eq!(Trace::of(&headers), Some(trace));
        assert_eq!(Trace::current(), None);
    }
}
