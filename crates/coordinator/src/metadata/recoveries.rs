//! Turns at recovering shards: who may act on which, so that any number of watchdogs may run. Pure.
//!
//! What always holds:
//! - A shard has at most one open turn. It is granted to whoever names the number of the newest turn before it, so that of several who
//!   saw the same failure one acts, and the others look again first.
//! - At most so many shards as the caller's share allows are acted upon at once; one always is.
//! - A turn ends with its lease, by the leader's stamps in the log: a watchdog that died holds up nobody for longer.
//! - What is kept is bounded: the open turn and the last [`ENDED_MAX`] of each shard.
//!
//! On failure: nothing is granted and nothing changes.

use std::collections::{BTreeMap, VecDeque};

use cluster::ShardId;

use super::codec::{CodecError, Reader, Writer};

/// Turns that are remembered of each shard after they have ended.
pub const ENDED_MAX: usize = 8;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnOutcome {
    /// The shard serves again.
    Recovered,
    /// Only a person can go on.
    NeedsAcceptLoss,
    /// Nothing moved for too long.
    TimedOut,
    /// The watchdog stopped.
    GivenUp,
    /// The watchdog was not heard of again.
    Expired,
}

impl TurnOutcome {
    const ALL: [Self; 5] = [
        Self::Recovered,
        Self::NeedsAcceptLoss,
        Self::TimedOut,
        Self::GivenUp,
        Self::Expired,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Recovered => 1,
            Self::NeedsAcceptLoss => 2,
            Self::TimedOut => 3,
            Self::GivenUp => 4,
            Self::Expired => 5,
        }
    }
}

/// A turn that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Counts the shard's turns, from 1.
    pub attempt: u64,
    /// Who holds it.
    pub watchdog: String,
    /// Why.
    pub reason: String,
    /// The stamp of its beginning, milliseconds since the Unix epoch.
    pub began_ms: i64,
    /// The stamp at which it ends unless it is prolonged.
    pub until_ms: i64,
    /// It takes one of the places of those that act.
    pub acts: bool,
}

/// A turn that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTurn {
    /// As of [`Turn::attempt`].
    pub attempt: u64,
    /// Who held it.
    pub watchdog: String,
    /// Why.
    pub reason: String,
    /// The stamp of its beginning.
    pub began_ms: i64,
    /// The stamp of its end.
    pub ended_ms: i64,
    /// How it ended.
    pub outcome: TurnOutcome,
}

/// The turns at one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// The number of the newest turn; 0 where there was none.
    pub attempts: u64,
    /// The one that is held. Its lease may have run out.
    pub open: Option<Turn>,
    /// The last that have ended, oldest first.
    pub ended: VecDeque<EndedTurn>,
}

/// A request for a turn, or for more time of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRequest {
    /// The shard.
    pub shard: ShardId,
    /// Who asks; no two watchdogs have the same name.
    pub watchdog: String,
    /// The number of the newest turn that it knows of.
    pub known: u64,
    /// For people.
    pub reason: String,
    /// How long the turn lasts unless it is prolonged, in milliseconds.
    pub lease_ms: u64,
    /// Share of the shards that may be acted upon at once.
    pub concurrent_percent: u32,
    /// It takes one of the places of those that act.
    pub acts: bool,
}

/// A turn that is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// The shard.
    pub shard: ShardId,
    /// Who held it.
    pub watchdog: String,
    /// Its number.
    pub attempt: u64,
    /// What came of it.
    pub outcome: TurnOutcome,
}

/// Whether a turn was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnVerdict {
    /// It was, or was already.
    Granted,
    /// Another watchdog holds the shard's turn.
    Taken,
    /// There was a turn that the caller does not know of.
    Stale,
    /// As many shards as allowed are being acted upon.
    Crowded,
}

/// The answer to a request for a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnAnswer {
    /// Whether it was granted.
    pub verdict: TurnVerdict,
    /// The number of the shard's newest turn.
    pub attempt: u64,
    /// Who holds it; empty where nobody does.
    pub holder: String,
}

