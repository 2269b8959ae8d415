//! Completions and counts that nobody has to wait for: every part of the prefix, or the term, has a replica in this process that may
//! answer now.
//!
//! Such an answer takes less time than making the futures that could wait for it: they are some kilobytes large, and each is moved into
//! the next.
//!
//! What always holds: what is answered here is what the rounds would answer. Whatever else there is to say, an error or that a part did
//! not answer, is left to them. They ask all parts anew, so that those that did answer count as read twice.

use std::sync::Arc;

use api::Consistency;
use api::v1::{GetCountResponse, GetTopKResponse};
use api::validate::{GetCount, GetTopK};
use cluster::{KeyRange, Namespace, SessionToken, ShardId, ShardMap};
use rpc::Trace;
use runtime::Instant;

use super::reads::{self, min_index};
use super::rounds::{Kind, Rounds};
use super::scatter::{self, Slot};
use super::{Ask, Router, knows};

impl Router {
    /// The answer to GetTopK, if nothing has to be waited for.
    pub(super) fn top_k_at_once(
        &self,
        ask: &GetTopK,
        deadline: Instant,
    ) -> Option<GetTopKResponse> {
        let map = self.map_at_once(ask.consistency, &ask.token)?;
        let namespace = map.namespaces.get(&ask.namespace)?;
        let rounds = Rounds::new(Kind::Read, deadline);
        let parts = map.cover(&ask.namespace, ask.prefix.as_str()).into_iter();
        let slots = parts.map(|part| self.part_at_once(ask, &map, namespace, part, &rounds));
        scatter::assemble(ask, slots.collect::<Option<_>>()?).ok()
    }

    /// The answer to GetCount, if nothing has to be waited for.
    pub(super) fn count_at_once(
        &self,
        ask: &GetCount,
        deadline: Instant,
    ) -> Option<GetCountResponse> {
        let map = self.map_at_once(ask.consistency, &ask.token)?;
        let namespace = map.namespaces.get(&ask.namespace)?;
        let shard = map.owner(&ask.namespace, ask.term.as_str());
        let min_index = min_index(&map, &ask.token, shard).ok()?;
        let rounds = Rounds::new(Kind::Read, deadline);
        let to = Ask {
            map: &map,
            shard,
            consistency: Some(ask.consistency),
            rounds: &rounds,
        };
        let (place, node, left) = self.choose(&to).ok()?;
        let target = self.target(&to, place, node, left).ok()?;
        let request = reads::request(ask, namespace, min_index, target.route);
        let answer = target.link.count_at_once(request)?;
        self.answered(&to, node);
        Some(reads::counted(answer))
    }

    /// The map for a read that may not have to wait, and whose token names nothing that is missing in it.
    fn map_at_once(&self, consistency: Consistency, token: &SessionToken) -> Option<Arc<ShardMap>> {
        let waits = consistency == Consistency::Linearizable;
        // Who follows a request wants a line of each server that it passes.
        if waits || !self.nodes.may_be_near() || Trace::current().is_some() {
            return None;
        }
        self.meta.map().filter(|map| knows(map, token))
    }

    fn part_at_once(
        &self,
        ask: &GetTopK,
        map: &ShardMap,
        namespace: &Namespace,
        (range, shard): (KeyRange, ShardId),
        rounds: &Rounds,
    ) -> Option<Slot> {
        let min_index = min_index(map, &ask.token, shard).ok()?;
        let to = Ask {
            map,
            shard,
            consistency: Some(ask.consistency),
            rounds,
        };
        let (place, node, left) = self.choose(&to).ok()?;
        let target = self.target(&to, place, node, left).ok()?;
        let request = scatter::request(ask, namespace, &range, min_index, target.route);
        let answer = target.link.top_k_at_once(request)?;
        let part = scatter::checked(ask, answer, (&range, shard), node).ok()?;
        self.answered(&to, node);
        Some(Slot::tried(range, shard, Ok(part)))
    }
}
