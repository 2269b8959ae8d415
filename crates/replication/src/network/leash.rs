//! A stream that can be taken away from whoever holds it.
//!
//! The requests of a call are handed to HTTP/2, which goes on asking for more after the call was given up, until the other side says
//! that it does not want them. Raft asks for the requests of its next call meanwhile, from the same place: what the old call takes
//! then is sent to nobody, and the peer waits for it until something else is written.
//!
//! What always holds: once the [`Leash`] is dropped the stream is gone, and nothing is taken from it any more.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;

struct Held<S> {
    stream: Mutex<Option<S>>,
    holder: AtomicWaker,
}

/// Takes the stream away when it is dropped.
pub(super) struct Leash(Arc<dyn TakeAway>);

trait TakeAway: Send + Sync {
    fn take_away(&self);
}

impl<S: Send> TakeAway for Held<S> {
    fn take_away(&self) {
        let stream = self.stream.lock().take();
        drop(stream);
        self.holder.wake();
    }
}

impl fmt::Debug for Leash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Leash")
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.take_away();
    }
}

/// The stream, as whoever is to be rid of it gets it.
pub(super) struct Leashed<S>(Arc<Held<S>>);

/// Puts a stream on a leash.
pub(super) fn leash<S>(stream: S) -> (Leashed<S>, Leash)
where
    S: Stream + Send + Unpin + 'static,
{
    let held = Arc::new(Held {
        stream: Mutex::new(Some(stream)),
        holder: AtomicWaker::new(),
    });
    (Leashed(Arc::clone(&held)), Leash(held))
}

impl<S: Stream + Unpin> Stream for Leashed<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.holder.register(context.waker());
        match self.0.stream.lock().as_mut() {
            Some(stream) => stream.poll_next_unpin(context),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::channel::mpsc;

    #[test]
    fn what_was_taken_away_gives_nothing_more() {
        let (sender, receiver) = mpsc::unbounded();
        let (mut leashed, leash) = leash(receiver);
        sender.unbounded_send(1).unwrap();
        assert_eq!(leashed.next().now_or_never(), Some(Some(1)));
        assert_eq!(leashed.next().now_or_never(), None);
        sender.unbounded_send(2).unwrap();
        drop(leash);
        assert!(sender.is_closed(), "it is gone at once");
        assert_eq!(leashed.next().now_or_never(), Some(None));
    }

    #[tokio::test]
    async fn whoever_waits_for_more_is_told() {
        let (_sender, receiver) = mpsc::unbounded::<u8>();
        let (mut leashed, leash) = leash(receiver);
        let waits = async move { leashed.next().await };
        let (told, ()) = futures::join!(waits, async move { drop(leash) });
        assert_eq!(told, None);
    }
}
