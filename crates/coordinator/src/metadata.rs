//! What the whole cluster agrees on: identities, places, lives of shards, namespaces. A replicated state machine.
//!
//! What always holds:
//! - A node's identity is issued once and never again, whatever becomes of it.
//! - A shard's group is begun from nothing at most once a life ([`ShardRecord::begun`]), and a new life begins only by
//!   [`Command::NewIncarnation`], which names the life it ends: of two that race one is refused.
//! - The members of a shard change by steps that each name the version they were made for ([`Members`]), and of watchdogs that
//!   would recover a shard one at a time has its turn ([`Recoveries`]).
//! - [`cluster::ShardMap::epoch`] rises with every change of what the map shows, and the map that readers see is the one of the
//!   last applied command.
//! - Every decision is taken in [`State::apply`], from the command, the state and the leader's stamp alone.
//!
//! On failure: a command that the rules do not allow is answered with a [`Refusal`] and changes nothing. A command or a
//! snapshot that cannot be read stops the replica.

mod codec;
mod command;
mod coordinators;
mod members;
mod recoveries;
mod response;
mod snapshot;
mod state;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use cluster::ShardMap;
use parking_lot::{Mutex, RwLock};
use replication::{Applied, ApplyError, RestoreError, SnapshotView, StateMachine};

pub use command::{Command, NewLife, Registration, Seed, ShardProgress};
pub use coordinators::{Admission, Coordinators};
pub(crate) use coordinators::{is_first, number_of};
pub use members::{EndedChange, Intent, MemberChange, Members, NewReplicas, REPLICAS_MAX, Settled};
pub use recoveries::{
    ENDED_MAX, EndedTurn, Recoveries, Turn, TurnAnswer, TurnEnd, TurnOutcome, TurnRequest,
    TurnVerdict, Turns,
};
pub use response::{Refusal, Response};
pub use state::{Loss, NODES_MAX, NamespaceRecord, NodeRecord, ShardRecord, State};

/// The state machine: the state behind a lock, and the map published beside it.
#[derive(Debug, Default)]
pub struct Metadata {
    /// Readers hold it for a look-up, the log's apply loop for one command.
    state: RwLock<State>,
    /// The map of the state; replaced whenever its epoch has changed.
    map: ArcSwapOption<ShardMap>,
    /// The newest answers and the indexes of their commands, oldest first, for whoever proposed through another coordinator.
    answers: Mutex<VecDeque<(u64, Response)>>,
}

/// Answers that are kept. They are asked for within moments; what is gone by then has an unknown outcome.
const ANSWERS_MAX: usize = 1_024;

impl Metadata {
    /// The newest map. `None` until the cluster has begun.
    #[must_use]
    pub fn map(&self) -> Option<Arc<ShardMap>> {
        self.map.load_full()
    }

    /// Looks at the state. Must not block: it holds up the next command.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// What was answered to the command at an index, if that was a short while ago.
    #[must_use]
    pub fn answer(&self, index: u64) -> Option<Response> {
        let answers = self.answers.lock();
        let place = answers.binary_search_by_key(&index, |(at, _)| *at).ok()?;
        answers.get(place).map(|(_, response)| response.clone())
    }

    fn remember(&self, index: u64, response: Response) {
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back((index, response));
    }

    fn publish(&self, state: &State) {
        let known = self.map.load();
        if known.as_ref().map(|map| map.epoch) != Some(state.epoch) {
            drop(known);
            self.map.store(state.map().map(Arc::new));
        }
    }
}

impl StateMachine for Metadata {
    type Response = Response;
    type View = View;

    fn apply(
        &self,
        at: Applied,
        stamp_ms: i64,
        kind: u16,
        command: &[u8],
    ) -> Result<Response, ApplyError> {
        let command = Command::decode(kind, command)
            .map_err(|error| ApplyError::Malformed {
                kind,
                problem: error.to_string(),
            })?
            .ok_or(ApplyError::UnknownKind { kind })?;
        let mut state = self.state.write();
        let response = state.apply(stamp_ms, command);
        self.publish(&state);
        drop(state);
        self.remember(at.index, response.clone());
        Ok(response)
    }

    fn view(&self) -> View {
        View(self.state.read().clone())
    }

    fn restore(&self, _: Applied, input: &mut dyn Read) -> Result<(), RestoreError> {
        let restored = snapshot::decode(input)?;
        let mut state = self.state.write();
        *state = restored;
        self.publish(&state);
        Ok(())
    }
}

/// A copy of the state at one index.
#[derive(Debug)]
pub struct View(State);

impl SnapshotView for View {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&snapshot::encode(&self.0))
    }
}

#[cfg(test)]
mod tests;
