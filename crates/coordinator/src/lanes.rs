//! Request ids for callers that set none, so that a retry on the hop from here to the shard takes effect once.
//!
//! Each lane is a client of its own in the shards' repeat tables, with an id drawn when the process starts: several, so that
//! writes do not queue for one number, and so that one slow write keeps only its own lane from being settled. What a
//! ticket was drawn for is settled when the ticket is dropped: by then it was answered, or given up for good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::RequestId;
use parking_lot::Mutex;
use runtime::Runtime;

const LANES: usize = 16;

/// Draws request ids.
#[derive(Debug)]
pub(crate) struct Lanes {
    runtime: Runtime,
    lanes: Vec<Arc<Lane>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    client: [u8; 16],
    /// Held for a few instructions, by whoever draws or drops a ticket.
    state: Mutex<LaneState>,
}

#[derive(Debug, Default)]
struct LaneState {
    next: u64,
    unsettled: BTreeSet<u64>,
}

/// A request id in use. Its number counts as unsettled until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    lane: Arc<Lane>,
    id: RequestId,
}

impl Lanes {
    pub(crate) fn new(runtime: Runtime) -> Self {
        let lane = |_| {
            Arc::new(Lane {
                client: runtime.random_id(),
                state: Mutex::default(),
            })
        };
        Self {
            lanes: (0..LANES).map(lane).collect(),
            next: AtomicUsize::new(0),
            runtime,
        }
    }

    /// A fresh id, issued now.
    pub(crate) fn draw(&self) -> Ticket {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LANES;
        let lane = self.lanes.get(turn).map(Arc::clone).unwrap_or_else(|| {
            // `turn` is below the number of lanes; a lane of its own would be right all the same.
            Arc::new(Lane {
                client: self.runtime.random_id(),
                state: Mutex::default(),
            })
        });
        let issued_at_ms = self.runtime.wall_ms().max(0);
        let mut state = lane.state.lock();
        let sequence = state.next;
        state.next += 1;
        state.unsettled.insert(sequence);
        let acked_below = state.unsettled.first().copied().unwrap_or(sequence);
        drop(state);
        let id = RequestId {
            client: lane.client,
            sequence,
            issued_at_ms,
            acked_below,
        };
        Ticket { lane, id }
    }
}

impl Ticket {
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lane.state.lock().unsettled.remove(&self.id.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_drawn_twice_and_settle_when_they_are_dropped() {
        let lanes = Lanes::new(Runtime::real());
        let mut held: Vec<Ticket> = (0..3 * LANES).map(|_| lanes.draw()).collect();
        let mut seen: Vec<_> = held
            .iter()
            .map(|at| (at.id().client, at.id().sequence))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * LANES);
        assert!(held.iter().all(|at| at.id().acked_below == 0));

        // The first lane has drawn 0, 1 and 2. As long as 0 is out, nothing is settled.
        let first = held.remove(0);
        drop(held);
        let mut drawn: Vec<Ticket> = (0..LANES).map(|_| lanes.draw()).collect();
        assert_eq!(drawn[0].id().client, first.id().client);
        assert_eq!(drawn[0].id().acked_below, 0);
        assert_eq!(drawn[1].id().acked_below, 3);
        drop(first);
        drawn.truncate(1);
        let again: Vec<Ticket> = (0..LANES).map(|_| lanes.draw()).collect();
        assert_eq!((again[0].id().sequence, again[0].id().acked_below), (4, 3));
    }
}
