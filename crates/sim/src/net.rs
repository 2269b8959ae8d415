//! The network between the machines: connections as pairs of pipes, with latency, cuts and lost connections.
//!
//! A pipe delivers what was written in order, some time later, never twice and never changed, as TCP does. While a link is cut, what
//! is on its way waits and is tried again; connecting waits likewise. What was sent over a whole connection may be sent again over
//! another one ([`Net::replay`]). What always holds: nothing moves but in [`Net::deliver`], so that the order of all deliveries follows
//! from the seed.
//!
//! Wakers and connections are dropped only when the lock is free: dropping one may end a task, whose own connections lock again.

mod io;
mod pipe;
mod tape;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::Connection;

use crate::dice::Dice;
use pipe::{Arrival, Pipe};
use tape::{Playing, Tape};

pub(crate) use io::HostNetwork;

/// A machine, as the network knows it: the last byte of its address.
pub(crate) type HostId = u8;

/// How long something waits before it is tried again over a cut link.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// The usual time on the way, in microseconds.
const LATENCY_US: Range<u64> = 200..1_200;

/// The address of a machine.
pub(crate) const fn address(host: HostId, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn host_of(address: SocketAddr) -> HostId {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

/// All connections of a world; clones share them.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

impl fmt::Debug for Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Net").finish_non_exhaustive()
    }
}

struct State {
    own: Weak<Mutex<State>>,
    /// Wakers to be dropped when the lock is free.
    replaced: Vec<Waker>,
    now: Duration,
    dice: Dice,
    next: u64,
    pipes: BTreeMap<u64, Pipe>,
    /// When the first thing on its way in a pipe is due.
    due: BTreeSet<(Duration, u64)>,
    listening: BTreeMap<SocketAddr, Listening>,
    dials: BTreeMap<u64, Dial>,
    /// Directions in which nothing gets through.
    cuts: BTreeSet<(HostId, HostId)>,
    /// Further time on the way.
    slow: BTreeMap<(HostId, HostId), Duration>,
    /// Machines without power.
    dark: BTreeSet<HostId>,
    /// What was sent over each of some connections, by the pipe that it was sent through.
    tapes: BTreeMap<u64, Tape>,
    playing: Vec<Playing>,
    /// How often something was held back on a way by a cut or a lost connection, or took longer than usual.
    hindered: BTreeMap<(HostId, HostId), u64>,
    stats: NetStats,
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NetStats {
    /// Pieces of data that arrived.
    pub(crate) delivered: u64,
    /// Times that something was held back by a cut or a lost connection.
    pub(crate) held: u64,
    /// Pieces that took longer than usual.
    pub(crate) delayed: u64,
    /// Depends on every delivery and its time.
    pub(crate) hash: u64,
}

struct Listening {
    generation: u64,
    queue: VecDeque<Connection>,
    waker: Option<Waker>,
}

struct Dial {
    from: HostId,
    to: SocketAddr,
    due: Duration,
    waker: Option<Waker>,
    result: Option<Result<Connection>>,
}

/// What is woken or dropped when the lock is free.
#[derive(Default)]
struct Later {
    wake: Vec<Waker>,
    dropped: Vec<Connection>,
}

impl Later {
    fn settle(self) {
        let Self { wake, dropped } = self;
        drop(dropped);
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Net {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new_cyclic(|own| {
            Mutex::new(State {
                own: Weak::clone(own),
                replaced: Vec::new(),
                now: Duration::ZERO,
                dice,
                next: 0,
                pipes: BTreeMap::new(),
                due: BTreeSet::new(),
                listening: BTreeMap::new(),
                dials: BTreeMap::new(),
                cuts: BTreeSet::new(),
                slow: BTreeMap::new(),
                dark: BTreeSet::new(),
                tapes: BTreeMap::new(),
                playing: Vec::new(),
                hindered: BTreeMap::new(),
                stats: NetStats::default(),
            })
        }))
    }

    /// Delivers all that is due until `now`.
    pub(crate) fn deliver(&self, now: Duration) {
        let mut later = Later::default();
        let replaced = {
            let mut state = self.0.lock();
            state.now = now;
            state.play_due();
            state.connect_due(&mut later);
            state.move_due(&mut later);
            std::mem::take(&mut state.replaced)
        };
        drop(replaced);
        later.settle();
    }

    pub(crate) fn stats(&self) -> NetStats {
        self.0.lock().stats
    }

    /// Cuts a direction, or heals it.
    pub(crate) fn cut(&self, from: HostId, to: HostId, is_cut: bool) {
        let mut state = self.0.lock();
        if is_cut {
            state.cuts.insert((from, to));
        } else {
            state.cuts.remove(&(from, to));
        }
    }

    /// How often something was held back by a cut or a lost connection, or late, on some ways.
    pub(crate) fn hindered(&self, ways: &[(HostId, HostId)]) -> u64 {
        let state = self.0.lock();
        let times = ways.iter().filter_map(|way| state.hindered.get(way));
        times.sum()
    }

    /// Sets the further time that a direction takes.
    pub(crate) fn slow(&self, from: HostId, to: HostId, by: Duration) {
        self.0.lock().slow.insert((from, to), by);
    }

    /// Ends all cuts and delays.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.cuts.clear();
        state.slow.clear();
    }

