//! A stream of appends: requests go out as they come, answers return in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::raft::v1 as wire;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::RPCTypes;
use parking_lot::Mutex;
use runtime::{CancellationToken, Runtime};
use tokio::sync::Notify;
use tonic::Streaming;

use super::leash::Leash;
use super::message::{failed, late, left_behind, malformed, silent};
use super::{SharedContext, Standings};
use crate::convert;
use crate::lease::{Grants, Moment, Stamp};
use crate::raft::{AppendRequest, AppendResult, LogId, RpcError};

/// The streams of entries that are open, the newest to each member.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<BTreeMap<u64, CancellationToken>>);

impl Streams {
    /// For a stream to a member that is opened: cancelled when it is to end, for everybody's silence or for the member's sake.
    pub(super) fn open(&self, member: u64, silence: &CancellationToken) -> CancellationToken {
        let end = silence.child_token();
        self.0.lock().insert(member, end.clone());
        end
    }

    /// Ends the stream to a member with an error, if there is one: whoever streams looks anew what the member is to be sent.
    pub(crate) fn end(&self, member: u64) {
        let open = self.0.lock().remove(&member);
        if let Some(open) = open {
            open.cancel();
        }
    }
}

/// What the two halves of a stream share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What was sent and not answered yet, the oldest first.
    sent: Mutex<VecDeque<Asked>>,
    /// Whether the peer has said on this stream that it takes blocks.
    takes_blocks: AtomicBool,
}

/// A request, as far as its answer needs it.
#[derive(Debug)]
pub(super) struct Asked {
    stamp: Stamp,
    /// The entry before it, and its last.
    prev: Option<LogId>,
    last: Option<LogId>,
}

impl Shared {
    /// Notes what an answer says of the peer; gives the request that it is to.
    fn hear(&self, answer: &wire::AppendResponse) -> Option<Asked> {
        self.takes_blocks
            .store(answer.takes_blocks, Ordering::Relaxed);
        self.sent.lock().pop_front()
    }
}

/// The messages for a stream of requests, and the record of what was sent.
pub(super) fn requests<S>(
    input: S,
    envelope: wire::Envelope,
    context: SharedContext,
    grants: Arc<Grants>,
    standings: Arc<Standings>,
) -> (
    impl Stream<Item = wire::AppendRequest> + Send + 'static,
    Arc<Shared>,
)
where
    S: Stream<Item = AppendRequest> + Send + 'static,
{
    let shared = Arc::<Shared>::default();
    let record = Arc::clone(&shared);
    let mut is_first = true;
    let messages = input.map(move |request| {
        let last = request.entries.last().map(|entry| entry.log_id);
        record.sent.lock().push_back(Asked {
            stamp: grants.stamp(
                request.vote.leader_id.term,
                Moment::present(&context.runtime),
            ),
            prev: request.prev_log_id,
            last: last.or(request.prev_log_id),
        });
        let mut message = convert::append_to_wire(request, envelope.clone());
        if std::mem::take(&mut is_first) || message.entries.is_empty() {
            message.standings = standings.all();
        }
        let is_taken = record.takes_blocks.load(Ordering::Relaxed);
        context.packer.pack(message, is_taken)
    });
    (messages, shared)
}

