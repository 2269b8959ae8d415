//! What a leader need not say at once.
//!
//! Once an entry is committed, Raft tells each follower with a request that has no entries, which costs both sides as much as one that
//! has. Under load the next entry follows within moments, and says it too. So a request without entries is kept back for a
//! little while, and dropped when another comes.
//!
//! What always holds: the first request of a stream goes out at once, for it may be a heartbeat or a probe, for whose answer somebody
//! waits; so does what has entries. Order is kept. What is dropped is made needless by a later request of the same stream, which is of
//! the same leader, follows the same entry, and says a commit that is no lower.
//!
//! On failure: a call that is given up takes with it what was kept back, which Raft takes for said. Each heartbeat says the commit too.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::Fuse;
use futures::{FutureExt as _, Stream, StreamExt as _};
use runtime::Runtime;

use crate::raft::AppendRequest;

/// For how long a request without entries is kept back: longer than it takes to write and replicate an entry on a disk that syncs in a
/// tenth of a millisecond, where one client waits for each, and nothing beside a heartbeat. Followers learn of a last commit so much
/// later.
pub(super) const HOLD: Duration = Duration::from_millis(2);

/// The requests of a stream, without those that the next one makes needless.
pub(super) struct Hold<S> {
    runtime: Runtime,
    first: Option<AppendRequest>,
    requests: Fuse<S>,
    kept: Option<AppendRequest>,
    /// When the one that is kept goes out. Set by the first of those that were kept in a row.
    due: Option<BoxFuture<'static, ()>>,
}

impl<S: Stream<Item = AppendRequest>> Hold<S> {
    pub(super) fn new(runtime: Runtime, first: AppendRequest, requests: S) -> Self {
        Self {
            runtime,
            first: Some(first),
            requests: requests.fuse(),
            kept: None,
            due: None,
        }
    }
}

impl<S> fmt::Debug for Hold<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hold").finish_non_exhaustive()
    }
}

impl<S: Stream<Item = AppendRequest> + Unpin> Stream for Hold<S> {
    type Item = AppendRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<AppendRequest>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        loop {
            match self.requests.poll_next_unpin(context) {
                Poll::Ready(Some(request)) if request.entries.is_empty() => {
                    self.kept = Some(request);
                    if self.due.is_none() {
                        let runtime = self.runtime.clone();
                        self.due = Some(async move { runtime.sleep(HOLD).await }.boxed());
                    }
                }
                Poll::Ready(Some(request)) => {
                    (self.kept, self.due) = (None, None);
                    return Poll::Ready(Some(request));
                }
                Poll::Ready(None) => return Poll::Ready(self.kept.take()),
                Poll::Pending => break,
            }
        }
        let is_due = self
            .due
            .as_mut()
            .is_some_and(|due| due.poll_unpin(context).is_ready());
        if !is_due {
            return Poll::Pending;
        }
        self.due = None;
        Poll::Ready(self.kept.take())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::channel::mpsc;
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::{Command, Entry, log_id, vote};

    /// A request after the entry with an index, with one entry or none, that says how far is committed.
    fn request(after: u64, entries: u64, committed: u64) -> AppendRequest {
        let entry = |index| Entry {
            log_id: log_id(3, index),
            payload: EntryPayload::Normal(Command(Bytes::from_static(b"a"))),
        };
        AppendRequest {
            vote: vote(3, 1, true),
            prev_log_id: Some(log_id(3, after)),
            entries: (after + 1..=after + entries).map(entry).collect(),
            leader_commit: Some(log_id(3, committed)),
        }
    }

    fn committed(request: Option<AppendRequest>) -> Option<u64> {
        Some(request?.leader_commit?.index())
    }

    /// A stream whose first request says that 5 is committed, and was taken.
    async fn held() -> (
        mpsc::UnboundedSender<AppendRequest>,
        Hold<mpsc::UnboundedReceiver<AppendRequest>>,
        Runtime,
    ) {
        let runtime = Runtime::real();
        let (sender, receiver) = mpsc::unbounded();
        let mut held = Hold::new(runtime.clone(), request(6, 0, 5), receiver);
        let first = held.next().now_or_never();
        assert_eq!(committed(first.unwrap()), Some(5), "it does not wait");
        (sender, held, runtime)
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_goes_with_the_next_entry() {
        let (sender, mut held, runtime) = held().await;
        let begun = runtime.now();
        for next in [
            request(6, 1, 6),
            request(7, 0, 7),
            request(7, 1, 7),
            request(8, 0, 8),
        ] {
            sender.unbounded_send(next).unwrap();
        }
        drop(sender);
        let mut sent = Vec::new();
        while let Some(next) = held.next().await {
            sent.push((next.entries.len(), committed(Some(next))));
        }
        // The last is sent, be the stream at its end.
        assert_eq!(sent, [(1, Some(6)), (1, Some(7)), (0, Some(8))]);
        assert_eq!(runtime.now(), begun, "nothing of it waits");
        assert!(held.next().await.is_none(), "the end is the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_nothing_follows_goes_after_a_while_and_with_what_was_said_since() {
        let (sender, mut held, runtime) = held().await;
        let begun = runtime.now();
        let waited = || runtime.now().saturating_since(begun);
        sender.unbounded_send(request(7, 0, 6)).unwrap();
        assert!(held.next().now_or_never().is_none(), "it is kept back");
        runtime.sleep(HOLD / 2).await;
        sender.unbounded_send(request(7, 0, 7)).unwrap();
        assert_eq!(committed(held.next().await), Some(7));
        // A second one does not begin the wait anew.
        assert!(waited() < HOLD * 3 / 2, "{:?}", waited());
        assert!(held.next().now_or_never().is_none(), "it was sent once");
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_entry_the_wait_begins_anew() {
        let (sender, mut held, runtime) = held().await;
        sender.unbounded_send(request(7, 0, 6)).unwrap();
        assert!(held.next().now_or_never().is_none());
        runtime.sleep(HOLD * 3 / 4).await;
        sender.unbounded_send(request(7, 1, 7)).unwrap();
        sender.unbounded_send(request(8, 0, 8)).unwrap();
        let entry = held.next().now_or_never().unwrap();
        assert_eq!(committed(entry), Some(7));
        runtime.sleep(HOLD * 3 / 4).await;
        assert!(held.next().now_or_never().is_none(), "it is kept back");
        assert_eq!(committed(held.next().await), Some(8));
    }
}
