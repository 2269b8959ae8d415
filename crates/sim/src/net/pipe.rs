//! One direction of a connection.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;

use super::HostId;

/// Bytes that may be on their way and unread in one direction.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

pub(super) struct Pipe {
    /// From where to where.
    pub(super) ends: (HostId, HostId),
    /// The other direction.
    pub(super) back: u64,
    /// On its way; `None` is the end.
    flying: VecDeque<(Duration, Option<Bytes>)>,
    ready: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    pub(super) is_reset: bool,
    /// Nothing arrives any more, and nobody is told.
    pub(super) lost: bool,
    /// The reading side is gone.
    pub(super) unread: bool,
    /// The writing side is gone.
    pub(super) closed: bool,
    /// Something of it was read.
    pub(super) was_read: bool,
    /// Whatever arrives is thrown away.
    pub(super) swallows: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// What became of what was due.
pub(super) enum Arrival {
    /// It can be read; the time is when the next piece is due.
    Taken(Option<Duration>),
    /// The reading side is gone.
    NobodyThere,
}

impl Pipe {
    pub(super) fn new(ends: (HostId, HostId), back: u64) -> Self {
        Self {
            ends,
            back,
            flying: VecDeque::new(),
            ready: VecDeque::new(),
            bytes: 0,
            ended: false,
            is_reset: false,
            lost: false,
            unread: false,
            closed: false,
            was_read: false,
            swallows: false,
            reader: None,
            writer: None,
        }
    }

    /// How much may be written now.
    pub(super) fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.bytes)
    }

    /// Takes something on its way, behind what is there already. Says whether it is the first, and when it is due.
    pub(super) fn send(&mut self, due: Duration, data: Option<Bytes>) -> (bool, Duration) {
        let due = self.flying.back().map_or(due, |(last, _)| due.max(*last));
        let is_first = self.flying.is_empty();
        self.bytes += data.as_ref().map_or(0, Bytes::len);
        self.flying.push_back((due, data));
        (is_first, due)
    }

    pub(super) fn arrive(&mut self, now: Duration) -> Arrival {
        if self.unread {
            return if matches!(self.flying.front(), Some((_, None))) {
                // An end that nobody waits for is no surprise.
                self.flying.clear();
                Arrival::Taken(None)
            } else {
                Arrival::NobodyThere
            };
        }
        while self.flying.front().is_some_and(|(due, _)| *due <= now) {
            match self.flying.pop_front() {
                Some((_, Some(data))) if self.swallows => self.bytes -= data.len(),
                Some((_, Some(data))) => self.ready.push_back(data),
                Some((_, None)) => self.ended = true,
                None => {}
            }
        }
        Arrival::Taken(self.flying.front().map(|(due, _)| *due))
    }

    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.flying.clear();
        self.ready.clear();
        self.bytes = 0;
    }

    /// Reads what has arrived. `None` when there is nothing yet.
    pub(super) fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Option<()> {
        let Some(first) = self.ready.front_mut() else {
            return self.ended.then_some(());
        };
        self.was_read = true;
        let count = first.len().min(buffer.remaining());
        buffer.put_slice(first.get(..count).unwrap_or_default());
        first.advance(count);
        self.bytes -= count;
        if first.is_empty() {
            self.ready.pop_front();
        }
        Some(())
    }
}
