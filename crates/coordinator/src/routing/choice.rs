//! Which replica of a shard a request asks next. Pure: from what the map says, what this request has seen, and hints.
//!
//! What always holds: a replica that failed in this request is asked again only after the others were, several times; a hint is
//! followed as long as following it brings something new, so that two replicas that name each other do not keep a request busy.

use cluster::NodeId;

/// A replica that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) voter: bool,
    /// It failed lately, in whatever request.
    pub(super) suspect: bool,
}

/// What one request has seen of the replicas of one shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Tries {
    nodes: Vec<(NodeId, Seen)>,
    /// Who leads, by the last answer that named somebody.
    hint: Option<NodeId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    asked: u32,
    /// The connection failed.
    broken: u32,
    /// It said nothing for as long as a try may take.
    silent: u32,
    /// Its data is lost or damaged.
    damaged: bool,
}

/// How a try failed, as far as the next choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node answered that it cannot serve this; it may have named the leader.
    Refused { leader: Option<NodeId> },
    /// The node was not reached, or ended under the request.
    Broken,
    /// No answer came in time.
    Silent,
    /// The node answered that its data is lost or damaged.
    Damaged,
}

/// What each thing that speaks against a replica weighs. A hint outweighs one try that was answered; a silent replica is
/// left alone for the rest of most requests, because asking it takes so long, and a damaged one, because it does not mend that fast.
const ASKED: u32 = 2;
const BROKEN: u32 = 4;
const SILENT: u32 = 16;
const DAMAGED: u32 = 16;
const SUSPECT: u32 = 4;
const HINT: u32 = 3;

impl Tries {
    /// Notes a failed try.
    pub(super) fn note(&mut self, node: NodeId, failure: Failure) {
        let place = self.nodes.iter().position(|(known, _)| *known == node);
        let place = place.unwrap_or_else(|| {
            self.nodes.push((node, Seen::default()));
            self.nodes.len() - 1
        });
        let Some((_, seen)) = self.nodes.get_mut(place) else {
            return;
        };
        seen.asked += 1;
        match failure {
            Failure::Refused { leader } => self.hint = leader.or(self.hint),
            Failure::Broken => seen.broken += 1,
            Failure::Silent => seen.silent += 1,
            Failure::Damaged => seen.damaged = true,
        }
        if self.hint == Some(node) {
            self.hint = None;
        }
    }

    /// How often a node was asked in this request.
    pub(super) fn asked(&self, node: NodeId) -> u32 {
        self.seen(node).asked
    }

    /// How many nodes have said that their data is lost or damaged.
    pub(super) fn damaged(&self) -> usize {
        self.nodes.iter().filter(|(_, seen)| seen.damaged).count()
    }

    fn seen(&self, node: NodeId) -> Seen {
        let found = self.nodes.iter().find(|(known, _)| *known == node);
        found.map_or_else(Seen::default, |(_, seen)| *seen)
    }

    fn weight(&self, at: &Candidate) -> u32 {
        let seen = self.seen(at.node);
        let suspect = if at.suspect { SUSPECT } else { 0 };
        let damaged = if seen.damaged { DAMAGED } else { 0 };
        seen.asked * ASKED + seen.broken * BROKEN + seen.silent * SILENT + damaged + suspect
    }

    /// The replica that leads, or may: only a voter can. `leader` is the hint from elsewhere.
    pub(super) fn leader(
        &self,
        candidates: &[Candidate],
        leader: Option<NodeId>,
    ) -> Option<NodeId> {
        let hint = self.hint.or(leader);
        let weight = |at: &&Candidate| {
            let seen = self.seen(at.node);
            let is_hinted =
                hint == Some(at.node) && seen.broken + seen.silent == 0 && !seen.damaged;
            let bonus = if is_hinted { HINT } else { 0 };
            (!at.voter && !is_hinted, HINT + self.weight(at) - bonus)
        };
        candidates.iter().min_by_key(weight).map(|at| at.node)
    }