/// The turns at all shards that ever needed one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recoveries(BTreeMap<ShardId, Turns>);

impl Recoveries {
    /// The turns at a shard.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> Option<&Turns> {
        self.0.get(&shard)
    }

    /// Grants a turn, or prolongs it. `shards` is how many there are.
    pub(super) fn begin(&mut self, now_ms: i64, shards: usize, asked: TurnRequest) -> TurnAnswer {
        self.expire(now_ms);
        let acting = self.acting_besides(asked.shard);
        let turns = self.0.entry(asked.shard).or_default();
        let verdict = turns.judge(&asked, acting < places(shards, asked.concurrent_percent));
        if verdict == TurnVerdict::Granted {
            turns.grant(now_ms, asked);
        }
        TurnAnswer {
            verdict,
            attempt: turns.attempts,
            holder: turns
                .open
                .as_ref()
                .map(|open| open.watchdog.clone())
                .unwrap_or_default(),
        }
    }

    /// Ends a turn. Says whether it is over now: false for one that the caller does not hold and that nobody remembers it held.
    pub(super) fn end(&mut self, now_ms: i64, end: &TurnEnd) -> bool {
        let Some(turns) = self.0.get_mut(&end.shard) else {
            return false;
        };
        let is_it = |open: &mut Turn| open.attempt == end.attempt && open.watchdog == end.watchdog;
        if let Some(open) = turns.open.take_if(is_it) {
            turns.close(open, now_ms, end.outcome);
            return true;
        }
        let was_it =
            |ended: &EndedTurn| ended.attempt == end.attempt && ended.watchdog == end.watchdog;
        turns.ended.iter().any(was_it)
    }

    fn expire(&mut self, now_ms: i64) {
        for turns in self.0.values_mut() {
            if let Some(open) = turns.open.take_if(|open| open.until_ms <= now_ms) {
                let until = open.until_ms;
                turns.close(open, until, TurnOutcome::Expired);
            }
        }
    }

    fn acting_besides(&self, shard: ShardId) -> usize {
        let others = self.0.iter().filter(|(id, _)| **id != shard);
        others
            .filter(|(_, turns)| turns.open.as_ref().is_some_and(|open| open.acts))
            .count()
    }
}

impl Turns {
    fn judge(&self, asked: &TurnRequest, has_room: bool) -> TurnVerdict {
        let is_next = asked.known.checked_add(1) == Some(self.attempts);
        match &self.open {
            // More time, or the answer to the first try was lost.
            Some(open) if open.watchdog == asked.watchdog && is_next => {
                if open.acts || !asked.acts || has_room {
                    TurnVerdict::Granted
                } else {
                    TurnVerdict::Crowded
                }
            }
            Some(_) => TurnVerdict::Taken,
            None if asked.known != self.attempts => TurnVerdict::Stale,
            None if asked.acts && !has_room => TurnVerdict::Crowded,
            None => TurnVerdict::Granted,
        }
    }

    fn grant(&mut self, now_ms: i64, asked: TurnRequest) {
        let lease = i64::try_from(asked.lease_ms).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_add(lease);
        if let Some(open) = &mut self.open {
            open.until_ms = open.until_ms.max(until_ms);
            open.acts = asked.acts;
            return;
        }
        self.attempts += 1;
        self.open = Some(Turn {
            attempt: self.attempts,
            watchdog: asked.watchdog,
            reason: asked.reason,
            began_ms: now_ms,
            until_ms,
            acts: asked.acts,
        });
    }

    fn close(&mut self, turn: Turn, ended_ms: i64, outcome: TurnOutcome) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(EndedTurn {
            attempt: turn.attempt,
            watchdog: turn.watchdog,
            reason: turn.reason,
            began_ms: turn.began_ms,
            ended_ms,
            outcome,
        });
    }
}

