//! Decides which dead shards to recover now, and which dead processes without replicas to restart. Pure: time, judgements and random
//! numbers come in as values.
//!
//! Written for shards; for processes ([`NodeId`](cluster::NodeId)) the same holds.
//!
//! What always holds:
//! - At most one attempt a shard is open, and at most `max(1, share)` shards are acted upon at once. An attempt gives its place
//!   back as soon as its shard gets on by itself, so that a long replay holds up nobody.
//! - Each shard backs off alone; who waited longest goes first.
//! - Nothing new is begun while most shards look down and nobody else confirms it: then the fault may be ours.
//! - It never gives up: after many attempts it goes on at the longest backoff, and says so.
//!
//! On failure: nothing here can fail.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::ShardId;
use runtime::Instant;

use crate::detector::Health;

#[cfg(test)]
mod tests;

/// When to act, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The longest wait after the first attempt; doubles with each further one.
    pub backoff_min: Duration,
    /// Where the doubling ends.
    pub backoff_max: Duration,
    /// Share of all shards that may be acted upon at once, in percent; one is always allowed.
    pub concurrent_percent: u32,
    /// Attempts without a stable time between them after which a human should look.
    pub alert_after_attempts: u32,
    /// How long a shard must serve for its attempts to be forgotten.
    pub stable_after: Duration,
}

/// What somebody else, the coordinator, says about the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondView {
    /// No coordinator answers, or it has no quorum.
    NoQuorum,
    /// The coordinator's own count of shards that do not serve, or of nodes that are not alive.
    Down {
        /// How many.
        shards: usize,
    },
}

/// Why nothing new is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// Most shards look down, and there is no coordinator with a quorum to ask.
    NoQuorum,
    /// Most shards look down from here, but not to the coordinator.
    SecondViewDisagrees,
}

