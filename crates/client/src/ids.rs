//! Request ids: one client id for a process, sequences, and which of them are settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::v1::RequestId;
use parking_lot::Mutex;

/// Hands out ids. One for each client.
#[derive(Debug)]
pub(crate) struct RequestIds {
    client_id: [u8; 16],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// Handed out and neither answered nor given up. Bounded by the number of operations in flight.
    unsettled: BTreeSet<u64>,
}

impl RequestIds {
    pub(crate) fn new(client_id: [u8; 16]) -> Arc<Self> {
        let state = State {
            next: 1,
            unsettled: BTreeSet::new(),
        };
        Arc::new(Self {
            client_id,
            state: Mutex::new(state),
        })
    }

    /// The next id. It stays unsettled until the guard is dropped.
    pub(crate) fn issue(self: &Arc<Self>, issued_at_ms: i64) -> IssuedId {
        let mut state = self.state.lock();
        let sequence = state.next;
        state.next += 1;
        state.unsettled.insert(sequence);
        let acked_below = state.unsettled.first().copied().unwrap_or(sequence);
        drop(state);
        let id = RequestId {
            client_id: self.client_id.to_vec().into(),
            sequence,
            issued_at_ms,
            acked_below,
        };
        IssuedId {
            ids: Arc::clone(self),
            id,
        }
    }

    fn settle(&self, sequence: u64) {
        self.state.lock().unsettled.remove(&sequence);
    }
}

/// An id in use. Dropping it says that the request was answered or given up, and will not be sent again.
#[derive(Debug)]
pub(crate) struct IssuedId {
    ids: Arc<RequestIds>,
    id: RequestId,
}

impl IssuedId {
    pub(crate) fn id(&self) -> RequestId {
        self.id.clone()
    }
}

impl Drop for IssuedId {
    fn drop(&mut self) {
        self.ids.settle(self.id.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acked_below_is_the_lowest_unsettled_sequence() {
        let ids = RequestIds::new([7; 16]);
        let first = ids.issue(1);
        let second = ids.issue(2);
        let third = ids.issue(3);
        assert_eq!([first.id().sequence, third.id().sequence], [1, 3]);
        assert_eq!(third.id().acked_below, 1);
        drop(second);
        assert_eq!(ids.issue(4).id().acked_below, 1);
        drop(first);
        assert_eq!(ids.issue(5).id().acked_below, 3);
        drop(third);
        let last = ids.issue(6).id();
        assert_eq!((last.sequence, last.acked_below), (6, 6));
    }

    #[test]
    fn an_id_never_lies_below_what_it_settles() {
        let ids = RequestIds::new([7; 16]);
        let mut open = Vec::new();
        for round in 0..50_usize {
            let issued = ids.issue(0);
            assert!(issued.id().acked_below <= issued.id().sequence);
            assert!(
                open.iter()
                    .all(|kept: &IssuedId| kept.id().sequence >= issued.id().acked_below)
            );
            open.push(issued);
            if round % 3 == 1 {
                open.swap_remove(round % open.len());
            }
        }
    }
}
