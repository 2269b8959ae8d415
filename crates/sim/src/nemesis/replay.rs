//! Requests that are delivered again, seconds later; see [`crate::net::Net::replay`].

use std::time::Duration;

use super::Nemesis;
use super::effect::Effect;
use super::kind::Kind;
use crate::cast;
use crate::world::World;

/// How many connections are delivered again as the faults end, for what has healed to meet late messages, too.
const AT_THE_END: usize = 4;
/// So much faster than the first time a connection is delivered as the faults end: at once.
const AT_ONCE: u32 = 1_000_000;

impl Nemesis {
    /// Delivers a connection again, at its old pace or faster.
    pub(super) fn replay(&mut self, world: &World) -> Effect {
        let faster = self.dice.pick(&[1, 4, 20, 200]).unwrap_or(1);
        self.replay_once(world, faster)
    }

    /// Delivers what is left of all connections that are being delivered again, and some more, all at once.
    pub(super) fn end_replays(&mut self, world: &World) {
        world.net.finish_replays();
        if self.kinds.contains(&Kind::Replay) {
            for _ in 0..AT_THE_END {
                self.replay_once(world, AT_ONCE);
            }
        }
    }

    fn replay_once(&mut self, world: &World, faster: u32) -> Effect {
        let Some(replay) = world.net.replay(faster) else {
            return Effect::None;
        };
        let text = format!("{replay:?}, {faster} times faster");
        world.trace.note(world.now, &text);
        // What shard servers say to others asks for no write.
        if !cast::serves_shards(replay.from) {
            self.sent_again = self.sent_again.max(replay.until + Duration::from_millis(1));
        }
        Effect::Read(replay.id)
    }
}
