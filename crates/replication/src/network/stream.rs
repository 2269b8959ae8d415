//! A stream of appends: requests go out as they come, answers return in the same order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::raft::v1 as wire;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::RPCTypes;
use parking_lot::Mutex;
use runtime::{CancellationToken, Runtime};
use tonic::Streaming;

use super::leash::Leash;
use super::message::{failed, late, malformed, silent};
use crate::convert;
use crate::lease::{Grants, Stamp};
use crate::raft::{AppendRequest, AppendResult, LogId, RpcError};

/// What was sent and not answered yet, the oldest first.
type Sent = Arc<Mutex<VecDeque<Asked>>>;

/// A request, as far as its answer needs it.
pub(super) struct Asked {
    stamp: Stamp,
    /// The entry before it, and its last.
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// The messages for a stream of requests, and the record of what was sent.
pub(super) fn requests<S>(
    input: S,
    envelope: wire::Envelope,
    runtime: Runtime,
    grants: Arc<Grants>,
) -> (
    impl Stream<Item = wire::AppendRequest> + Send + 'static,
    Sent,
)
where
    S: Stream<Item = AppendRequest> + Send + 'static,
{
    let sent = Sent::default();
    let record = Arc::clone(&sent);
    let messages = input.map(move |request| {
        let last = request.entries.last().map(|entry| entry.log_id);
        record.lock().push_back(Asked {
            stamp: grants.stamp(request.vote.leader_id.term, runtime.now()),
            prev: request.prev_log_id,
            last: last.or(request.prev_log_id),
        });
        convert::append_to_wire(request, envelope.clone())
    });
    (messages, sent)
}

/// The receiving half of a stream.
pub(super) struct Answers {
    pub(super) inbound: Streaming<wire::AppendResponse>,
    pub(super) sent: Sent,
    #[expect(
        dead_code,
        reason = "held for its drop: the requests end with their answers"
    )]
    pub(super) leash: Leash,
    pub(super) silence: CancellationToken,
    pub(super) runtime: Runtime,
    pub(super) limit: Duration,
    pub(super) node: u64,
    pub(super) target: u64,
    pub(super) grants: Arc<Grants>,
}

/// The answers of a peer. Ends after the first error, and when the peer ends it with nothing outstanding.
pub(super) fn answers(state: Answers) -> BoxStream<'static, Result<AppendResult, RpcError>> {
    let stream = futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        let answer = state.next().await?;
        let go_on = matches!(answer, Ok(Ok(_)));
        Some((answer, go_on.then_some(state)))
    });
    stream.boxed()
}

impl Answers {
    async fn next(&mut self) -> Option<Result<AppendResult, RpcError>> {
        loop {
            // An answer is due only while a request is outstanding; a silent peer is then taken for dead.
            let due = !self.sent.lock().is_empty();
            let message = self.runtime.timeout(self.limit, self.inbound.message());
            let heard = tokio::select! {
                biased;
                () = self.silence.cancelled() => return Some(Err(silent())),
                heard = message => heard,
            };
            match heard {
                Ok(Ok(Some(message))) => return Some(self.answer(message)),
                Ok(Ok(None)) if self.sent.lock().is_empty() => return None,
                Ok(Ok(None)) => {
                    return Some(Err(malformed(&"the peer ended the stream early")));
                }
                Ok(Err(status)) => return Some(Err(failed(&status))),
                Err(_) if due => {
                    let action = RPCTypes::AppendEntries;
                    return Some(Err(late(action, self.node, self.target, self.limit)));
                }
                Err(_) => {}
            }
        }
    }

    fn answer(&self, message: wire::AppendResponse) -> Result<AppendResult, RpcError> {
        let asked = self.sent.lock().pop_front();
        let asked = asked.ok_or_else(|| malformed(&"an answer that nobody asked for"))?;
        self.grants.told(self.target, message.granted_lease_ms);
        let result = convert::append_result_from_wire(message, asked.prev, asked.last)
            .map_err(|error| malformed(&error))?;
        if result.is_ok() {
            self.grants.accepted(self.target, asked.stamp);
        }
        Ok(result)
    }
}