/// How many shards may be acted upon at once.
fn places(shards: usize, percent: u32) -> usize {
    (shards * percent.min(100) as usize / 100).max(1)
}

fn read_outcome(from: &mut Reader<'_>) -> Result<TurnOutcome, CodecError> {
    let number = from.u8("outcome")?;
    let mut all = TurnOutcome::ALL.into_iter();
    all.find(|outcome| outcome.number() == number)
        .ok_or_else(|| CodecError::Value {
            field: "outcome",
            problem: format!("{number} is not known"),
        })
}

pub(super) fn write_request(out: &mut Writer, asked: &TurnRequest) {
    out.u64(asked.shard.0);
    out.text(&asked.watchdog);
    out.u64(asked.known);
    out.text(&asked.reason);
    out.u64(asked.lease_ms);
    out.u32(asked.concurrent_percent);
    out.bool(asked.acts);
}

pub(super) fn read_request(from: &mut Reader<'_>) -> Result<TurnRequest, CodecError> {
    Ok(TurnRequest {
        shard: ShardId(from.u64("shard")?),
        watchdog: from.text("watchdog")?,
        known: from.u64("known attempt")?,
        reason: from.text("reason")?,
        lease_ms: from.u64("lease")?,
        concurrent_percent: from.u32("concurrent percent")?,
        acts: from.bool("acts")?,
    })
}

pub(super) fn write_end(out: &mut Writer, end: &TurnEnd) {
    out.u64(end.shard.0);
    out.text(&end.watchdog);
    out.u64(end.attempt);
    out.u8(end.outcome.number());
}

pub(super) fn read_end(from: &mut Reader<'_>) -> Result<TurnEnd, CodecError> {
    Ok(TurnEnd {
        shard: ShardId(from.u64("shard")?),
        watchdog: from.text("watchdog")?,
        attempt: from.u64("attempt")?,
        outcome: read_outcome(from)?,
    })
}

pub(super) fn write(out: &mut Writer, recoveries: &Recoveries) {
    out.len(recoveries.0.len());
    for (shard, turns) in &recoveries.0 {
        out.u64(shard.0);
        out.u64(turns.attempts);
        out.option(turns.open.as_ref(), |out, open| {
            out.u64(open.attempt);
            out.text(&open.watchdog);
            out.text(&open.reason);
            out.i64(open.began_ms);
            out.i64(open.until_ms);
            out.bool(open.acts);
        });
        out.len(turns.ended.len());
        for ended in &turns.ended {
            out.u64(ended.attempt);
            out.text(&ended.watchdog);
            out.text(&ended.reason);
            out.i64(ended.began_ms);
            out.i64(ended.ended_ms);
            out.u8(ended.outcome.number());
        }
    }
}

pub(super) fn read(from: &mut Reader<'_>) -> Result<Recoveries, CodecError> {
    let shards = from.list("recoveries", |from| {
        let shard = ShardId(from.u64("shard")?);
        let attempts = from.u64("attempts")?;
        let open = from.option("open turn", |from| {
            Ok(Turn {
                attempt: from.u64("attempt")?,
                watchdog: from.text("watchdog")?,
                reason: from.text("reason")?,
                began_ms: from.i64("began")?,
                until_ms: from.i64("until")?,
                acts: from.bool("acts")?,
            })
        })?;
        let ended = from.list("ended turns", |from| {
            Ok(EndedTurn {
                attempt: from.u64("attempt")?,
                watchdog: from.text("watchdog")?,
                reason: from.text("reason")?,
                began_ms: from.i64("began")?,
                ended_ms: from.i64("ended")?,
                outcome: read_outcome(from)?,
            })
        })?;
        let turns = Turns {
            attempts,
            open,
            ended: ended.into(),
        };
        Ok((shard, turns))
    })?;
    Ok(Recoveries(shards.into_iter().collect()))
}

#[cfg(test)]
mod tests;
