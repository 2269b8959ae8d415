//! Connections whose bytes are delivered again.
//!
//! What a machine sent over a connection, from its beginning on, is a stream of requests by itself: HTTP/2 takes it from anybody. Sent
//! once more over a connection of its own it is every request of that time a second time, seconds later and with all answers going nowhere,
//! or for the first time where the first delivery was held back and given up. Nothing here knows what the bytes mean.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{HostId, Later, Net, State, host_of};

/// What is kept of one connection. A part of a stream means nothing without all that came before it.
const TAPE_BYTES_MAX: usize = 256 << 10;
/// What one piece takes besides its bytes.
const PIECE_BYTES: usize = 64;
/// Connections that are kept.
const TAPES_MAX: usize = 96;
/// How old a connection is at least when it is delivered again.
const AGE_MIN: Duration = Duration::from_secs(1);
/// How long a connection stays after its last byte, so that what it asked for can happen.
const LINGER: Duration = Duration::from_secs(3);

/// What was sent over a connection from its beginning on, and when.
pub(super) struct Tape {
    from: HostId,
    to: SocketAddr,
    began: Duration,
    pieces: Vec<(Duration, Bytes)>,
    bytes: usize,
}

/// A connection that is being delivered again.
pub(super) struct Playing {
    /// The pipe to the machine, and the one back.
    pub(super) there: u64,
    back: u64,
    /// What is still to be sent, and when.
    pieces: VecDeque<(Duration, Bytes)>,
    ends: Duration,
}

/// A connection that begins to be delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Its number, for [`Net::was_read`].
    pub(crate) id: u64,
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    /// How many bytes.
    pub(crate) bytes: usize,
    /// What is sent again was first sent between these times.
    pub(crate) began: Duration,
    pub(crate) until: Duration,
}

impl Net {
    /// Begins to deliver a connection again, so many times faster than the first time.
    pub(crate) fn replay(&self, faster: u32) -> Option<Replay> {
        let mut later = Later::default();
        let replay = self.0.lock().replay(faster, &mut later);
        later.settle();
        replay
    }

    /// Whether anything of a connection that is delivered again was read.
    pub(crate) fn was_read(&self, id: u64) -> bool {
        let state = self.0.lock();
        state.pipes.get(&id).is_some_and(|pipe| pipe.was_read)
    }

    /// Delivers at once what is left of all connections that are being delivered again.
    pub(crate) fn finish_replays(&self) {
        let mut state = self.0.lock();
        let now = state.now;
        for playing in &mut state.playing {
            for (due, _) in &mut playing.pieces {
                *due = now.min(*due);
            }
            playing.ends = now + LINGER;
        }
    }
}

impl State {
    /// Begins to keep what is sent over a connection.
    pub(super) fn record(&mut self, there: u64, from: HostId, to: SocketAddr) {
        if self.tapes.len() >= TAPES_MAX {
            let old: Vec<u64> = self.tapes.keys().copied().collect();
            if let Some(id) = self.dice.pick(&old) {
                self.tapes.remove(&id);
            }
        }
        let tape = Tape {
            from,
            to,
            began: self.now,
            pieces: Vec::new(),
            bytes: 0,
        };
        self.tapes.insert(there, tape);
    }

    /// Keeps a piece of what is sent over a connection, as long as everything before it was kept.
    pub(super) fn keep(&mut self, there: u64, data: &Bytes) {
        let Some(tape) = self.tapes.get_mut(&there) else {
            return;
        };
        // Once it is full it stays so: a smaller piece that would fit has one missing before it.
        tape.bytes += data.len() + PIECE_BYTES;
        if tape.bytes <= TAPE_BYTES_MAX {
            tape.pieces.push((self.now, data.clone()));
        }
    }

    fn can_be_replayed(&self, tape: &Tape) -> bool {
        tape.began + AGE_MIN <= self.now
            && !tape.pieces.is_empty()
            && self.listening.contains_key(&tape.to)
            && !self.is_cut(tape.from, host_of(tape.to))
    }

    fn replay(&mut self, faster: u32, later: &mut Later) -> Option<Replay> {
        let now = self.now;
        let all = self.tapes.iter();
        let possible = all.filter(|(_, tape)| self.can_be_replayed(tape));
        let possible: Vec<u64> = possible.map(|(id, _)| *id).collect();
        let id = self.dice.pick(&possible)?;
        let tape = self.tapes.get(&id)?;
        let (from, to, began) = (tape.from, tape.to, tape.began);
        let paced = tape.pieces.iter().map(|(sent, data)| {
            let after = sent.saturating_sub(began) / faster.max(1);
            (now + after, data.clone())
        });
        let pieces: VecDeque<(Duration, Bytes)> = paced.collect();
        let until = tape.pieces.last().map_or(began, |(sent, _)| *sent);
        let bytes = pieces.iter().map(|(_, data)| data.len()).sum();
        let (there, back) = self.open(from, to, later)?;
        if let Some(pipe) = self.pipes.get_mut(&back) {
            pipe.swallows = true;
        }
        let ends = pieces.back().map_or(now, |(due, _)| *due) + LINGER;
        self.playing.push(Playing {
            there,
            back,
            pieces,
            ends,
        });
        Some(Replay {
            id: there,
            from,
            to: host_of(to),
            bytes,
            began,
            until,
        })
    }

    /// Sends what is due of connections that are being delivered again.
    pub(super) fn play_due(&mut self) {
        let now = self.now;
        let mut playing = std::mem::take(&mut self.playing);
        playing.retain_mut(|tape| {
            while tape.pieces.front().is_some_and(|(due, _)| *due <= now) {
                let data = tape.pieces.pop_front().map(|(_, data)| data);
                let is_open = self.pipes.get(&tape.there);
                if is_open.is_some_and(|pipe| !pipe.is_reset) && data.is_some() {
                    self.send(tape.there, data);
                }
            }
            let is_over = tape.ends <= now;
            if is_over {
                self.leave(tape.back, tape.there);
            }
            !is_over
        });
        self.playing = playing;
    }
}
