//! The table and its rules.

use crate::chunk_map::ChunkMap;
use crate::{AppliedItems, ClientId, RememberError, RequestId};

#[cfg(test)]
mod tests;

/// What an entry counts for: its place in the table and in the order of dropping, with the slack of the chunks.
const ENTRY_BYTES: u64 = 160;
/// What a set of items counts for when it does not fit into its entry.
const LARGE_SET_BYTES: u64 = 160;
/// What a client counts for, with its place in the order of dropping.
const CLIENT_BYTES: u64 = 112;

/// What the table says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen: apply all of it.
    New,
    /// Seen before with the same payload: apply what is not among `items`.
    Repeat {
        /// The items applied so far, by their numbers in the whole batch.
        items: AppliedItems,
        /// What was remembered with it first.
        outcome: u8,
    },
    /// Seen before with another payload: refuse it.
    OtherPayload,
    /// Settled, or too old to tell whether it was seen: refuse it.
    Expired {
        /// The mark: what was issued at or before it and is not known is expired. None if it was settled by its client and the cap
        /// never dropped anything.
        mark_ms: Option<i64>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) fingerprint: u64,
    pub(crate) issued_at_ms: i64,
    pub(crate) items: AppliedItems,
    pub(crate) outcome: u8,
}

impl Entry {
    fn bytes(&self) -> u64 {
        ENTRY_BYTES
            + if self.items.is_large() {
                LARGE_SET_BYTES
            } else {
                0
            }
    }

    /// What two shards know of one request, put together. Symmetric.
    fn union(&self, other: &Self) -> Self {
        let (kept, dropped) = if other.fingerprint < self.fingerprint {
            (other, self)
        } else {
            (self, other)
        };
        let same = kept.fingerprint == dropped.fingerprint;
        Self {
            fingerprint: kept.fingerprint,
            issued_at_ms: kept.issued_at_ms.max(dropped.issued_at_ms),
            items: kept.items.union(&dropped.items),
            outcome: if same {
                kept.outcome.max(dropped.outcome)
            } else {
                kept.outcome
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) acked_below: u64,
    /// The newest `issued_at_ms` of all that was remembered for it.
    pub(crate) newest_issued_ms: i64,
    pub(crate) entries: u32,
}

/// The contents of a table at one moment. Cheap to take, independent of later writes, and made to be encoded beside them.
#[derive(Debug, Clone)]
pub struct TableView {
    pub(crate) cap_bytes: u64,
    pub(crate) mark_ms: Option<i64>,
    pub(crate) bytes: u64,
    pub(crate) clients: ChunkMap<ClientId, Client>,
    pub(crate) entries: ChunkMap<(ClientId, u64), Entry>,
}

/// A place in the order of dropping. The field order is the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    issued_at_ms: i64,
    client: ClientId,
    /// None for the client's own record, which has a place while it has no entries.
    sequence: Option<u64>,
}

/// The table. See the crate's documentation for its rules.
#[derive(Debug, Clone)]
pub struct RepeatTable {
    state: TableView,
    order: ChunkMap<Place, ()>,
}

impl RepeatTable {
    /// An empty table. The cap is part of the replicated state: all replicas must be given the same.
    #[must_use]
    pub fn new(cap_bytes: u64) -> Self {
        let state = TableView {
            cap_bytes,
            mark_ms: None,
            bytes: 0,
            clients: ChunkMap::default(),
            entries: ChunkMap::default(),
        };
        Self {
            state,
            order: ChunkMap::default(),
        }
    }

    /// Looks a request up. Changes nothing.
    #[must_use]
    pub fn check(&self, id: &RequestId, fingerprint: u64) -> Verdict {
        let expired = Verdict::Expired {
            mark_ms: self.state.mark_ms,
        };
        if !id.is_well_formed() {
            return expired;
        }
        if let Some(entry) = self.state.entries.get(&(id.client, id.sequence)) {
            if entry.fingerprint != fingerprint {
                return Verdict::OtherPayload;
            }
            return Verdict::Repeat {
                items: entry.items.clone(),
                outcome: entry.outcome,
            };
        }
        let settled = self
            .state
            .clients
            .get(&id.client)
            .is_some_and(|client| id.sequence < client.acked_below);
        let below_mark = self
            .state
            .mark_ms
            .is_some_and(|mark| id.issued_at_ms <= mark);
        if settled || below_mark {
            expired
        } else {
            Verdict::New
        }
    }