    /// Any replica: those that did not fail first, and among equals by turns.
    pub(super) fn any(&self, candidates: &[Candidate], turn: usize) -> Option<NodeId> {
        let count = candidates.len().max(1);
        let weight = |(place, at): &(usize, &Candidate)| {
            let place = (place + count - turn % count) % count;
            // Who has no vote may still be catching up.
            (self.weight(at), !at.voter, place)
        };
        let chosen = candidates.iter().enumerate().min_by_key(weight);
        chosen.map(|(_, at)| at.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn three() -> Vec<Candidate> {
        [A, B, C]
            .map(|node| Candidate {
                node,
                voter: true,
                suspect: false,
            })
            .to_vec()
    }

    fn refused(leader: Option<NodeId>) -> Failure {
        Failure::Refused { leader }
    }

    /// Whom a request asks, where every answer is as `answer` says.
    fn asked(
        known: Option<NodeId>,
        rounds: usize,
        answer: impl Fn(NodeId) -> Failure,
    ) -> Vec<NodeId> {
        let mut tries = Tries::default();
        let mut order = Vec::new();
        for _ in 0..rounds {
            let node = tries.leader(&three(), known).unwrap();
            tries.note(node, answer(node));
            order.push(node);
        }
        order
    }

    #[test]
    fn the_leader_is_asked_first_and_whom_an_answer_names_next() {
        assert_eq!(asked(Some(C), 1, |_| refused(None)), [C]);
        let answer = |node| refused((node == C).then_some(B));
        assert_eq!(asked(Some(C), 2, answer), [C, B]);
    }

    #[test]
    fn replicas_that_name_each_other_do_not_keep_a_request_busy() {
        let answer = |node| match node {
            A => refused(Some(B)),
            B => refused(Some(A)),
            _ => refused(None),
        };
        assert!(asked(None, 8, answer).contains(&C));
    }

    #[test]
    fn one_that_became_leader_after_it_was_asked_is_asked_again() {
        let mut tries = Tries::default();
        tries.note(B, refused(None));
        tries.note(C, refused(Some(B)));
        assert_eq!(tries.leader(&three(), None), Some(B));
    }

    #[test]
    fn a_dead_leader_whom_all_still_name_is_left_alone() {
        let answer = |node| match node {
            A => Failure::Broken,
            _ => refused(Some(A)),
        };
        let order = asked(Some(A), 6, answer);
        assert_eq!(order[0], A);
        assert!(!order[1..].contains(&A), "{order:?}");
        assert!(asked(Some(A), 20, answer)[1..].contains(&A), "not for ever");
        let silent = |node| match node {
            A => Failure::Silent,
            _ => refused(Some(A)),
        };
        assert!(!asked(Some(A), 16, silent)[1..].contains(&A));
    }

    #[test]
    fn a_suspect_is_asked_last_and_asked_all_the_same() {
        let mut candidates = three();
        candidates[0].suspect = true;
        let mut tries = Tries::default();
        let mut order = Vec::new();
        for _ in 0..3 {
            let node = tries.leader(&candidates, Some(A)).unwrap();
            tries.note(node, refused(Some(A)));
            order.push(node);
        }
        assert_eq!(order, [B, C, A]);
        candidates.truncate(1);
        assert_eq!(Tries::default().any(&candidates, 7), Some(A));
    }

    #[test]
    fn reads_of_any_replica_take_turns_and_leave_failed_ones_out() {
        let mut tries = Tries::default();
        let turns: Vec<_> = (0..4).map(|turn| tries.any(&three(), turn)).collect();
        assert_eq!(turns, [Some(A), Some(B), Some(C), Some(A)]);
        tries.note(B, Failure::Broken);
        assert!((0..6).all(|turn| tries.any(&three(), turn) != Some(B)));
    }

    #[test]
    fn one_without_a_vote_leads_nothing() {
        let mut candidates = three();
        candidates[0].voter = false;
        let mut tries = Tries::default();
        tries.note(B, Failure::Broken);
        tries.note(C, Failure::Broken);
        assert_ne!(tries.leader(&candidates, None), Some(A));
    }
}
