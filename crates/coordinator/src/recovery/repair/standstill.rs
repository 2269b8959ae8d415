//! How long newcomers have stood still: they follow nobody, and get no further with what they have. And how long shards have been without a
//! majority at work.
//!
//! Known to the coordinator that leads, and in its memory only: whoever begins to lead begins to count, and so does one that has not looked for
//! a while. Time in which nobody could be followed does not count for a newcomer.

use std::collections::HashMap;
use std::time::Duration;

use cluster::{NodeId, ShardId};
use runtime::Instant;

use crate::placement::repair::{ShardView, has_majority};

/// After so long without a look nothing is known of what has been meanwhile.
const UNSEEN_MAX: Duration = Duration::from_secs(10);

/// What stands still, as it was at the last look.
#[derive(Debug, Default)]
pub(super) struct Standstills {
    newcomers: HashMap<ShardId, Standstill>,
    /// Shards without a majority, and since when.
    without_majority: HashMap<ShardId, Instant>,
    looked_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Standstill {
    newcomer: (NodeId, u64),
    since: Instant,
}

impl Standstills {
    /// Takes note of how shards look now, and tells them how long their newcomers have stood still, and how long they have had no majority.
    pub(super) fn note(&mut self, now: Instant, shards: &mut [ShardView]) {
        let mut before = std::mem::take(&mut self.newcomers);
        let mut without = std::mem::take(&mut self.without_majority);
        if now.saturating_since(self.looked_at) > UNSEEN_MAX {
            before.clear();
            without.clear();
        }
        self.looked_at = now;
        for shard in shards {
            if !has_majority(shard) {
                let since = without.get(&shard.id).copied().unwrap_or(now);
                shard.without_majority = now.saturating_since(since);
                self.without_majority.insert(shard.id, since);
            }
            let Some(newcomer) = at_a_standstill(shard) else {
                continue;
            };
            let known = before.get(&shard.id);
            let known = known.filter(|known| known.newcomer == newcomer);
            let since = known.map_or(now, |known| known.since);
            shard.standstill = now.saturating_since(since);
            self.newcomers
                .insert(shard.id, Standstill { newcomer, since });
        }
    }
}

/// A newcomer that follows nobody, though there is somebody to follow, and how far it has come.
fn at_a_standstill(shard: &ShardView) -> Option<(NodeId, u64)> {
    let newcomer = shard.pending?.add?;
    let member = shard.members.iter().find(|at| at.node == newcomer)?;
    let is_left_alone = !member.serves && has_majority(shard);
    is_left_alone.then_some((newcomer, member.reached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::repair::{MemberView, Pending};

    fn member(id: u64) -> MemberView {
        MemberView {
            node: NodeId(id),
            voter: id < 4,
            serves: id < 4,
            leads: id == 1,
            follows: None,
            reached: 7,
        }
    }

    /// A shard on nodes 1 to 3, and another node that is to come and does not serve.
    fn coming(newcomer: u64) -> ShardView {
        ShardView {
            id: ShardId(1),
            members: [1, 2, 3, newcomer].map(member).to_vec(),
            pending: Some(Pending {
                add: Some(NodeId(newcomer)),
                votes: true,
                remove: Some(NodeId(2)),
            }),
            standstill: Duration::ZERO,
            without_majority: Duration::ZERO,
            former: Vec::new(),
            former_have_gone: true,
        }
    }

    /// Looks each second at what the shard is then; how long its newcomer has stood still at each look.
    fn told<const COUNT: usize>(shards: [ShardView; COUNT]) -> [u64; COUNT] {
        let (mut standstills, mut second) = (Standstills::default(), 100);
        shards.map(|shard| {
            second += 1;
            let mut shards = [shard];
            let now = Instant::from_origin(Duration::from_secs(second));
            standstills.note(now, &mut shards);
            shards[0].standstill.as_secs()
        })
    }

    #[test]
    fn a_newcomer_stands_still_for_as_long_as_it_hears_nobody_and_gets_no_further() {
        let still = || coming(4);
        assert_eq!(told([still(), still(), still()]), [0, 1, 2]);
        let mut serves = still();
        serves.members[3].serves = true;
        assert_eq!(told([still(), still(), serves, still()]), [0, 1, 0, 0]);
        let further = || {
            let mut further = still();
            further.members[3].reached = 8;
            further
        };
        let steps = [still(), still(), further(), further()];
        assert_eq!(told(steps), [0, 1, 0, 1]);
        assert_eq!(told([still(), still(), coming(5)]), [0, 1, 0]);
        let mut done = still();
        done.pending = None;
        assert_eq!(told([still(), still(), done, still()]), [0, 1, 0, 0]);
    }

    #[test]
    fn time_without_anybody_to_follow_or_without_a_look_does_not_count() {
        let still = || coming(4);
        let mut without = still();
        without.members[0].leads = false;
        assert_eq!(told([still(), still(), without, still()]), [0, 1, 0, 0]);
        let mut standstills = Standstills::default();
        let at = |second: u64| {
            let mut shards = [still()];
            let now = Instant::from_origin(Duration::from_secs(second));
            standstills.note(now, &mut shards);
            shards[0].standstill.as_secs()
        };
        let told = [100, 110, 121, 122].map(at);
        assert_eq!(told, [0, 10, 0, 1]);
    }

    #[test]
    fn time_without_a_majority_ends_with_one_and_counts_only_while_it_is_looked_at() {
        let mut standstills = Standstills::default();
        let mut without = |second: u64, leads: bool| {
            let mut shards = [coming(4)];
            shards[0].members[0].leads = leads;
            let now = Instant::from_origin(Duration::from_secs(second));
            standstills.note(now, &mut shards);
            shards[0].without_majority.as_secs()
        };
        assert_eq!(without(100, true), 0);
        assert_eq!([101, 105, 115].map(|at| without(at, false)), [0, 4, 14]);
        assert_eq!(without(116, true), 0);
        assert_eq!([117, 118].map(|at| without(at, false)), [0, 1]);
        // Another may have led meanwhile.
        assert_eq!([129, 130].map(|at| without(at, false)), [0, 1]);
    }
}