    /// Takes a machine's power away, or gives it back. Its connections are not closed: nobody is told.
    pub(crate) fn set_dark(&self, host: HostId, is_dark: bool) {
        let mut state = self.0.lock();
        if is_dark {
            state.dark.insert(host);
        } else {
            state.dark.remove(&host);
        }
    }

    /// Some connections between two machines lose their way without either side being told, as when a router forgets them.
    /// Says how many.
    pub(crate) fn lose(&self, one: HostId, other: HostId) -> usize {
        let mut state = self.0.lock();
        let ends = [(one, other), (other, one)];
        let between = state.pipes.values_mut();
        let lost = between.filter(|pipe| ends.contains(&pipe.ends) && !pipe.lost);
        lost.map(|pipe| pipe.lost = true).count()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.contains(&(from, to)) || self.dark.contains(&to)
    }

    fn latency(&mut self, from: HostId, to: HostId) -> Duration {
        let usual = Duration::from_micros(self.dice.below(LATENCY_US));
        match self.slow.get(&(from, to)) {
            Some(by) if !by.is_zero() => {
                self.stats.delayed += 1;
                *self.hindered.entry((from, to)).or_default() += 1;
                let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
                usual + Duration::from_micros(self.dice.below(by / 2..by))
            }
            Some(_) | None => usual,
        }
    }

    /// Sends a piece of data, or with `None` the end, on its way.
    fn send(&mut self, id: u64, data: Option<bytes::Bytes>) {
        let Some(ends) = self.pipes.get(&id).map(|pipe| pipe.ends) else {
            return;
        };
        if let Some(data) = &data {
            self.keep(id, data);
        }
        let due = self.now + self.latency(ends.0, ends.1);
        if let Some(pipe) = self.pipes.get_mut(&id) {
            let (is_first, due) = pipe.send(due, data);
            if is_first {
                self.due.insert((due, id));
            }
        }
    }

    fn move_due(&mut self, later: &mut Later) {
        while let Some((due, id)) = self.due.first().copied() {
            if due > self.now {
                return;
            }
            self.due.pop_first();
            let Some(pipe) = self.pipes.get(&id) else {
                continue;
            };
            let (from, to) = pipe.ends;
            if pipe.lost || self.is_cut(from, to) {
                self.stats.held += 1;
                if pipe.lost || self.cuts.contains(&(from, to)) {
                    *self.hindered.entry((from, to)).or_default() += 1;
                }
                self.due.insert((self.now + RETRANSMIT, id));
                continue;
            }
            let Some(pipe) = self.pipes.get_mut(&id) else {
                continue;
            };
            match pipe.arrive(self.now) {
                Arrival::Taken(next) => {
                    later.wake.extend(pipe.reader.take());
                    if pipe.swallows {
                        later.wake.extend(pipe.writer.take());
                    }
                    self.due.extend(next.map(|next| (next, id)));
                    let stats = &mut self.stats;
                    stats.delivered += 1;
                    let word = id ^ u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
                    stats.hash =
                        (stats.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
                }
                Arrival::NobodyThere => {
                    let back = pipe.back;
                    self.reset(id, later);
                    self.reset(back, later);
                }
            }
        }
    }

    /// Ends a pipe with an error at both ends.
    fn reset(&mut self, id: u64, later: &mut Later) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.reset();
            later.wake.extend(pipe.reader.take());
            later.wake.extend(pipe.writer.take());
        }
    }

    fn connect_due(&mut self, later: &mut Later) {
        let due: Vec<u64> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.result.is_none() && dial.due <= self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some((from, to)) = self.dials.get(&id).map(|dial| (dial.from, dial.to)) else {
                continue;
            };
            let host = host_of(to);
            let result = if self.is_cut(from, host) || self.is_cut(host, from) {
                self.stats.held += 1;
                for way in [(from, host), (host, from)] {
                    if self.cuts.contains(&way) {
                        *self.hindered.entry(way).or_default() += 1;
                    }
                }
                None
            } else {
                Some(self.connect(from, to, later))
            };
            let again = self.now + RETRANSMIT * 5;
            if let Some(dial) = self.dials.get_mut(&id) {
                match result {
                    None => dial.due = again,
                    Some(result) => {
                        dial.result = Some(result);
                        later.wake.extend(dial.waker.take());
                    }
                }
            }
        }
    }

    fn connect(&mut self, from: HostId, to: SocketAddr, later: &mut Later) -> Result<Connection> {
        let opened = self.open(from, to, later);
        let (there, back) = opened.ok_or_else(|| Error::from(ErrorKind::ConnectionRefused))?;
        self.record(there, from, to);
        Ok(Connection::new(self.io(back, there), Some(to)))
    }

    /// Opens a connection to where somebody listens: the pipe there and the pipe back.
    fn open(&mut self, from: HostId, to: SocketAddr, later: &mut Later) -> Option<(u64, u64)> {
        if !self.listening.contains_key(&to) {
            return None;
        }
        let (there, back) = (self.number(), self.number());
        let host = host_of(to);
        self.pipes.insert(there, Pipe::new((from, host), back));
        self.pipes.insert(back, Pipe::new((host, from), there));
        let far = self.io(there, back);
        if let Some(listening) = self.listening.get_mut(&to) {
            let peer = address(
                from,
                u16::try_from(there % 50_000).unwrap_or_default() + 10_000,
            );
            listening.queue.push_back(Connection::new(far, Some(peer)));
            later.wake.extend(listening.waker.take());
        }
        Some((there, back))
    }
}
