//! A machine whose monotonic clock is too slow for some seconds, while its timers are right.
//!
//! It lets itself be heard as often as before, so that it goes on leading, and its lease outlasts the loyalty of its followers, of which
//! the margin for clocks is a quarter. Where these do not hear it they elect another one meanwhile, and both answer. So it is mostly cut off
//! from its peers, and clients reach it. What it may answer then is said by [`Nemesis::doubts`].

use std::time::Duration;

use cluster::ShardId;
use replication::Timing;

use super::effect::Effect;
use super::{Nemesis, Step};
use crate::cast;
use crate::net::HostId;
use crate::world::World;

/// How many times too slow such a clock is. Followers are loyal for four thirds of a lease, and may take as long again to elect another leader.
const SLOWNESS: [u32; 3] = [4, 6, 10];

/// A clock that is too slow, or was.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlowClock {
    host: HostId,
    slowness: u32,
    /// When it ran right again.
    righted: Option<Duration>,
}

/// A server that may answer for a shard which another one leads already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubtful {
    pub(crate) shard: ShardId,
    pub(crate) server: HostId,
    /// How long its lease lasts in the world's time.
    pub(crate) lease: Duration,
}

impl Nemesis {
    /// Slows a machine's clock down. There is one such machine at a time.
    pub(super) fn slow_clock(&mut self, world: &mut World, host: HostId) -> Effect {
        let now = world.now;
        let slowness = self.dice.pick(&SLOWNESS).unwrap_or(1);
        let begin = now + self.dice.millis(100..1_000);
        let end = begin + self.dice.millis(1_000..3_500);
        let righted = end + self.dice.millis(0..2_000);
        let is_cut = self.dice.percent(80);
        let is_one_slow = self.slow_clocks.iter().any(|slow| slow.righted.is_none());
        let Some(machine) = world.machine(host).filter(|machine| machine.is_up()) else {
            return Effect::None;
        };
        if is_one_slow {
            return Effect::None;
        }
        machine.knobs.slow_clock(now, slowness);
        let text = format!("{}: {slowness} times too slow a clock", machine.name);
        world.trace.note(now, &text);
        self.slow_clocks.push(SlowClock {
            host,
            slowness,
            righted: None,
        });
        self.later.push((righted, Step::RightClock(host)));
        let peers = if cast::serves_shards(host) {
            self.shape.shard_servers()
        } else {
            self.shape.coordinators()
        };
        for other in peers.iter().filter(|other| is_cut && **other != host) {
            self.part_at(begin, host, *other);
            self.join_at(end, host, *other);
        }
        Effect::AtOnce
    }

    /// Has the clocks of some machines run right again.
    pub(super) fn right_clocks(&mut self, world: &mut World, is_meant: impl Fn(HostId) -> bool) {
        let now = world.now;
        let slow = self.slow_clocks.iter_mut();
        for slow in slow.filter(|slow| slow.righted.is_none() && is_meant(slow.host)) {
            slow.righted = Some(now);
            if let Some(machine) = world.machine(slow.host) {
                machine.knobs.slow_clock(now, 1);
            }
        }
    }

    /// The servers that may have a lease of a shard, since their clocks are too slow or were so when it began, while another one leads it
    /// already.
    pub(crate) fn doubts(&self, world: &World) -> Vec<Doubtful> {
        let lease = Timing::default().lease();
        let has_ended = |righted: Duration| world.now > righted + lease;
        let mut doubts = Vec::new();
        for slow in &self.slow_clocks {
            if slow.righted.is_some_and(has_ended) {
                continue;
            }
            let outlived = world.logs.lock().outlived(slow.host);
            let shards = outlived.into_iter().filter_map(replication::shard_of);
            doubts.extend(shards.map(|shard| Doubtful {
                shard,
                server: slow.host,
                lease: lease * slow.slowness,
            }));
        }
        doubts
    }
}