impl Freeze {
    /// A word for the status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoQuorum => "no_quorum",
            Self::SecondViewDisagrees => "second_view_disagrees",
        }
    }

    /// Whether nothing is to be begun with all of these in this health.
    pub(crate) fn among<K>(health: &BTreeMap<K, Health>, second: SecondView) -> Option<Self> {
        let down = health.values().filter(|health| health.looks_down()).count();
        Self::judge(health.len(), down, second)
    }

    /// Whether nothing is to be begun when so many of all look down from here.
    #[must_use]
    pub fn judge(total: usize, down: usize, second: SecondView) -> Option<Self> {
        if down * 2 <= total {
            return None;
        }
        match second {
            SecondView::NoQuorum => Some(Self::NoQuorum),
            SecondView::Down { shards } if shards * 2 <= total => Some(Self::SecondViewDisagrees),
            SecondView::Down { shards: _ } => None,
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<K = ShardId> {
    /// Shards to begin an attempt for. The policy counts them as begun.
    pub recover: Vec<K>,
    /// Why nothing is begun, if so.
    pub freeze: Option<Freeze>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    None,
    /// Takes one of the places.
    Acting,
    /// Open until the shard serves, but takes no place.
    Watching,
}

#[derive(Debug, Clone)]
struct Shard {
    attempt: Attempt,
    /// Attempts since the shard was last stable.
    attempts: u32,
    last_began: Option<Instant>,
    not_before: Instant,
    alive_since: Option<Instant>,
}

/// The history of all shards, as far as it matters.
#[derive(Debug, Clone)]
pub struct Policy<K = ShardId> {
    config: PolicyConfig,
    shards: BTreeMap<K, Shard>,
}

impl<K: Copy + Ord> Policy<K> {
    /// A policy that has not seen anything.
    #[must_use]
    pub fn new(config: PolicyConfig) -> Self {
        Self {
            config,
            shards: BTreeMap::new(),
        }
    }

    /// Takes in the judgements of all shards, and says what to begin. Shards that are not named any more are forgotten.
    pub fn decide(
        &mut self,
        now: Instant,
        health: &BTreeMap<K, Health>,
        second: SecondView,
    ) -> Decision<K> {
        self.decide_unless(now, health, Freeze::among(health, second))
    }

    /// Like [`decide`](Self::decide), where it was found elsewhere whether anything may be begun.
    pub fn decide_unless(
        &mut self,
        now: Instant,
        health: &BTreeMap<K, Health>,
        freeze: Option<Freeze>,
    ) -> Decision<K> {
        self.shards.retain(|id, _| health.contains_key(id));
        for (&id, &health) in health {
            self.note(now, id, health);
        }
        let acting = self
            .shards
            .values()
            .filter(|shard| shard.attempt == Attempt::Acting)
            .count();
        let free = if freeze.is_some() {
            0
        } else {
            self.places().saturating_sub(acting)
        };
        let mut due: Vec<_> = self
            .shards
            .iter()
            .filter(|(id, shard)| {
                let dead = matches!(health.get(id), Some(Health::Dead { .. }));
                dead && shard.attempt == Attempt::None && shard.not_before <= now
            })
            .map(|(&id, shard)| (shard.last_began, id))
            .collect();
        due.sort_unstable();
        let recover: Vec<_> = due.into_iter().take(free).map(|(_, id)| id).collect();
        for id in &recover {
            if let Some(shard) = self.shards.get_mut(id) {
                shard.attempt = Attempt::Acting;
                shard.attempts = shard.attempts.saturating_add(1);
                shard.last_began = Some(now);
                shard.alive_since = None;
            }
        }
        Decision { recover, freeze }
    }

    /// The shard gets on by itself: its attempt stays open, but others may be acted upon.
    pub fn release_place(&mut self, id: K) {
        if let Some(shard) = self
            .shards
            .get_mut(&id)
            .filter(|shard| shard.attempt == Attempt::Acting)
        {
            shard.attempt = Attempt::Watching;
        }
    }

    /// The attempt is over, well or not. `draw` gives a random time from zero up to the one it is given.
    pub fn end_attempt(&mut self, now: Instant, id: K, draw: impl FnOnce(Duration) -> Duration) {
        let config = self.config;
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.attempt = Attempt::None;
            shard.not_before = now + draw(backoff(&config, shard.attempts));
        }
    }

    /// Nothing was begun, for another watchdog acts, or nobody may: it does not count.
    pub fn forgo(&mut self, now: Instant, id: K, draw: impl FnOnce(Duration) -> Duration) {
        let pause = self.config.backoff_min;
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.attempt = Attempt::None;
            shard.attempts = shard.attempts.saturating_sub(1);
            shard.not_before = now + draw(pause);
        }
    }

    /// Another watchdog has made an attempt: the shard backs off from all of them together.
    pub fn note_foreign(&mut self, now: Instant, id: K, draw: impl FnOnce(Duration) -> Duration) {
        let config = self.config;
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.attempts = shard.attempts.saturating_add(1);
            shard.last_began = Some(now);
            let pause = draw(backoff(&config, shard.attempts));
            shard.not_before = shard.not_before.max(now + pause);
        }
    }

    /// Attempts of a shard since it was last stable.
    #[must_use]
    pub fn attempts(&self, id: K) -> u32 {
        self.shards.get(&id).map_or(0, |shard| shard.attempts)
    }

    /// Whether a shard was recovered so often that a human should look.
    #[must_use]
    pub fn is_alerting(&self, id: K) -> bool {
        self.attempts(id) >= self.config.alert_after_attempts
    }

    /// How many shards may be acted upon at once.
    #[must_use]
    pub fn places(&self) -> usize {
        (self.shards.len() * self.config.concurrent_percent as usize / 100).max(1)
    }

    fn note(&mut self, now: Instant, id: K, health: Health) {
        let shard = self.shards.entry(id).or_insert(Shard {
            attempt: Attempt::None,
            attempts: 0,
            last_began: None,
            not_before: now,
            alive_since: None,
        });
        match health {
            Health::Alive => {
                let since = *shard.alive_since.get_or_insert(now);
                if now.saturating_since(since) >= self.config.stable_after {
                    shard.attempts = 0;
                }
            }
            Health::Suspect { misses: _ } | Health::Short { misses: _ } => {}
            Health::WarmingUp | Health::Dead { cause: _ } => shard.alive_since = None,
        }
    }
}

/// The longest wait after so many attempts.
fn backoff(config: &PolicyConfig, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    config
        .backoff_min
        .saturating_mul(1 << doublings)
        .min(config.backoff_max)
}
