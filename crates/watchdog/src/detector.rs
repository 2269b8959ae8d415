//! Judges one shard from what each poll saw. Pure: time and observations come in as values.
//!
//! What always holds:
//! - A shard that makes progress is never dead, however slow it is: replay is not death.
//! - A single lost poll never kills: death takes as many misses in a row as configured, and where processes are silent, as many of
//!   one and the same process. Processes that are silent in turn, as in a rolling restart, are not dead, and neither is their shard.
//! - Serving wipes all earlier suspicion.
//!
//! On failure: nothing here can fail. What the detector does not know (progress while no coordinator answers) counts for
//! the shard.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::NodeId;
use runtime::Instant;

#[cfg(test)]
mod tests;

/// What one poll saw of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It serves, and every process that hosts a replica of it answers.
    Serving,
    /// It serves, but not every process that hosts a replica of it answers.
    Short,
    /// The processes answer, but the shard does not serve yet.
    Starting {
        /// A number that moves while the shard gets on; none if nobody can tell at present.
        progress: Option<u64>,
    },
    /// The processes answer, and say that a replica has stopped for a fault.
    Stopped,
    /// It does not serve, and a process that hosts a replica does not answer.
    Silent,
}

/// Why a shard, or a replica of it, is held to be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The shard serves by its other replicas, and the process of one does not answer.
    ReplicaSilent,
    /// A process does not answer.
    Silent,
    /// The processes answer, but the shard gets nowhere.
    Stalled,
    /// A replica has stopped for a fault.
    Stopped,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It starts, or is expected to.
    WarmingUp,
    /// It serves.
    Alive,
    /// It serves, and the process of a replica has not answered; not yet often enough.
    Short {
        /// Misses in a row: the shard's, or, where only several processes together have enough, those of the one that has most.
        misses: u32,
    },
    /// Polls were missed, not yet enough of them.
    Suspect {
        /// Misses in a row, counted as for [`Short`](Self::Short).
        misses: u32,
    },
    /// Enough polls were missed.
    Dead {
        /// What the last of them saw.
        cause: Cause,
    },
}

impl Health {
    /// Whether the shard looks down, be it certain or not.
    #[must_use]
    pub fn looks_down(self) -> bool {
        !self.serves() && matches!(self, Self::Suspect { .. } | Self::Dead { .. })
    }

    /// Whether the shard serves, be it with all of its replicas or not.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(
            self,
            Self::Alive
                | Self::Short { .. }
                | Self::Dead {
                    cause: Cause::ReplicaSilent
                }
        )
    }
}

/// When a detector changes its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Misses in a row that make a shard dead; at least 1.
    pub misses: u32,
    /// How long a process that never answered may take to do so.
    pub startup_grace: Duration,
    /// How long a shard may stay without progress while its processes answer.
    pub stall_after: Duration,
}

/// The history of one shard, as far as it matters.
#[derive(Debug, Clone)]
pub struct Detector {
    config: DetectorConfig,
    first_seen: Instant,
    ever_answered: bool,
    misses: u32,
    /// Of each process that was silent in the last poll, in how many polls in a row.
    silent: BTreeMap<NodeId, u32>,
    /// The progress last seen, while the shard is starting.
    starting: Option<Option<u64>>,
    moved_at: Instant,
    health: Health,
}

impl Detector {
    /// A detector for a shard that was first heard of now.
    #[must_use]
    pub fn new(config: DetectorConfig, now: Instant) -> Self {
        Self {
            config,
            first_seen: now,
            ever_answered: false,
            misses: 0,
            silent: BTreeMap::new(),
            starting: None,
            moved_at: now,
            health: Health::WarmingUp,
        }
    }

    /// The present judgement.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Somebody else has acted upon the shard: what was missed before does not count any more.
    pub fn look_afresh(&mut self) {
        self.misses = 0;
        self.silent.clear();
    }

    /// Whether a process of the shard has been silent for so many polls in a row, the last one included, that it is dead.
    #[must_use]
    pub fn holds_dead(&self, process: NodeId) -> bool {
        let misses = self.silent.get(&process);
        misses.is_some_and(|&misses| misses >= self.config.misses)
    }

    /// Takes in what a poll saw of a shard, and which of its processes were silent in it, and judges anew.
    pub fn observe_shard(
        &mut self,
        now: Instant,
        observation: Observation,
        silent: impl IntoIterator<Item = NodeId>,
    ) -> Health {
        let in_a_row = |process: NodeId| {
            let before = self.silent.get(&process).copied().unwrap_or_default();
            (process, before.saturating_add(1))
        };
        self.silent = silent.into_iter().map(in_a_row).collect();
        let health = self.observe(now, observation);
        let is_for_silence = matches!(
            health,
            Health::Dead {
                cause: Cause::Silent | Cause::ReplicaSilent
            }
        );
        let misses = self.silent.values().copied().max().unwrap_or_default();
        if is_for_silence && misses < self.config.misses {
            self.health = if health.serves() {
                Health::Short { misses }
            } else {
                Health::Suspect { misses }
            };
        }
        self.health
    }

    /// Takes in what a poll saw of a single process, or of a shard none of whose processes was silent, and judges anew.
    pub fn observe(&mut self, now: Instant, observation: Observation) -> Health {
        self.health = match observation {
            Observation::Serving => {
                self.ever_answered = true;
                self.misses = 0;
                self.starting = None;
                Health::Alive
            }
            Observation::Short => {
                self.ever_answered = true;
                self.starting = None;
                self.misses = self.misses.saturating_add(1);
                if self.misses >= self.config.misses {
                    let cause = Cause::ReplicaSilent;
                    Health::Dead { cause }
                } else {
                    Health::Short {
                        misses: self.misses,
                    }
                }
            }
            Observation::Starting { progress } => self.observe_starting(now, progress),
            Observation::Stopped => {
                self.ever_answered = true;
                self.starting = None;
                self.miss(Cause::Stopped)
            }
            Observation::Silent => {
                self.starting = None;
                let waited = now.saturating_since(self.first_seen);
                if !self.ever_answered && waited < self.config.startup_grace {
                    Health::WarmingUp
                } else {
                    self.miss(Cause::Silent)
                }
            }
        };
        self.health
    }

    fn observe_starting(&mut self, now: Instant, progress: Option<u64>) -> Health {
        self.ever_answered = true;
        // Any change counts, not only a rise: a process that was restarted begins again from a lower number.
        let moved = progress.is_none() || self.starting != Some(progress);
        self.starting = Some(progress);
        if moved {
            self.moved_at = now;
            self.misses = 0;
        }
        if now.saturating_since(self.moved_at) < self.config.stall_after {
            Health::WarmingUp
        } else {
            self.miss(Cause::Stalled)
        }
    }

    fn miss(&mut self, cause: Cause) -> Health {
        self.misses = self.misses.saturating_add(1);
        if self.misses >= self.config.misses {
            Health::Dead { cause }
        } else {
            Health::Suspect {
                misses: self.misses,
            }
        }
    }
}