    /// Whether an item of a request is remembered as applied.
    #[must_use]
    pub fn is_applied(&self, id: &RequestId, item: u32) -> bool {
        self.state
            .entries
            .get(&(id.client, id.sequence))
            .is_some_and(|entry| entry.items.contains(item))
    }

    /// Remembers items of a request as applied, by their numbers in the whole batch, in addition to those remembered before. Of
    /// several calls for one request, the first sets the outcome. Then drops what the client has settled, and then, above the cap,
    /// what was issued longest ago. That may be this very request, if all others are newer.
    ///
    /// # Errors
    ///
    /// Refuses, without effect, a request that [`Self::check`] refuses, and an item number that is too high.
    pub fn remember(
        &mut self,
        id: &RequestId,
        fingerprint: u64,
        items: impl IntoIterator<Item = u32>,
        outcome: u8,
    ) -> Result<(), RememberError> {
        let items = AppliedItems::new(items)?;
        let entry = match self.check(id, fingerprint) {
            Verdict::New => Entry {
                fingerprint,
                issued_at_ms: id.issued_at_ms,
                items,
                outcome,
            },
            Verdict::Repeat {
                items: before,
                outcome,
            } => {
                let issued_at_ms = self
                    .state
                    .entries
                    .get(&(id.client, id.sequence))
                    .map_or(id.issued_at_ms, |e| e.issued_at_ms);
                Entry {
                    fingerprint,
                    issued_at_ms,
                    items: before.union(&items),
                    outcome,
                }
            }
            Verdict::OtherPayload => return Err(RememberError::OtherPayload),
            Verdict::Expired { mark_ms: _ } => return Err(RememberError::Expired),
        };
        self.put(id.client, id.sequence, entry);
        self.settle(id.client, id.acked_below);
        self.drop_above_cap();
        Ok(())
    }

    /// Puts all that another table knows into this one. Neither order nor repetition of unions matters, as long as the cap
    /// drops nothing; the cap stays this table's. Where the two know an id with different payloads, which takes a client that breaks its word, the
    /// smaller fingerprint stays.
    pub fn union(&mut self, other: &Self) {
        self.state.mark_ms = self.state.mark_ms.max(other.state.mark_ms);
        for ((client, sequence), entry) in other.state.entries.iter() {
            let known = self.state.entries.get(&(*client, *sequence));
            let entry = known.map_or_else(|| entry.clone(), |known| known.union(entry));
            self.put(*client, *sequence, entry);
        }
        for (id, client) in other.state.clients.iter() {
            self.note_client(*id, client.newest_issued_ms);
            self.settle(*id, client.acked_below);
        }
        for id in self
            .state
            .clients
            .iter()
            .map(|&(id, _)| id)
            .collect::<Vec<_>>()
        {
            // Settling by the other table's word reaches this table's entries above; the other way round is here.
            let acked_below = self
                .state
                .clients
                .get(&id)
                .map_or(0, |client| client.acked_below);
            self.settle(id, acked_below);
        }
        self.drop_above_cap();
    }

    /// Changes the cap, and drops what is above it. As with [`Self::new`], all replicas must do so at the same place in the log.
    pub fn set_cap_bytes(&mut self, cap_bytes: u64) {
        self.state.cap_bytes = cap_bytes;
        self.drop_above_cap();
    }

    /// The contents as they are now, to be encoded while writes go on.
    #[must_use]
    pub fn view(&self) -> TableView {
        self.state.clone()
    }

    /// Memory accounted for, in bytes: a sum of constants, equal on all replicas. At most the cap.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// The cap, in bytes.
    #[must_use]
    pub fn cap_bytes(&self) -> u64 {
        self.state.cap_bytes
    }

    /// Requests remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.entries.len()
    }