/// The receiving half of a stream.
pub(super) struct Answers {
    pub(super) inbound: Streaming<wire::AppendResponse>,
    pub(super) shared: Arc<Shared>,
    #[expect(
        dead_code,
        reason = "held for its drop: the requests end with their answers"
    )]
    pub(super) leash: Leash,
    /// Cancelled when nothing more of it is to be heard; see [`Streams::open`].
    pub(super) end: CancellationToken,
    pub(super) silence: CancellationToken,
    pub(super) runtime: Runtime,
    pub(super) limit: Duration,
    pub(super) node: u64,
    pub(super) target: u64,
    pub(super) grants: Arc<Grants>,
    pub(super) standings: Arc<Standings>,
    pub(super) entry_wanted: Arc<Notify>,
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
            let due = !self.shared.sent.lock().is_empty();
            let message = self.runtime.timeout(self.limit, self.inbound.message());
            let heard = tokio::select! {
                biased;
                () = self.end.cancelled() => return Some(Err(self.ended())),
                heard = message => heard,
            };
            match heard {
                Ok(Ok(Some(message))) => return Some(self.answer(message)),
                Ok(Ok(None)) if self.shared.sent.lock().is_empty() => return None,
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

    fn ended(&self) -> RpcError {
        if self.silence.is_cancelled() {
            silent()
        } else {
            left_behind()
        }
    }

    fn answer(&self, message: wire::AppendResponse) -> Result<AppendResult, RpcError> {
        let asked = self.shared.hear(&message);
        let asked = asked.ok_or_else(|| malformed(&"an answer that nobody asked for"))?;
        self.standings
            .hear_answer(self.target, message.standing.as_ref())?;
        self.grants.told(self.target, message.granted_lease_ms);
        if message.wants_entry {
            self.entry_wanted.notify_one();
        }
        let result = convert::append_result_from_wire(message, asked.prev, asked.last)
            .map_err(|error| malformed(&error))?;
        if result.is_ok() {
            let now = self.runtime.now();
            self.grants.accepted(self.target, asked.stamp, now);
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cluster::{ClusterId, NodeId};
    use futures::FutureExt as _;
    use futures::channel::mpsc;
    use openraft::EntryPayload;

    use vfs::SimDisk;

    use crate::network::block::Packer;
    use crate::network::standing::tests::member;
    use crate::network::{Channels, Context};
    use crate::raft::{Command, Entry, log_id, vote};

    fn context() -> SharedContext {
        let runtime = Runtime::real();
        Arc::new(Context {
            channels: Channels::new(&runtime),
            runtime,
            cluster: ClusterId([7; 16]),
            node: NodeId(1),
            packer: Packer::default(),
            addresses: parking_lot::RwLock::default(),
        })
    }

    fn request() -> AppendRequest {
        AppendRequest {
            vote: vote(3, 1, true),
            prev_log_id: Some(log_id(3, 6)),
            entries: vec![Entry {
                log_id: log_id(3, 7),
                payload: EntryPayload::Normal(Command(Bytes::from(vec![b'a'; 5000]))),
            }],
            leader_commit: None,
        }
    }

    fn answer(takes_blocks: bool) -> wire::AppendResponse {
        wire::AppendResponse {
            takes_blocks,
            ..wire::AppendResponse::default()
        }
    }

    #[tokio::test]
    async fn blocks_are_sent_on_streams_on_which_the_peer_has_said_that_it_takes_them() {
        let context = context();
        let open = || {
            let (sender, receiver) = mpsc::unbounded();
            let grants = Arc::new(Grants::new(Duration::from_secs(1)));
            let (messages, shared) = requests(
                receiver,
                wire::Envelope::default(),
                Arc::clone(&context),
                grants,
                member(1, 10, SimDisk::new()).standings,
            );
            let mut messages = messages.boxed();
            let send = move || {
                sender.unbounded_send(request()).unwrap();
                let message = messages.next().now_or_never().unwrap().unwrap();
                assert_eq!(message.block.is_some(), message.entries.is_empty());
                message.block.is_some()
            };
            (send, shared)
        };
        let (mut send, shared) = open();
        assert!(!send(), "the first of a stream");
        assert!(!send(), "nothing was said yet");
        assert!(shared.hear(&answer(false)).is_some());
        assert!(!send(), "the peer is an older program");
        assert!(shared.hear(&answer(true)).is_some());
        assert!(send());
        assert_eq!(shared.sent.lock().len(), 2);
        // What was said on one stream is forgotten on the next.
        let (mut send, _) = open();
        assert!(!send());
    }
}