    /// Whether no request is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clients known, with and without requests.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.state.clients.len()
    }

    /// The newest `issued_at_ms` that the cap dropped; none if it never dropped anything.
    #[must_use]
    pub fn mark_ms(&self) -> Option<i64> {
        self.state.mark_ms
    }

    /// Builds the order of dropping, which is derived, from decoded contents.
    pub(crate) fn from_state(state: TableView) -> Self {
        let mut order = ChunkMap::default();
        for ((client, sequence), entry) in state.entries.iter() {
            order.insert(
                Place {
                    issued_at_ms: entry.issued_at_ms,
                    client: *client,
                    sequence: Some(*sequence),
                },
                (),
            );
        }
        for (id, client) in state
            .clients
            .iter()
            .filter(|(_, client)| client.entries == 0)
        {
            order.insert(idle_place(*id, client), ());
        }
        Self { state, order }
    }

    /// Inserts or replaces an entry, with its client.
    fn put(&mut self, client: ClientId, sequence: u64, entry: Entry) {
        self.note_client(client, entry.issued_at_ms);
        let place = Place {
            issued_at_ms: entry.issued_at_ms,
            client,
            sequence: Some(sequence),
        };
        self.state.bytes += entry.bytes();
        match self.state.entries.insert((client, sequence), entry) {
            Some(old) => {
                self.state.bytes -= old.bytes();
                self.order.remove(&Place {
                    issued_at_ms: old.issued_at_ms,
                    ..place
                });
            }
            None => self.change_client(client, |client| client.entries += 1),
        }
        self.order.insert(place, ());
    }

    /// Makes sure that a client is known, and has this time of issue behind it.
    fn note_client(&mut self, id: ClientId, issued_at_ms: i64) {
        if self.state.clients.get(&id).is_some() {
            self.change_client(id, |client| {
                client.newest_issued_ms = client.newest_issued_ms.max(issued_at_ms)
            });
            return;
        }
        let client = Client {
            acked_below: 0,
            newest_issued_ms: issued_at_ms,
            entries: 0,
        };
        self.state.clients.insert(id, client);
        self.state.bytes += CLIENT_BYTES;
        self.order.insert(idle_place(id, &client), ());
    }

    /// Changes a client's record, and keeps its place in the order right.
    fn change_client(&mut self, id: ClientId, change: impl FnOnce(&mut Client)) {
        let Some(client) = self.state.clients.get_mut(&id) else {
            return;
        };
        let before = *client;
        change(client);
        let after = *client;
        if before.entries == 0 {
            self.order.remove(&idle_place(id, &before));
        }
        if after.entries == 0 {
            self.order.insert(idle_place(id, &after), ());
        }
    }

    /// Drops a client's entries below a sequence. The mark stays: the client's record refuses them from now on.
    fn settle(&mut self, id: ClientId, acked_below: u64) {
        let settled: Vec<u64> = self
            .state
            .entries
            .range((id, 0)..(id, acked_below))
            .map(|&((_, sequence), _)| sequence)
            .collect();
        for sequence in settled {
            self.remove_entry(id, sequence);
        }
        if self
            .state
            .clients
            .get(&id)
            .is_some_and(|client| client.acked_below < acked_below)
        {
            self.change_client(id, |client| client.acked_below = acked_below);
        }
    }

    fn remove_entry(&mut self, client: ClientId, sequence: u64) {
        let Some(entry) = self.state.entries.remove(&(client, sequence)) else {
            return;
        };
        self.state.bytes -= entry.bytes();
        self.order.remove(&Place {
            issued_at_ms: entry.issued_at_ms,
            client,
            sequence: Some(sequence),
        });
        self.change_client(client, |client| client.entries -= 1);
    }

    /// Drops what was issued longest ago until the table is within its cap, then the records of clients that the mark covers.
    fn drop_above_cap(&mut self) {
        while self.state.bytes > self.state.cap_bytes {
            let Some(&(place, ())) = self.order.first() else {
                return;
            };
            self.drop_place(place);
        }
        while let Some(&(place, ())) = self.order.first() {
            let is_covered =
                place.sequence.is_none() && Some(place.issued_at_ms) <= self.state.mark_ms;
            if !is_covered {
                return;
            }
            self.drop_place(place);
        }
    }

    /// Drops an entry or a client's record, and raises the mark so that what it knew is refused.
    fn drop_place(&mut self, place: Place) {
        self.state.mark_ms = self.state.mark_ms.max(Some(place.issued_at_ms));
        if let Some(sequence) = place.sequence {
            self.remove_entry(place.client, sequence);
            return;
        }
        self.order.remove(&place);
        if self.state.clients.remove(&place.client).is_some() {
            self.state.bytes -= CLIENT_BYTES;
        }
    }
}

fn idle_place(id: ClientId, client: &Client) -> Place {
    Place {
        issued_at_ms: client.newest_issued_ms,
        client: id,
        sequence: None,
    }
}

impl TableView {
    /// What these clients and entries count for.
    pub(crate) fn count_bytes(&self) -> u64 {
        let entries: u64 = self.entries.iter().map(|(_, entry)| entry.bytes()).sum();
        entries + CLIENT_BYTES * self.clients.len() as u64
    }
}
