//! Whose turn it is to recover a shard: the requests of watchdogs, brought before the metadata where all of them meet.

use api::admin::v1::{
    BeginRecoveryRequest, BeginRecoveryResponse, EndRecoveryRequest, EndRecoveryResponse,
    RecoveryTurn, TurnState, TurnVerdict as WireVerdict,
};
use api::{ApiError, Reason};
use cluster::ShardId;
use cluster::limits::TURN_TEXT_BYTES_MAX;

use crate::meta::{Meta, unexpected};
use crate::metadata::{
    Command, EndedTurn, Response, Turn, TurnEnd, TurnOutcome, TurnRequest, TurnVerdict, Turns,
};

/// What a lease may be.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// The share of shards that may be acted upon where the watchdog says none.
const PERCENT_DEFAULT: u32 = 10;

pub(super) async fn begin(
    meta: &Meta,
    request: BeginRecoveryRequest,
) -> Result<BeginRecoveryResponse, ApiError> {
    let asked = checked(request)?;
    let response = meta.propose(&Command::BeginRecovery(asked)).await?;
    let Response::Turn(answer) = response else {
        return Err(unexpected(&response));
    };
    let verdict = match answer.verdict {
        TurnVerdict::Granted => WireVerdict::Granted,
        TurnVerdict::Taken => WireVerdict::Taken,
        TurnVerdict::Stale => WireVerdict::Stale,
        TurnVerdict::Crowded => WireVerdict::Crowded,
    };
    Ok(BeginRecoveryResponse {
        verdict: verdict.into(),
        attempt: answer.attempt,
        holder: answer.holder,
    })
}

pub(super) async fn end(
    meta: &Meta,
    request: EndRecoveryRequest,
) -> Result<EndRecoveryResponse, ApiError> {
    let end = checked_end(request)?;
    meta.propose(&Command::EndRecovery(end)).await?;
    Ok(EndRecoveryResponse {})
}

pub(crate) fn checked_end(request: EndRecoveryRequest) -> Result<TurnEnd, ApiError> {
    Ok(TurnEnd {
        shard: ShardId(request.shard_id),
        outcome: outcome_of(request.outcome())?,
        watchdog: name("watchdog", request.watchdog)?,
        attempt: request.attempt,
    })
}

pub(crate) fn checked(request: BeginRecoveryRequest) -> Result<TurnRequest, ApiError> {
    if !LEASE_MS.contains(&request.lease_ms) {
        let problem = format!(
            "is {}, must be {} to {}",
            request.lease_ms,
            LEASE_MS.start(),
            LEASE_MS.end()
        );
        return Err(bad("lease_ms", &problem));
    }
    if request.concurrent_percent > 100 {
        return Err(bad("concurrent_percent", "is above 100"));
    }
    if request.reason.len() > TURN_TEXT_BYTES_MAX {
        return Err(bad("reason", "has more than 255 bytes"));
    }
    Ok(TurnRequest {
        shard: ShardId(request.shard_id),
        watchdog: name("watchdog", request.watchdog)?,
        known: request.known_attempt,
        reason: request.reason,
        lease_ms: request.lease_ms,
        concurrent_percent: match request.concurrent_percent {
            0 => PERCENT_DEFAULT,
            percent => percent,
        },
        acts: !request.watching,
    })
}

/// The name of a watchdog, in this field.
pub(super) fn name(field: &'static str, watchdog: String) -> Result<String, ApiError> {
    if watchdog.is_empty() || watchdog.len() > TURN_TEXT_BYTES_MAX {
        return Err(bad(field, "must have 1 to 255 bytes"));
    }
    Ok(watchdog)
}

fn bad(field: &'static str, problem: &str) -> ApiError {
    ApiError::field(Reason::BadArgument, field, problem)
}

fn outcome_of(state: TurnState) -> Result<TurnOutcome, ApiError> {
    Ok(match state {
        TurnState::Recovered => TurnOutcome::Recovered,
        TurnState::NeedsAcceptLoss => TurnOutcome::NeedsAcceptLoss,
        TurnState::TimedOut => TurnOutcome::TimedOut,
        TurnState::GivenUp => TurnOutcome::GivenUp,
        TurnState::Unspecified | TurnState::Open | TurnState::Expired => {
            return Err(bad("outcome", "is no end of a turn"));
        }
    })
}

/// The turns at a shard, oldest first.
pub(crate) fn told(turns: &Turns, now_ms: i64) -> Vec<RecoveryTurn> {
    let ended = turns.ended.iter().map(told_ended);
    ended
        .chain(turns.open.iter().map(|open| told_open(open, now_ms)))
        .collect()
}

fn told_open(open: &Turn, now_ms: i64) -> RecoveryTurn {
    let state = if open.until_ms <= now_ms {
        TurnState::Expired
    } else {
        TurnState::Open
    };
    RecoveryTurn {
        attempt: open.attempt,
        watchdog: open.watchdog.clone(),
        reason: open.reason.clone(),
        began_ms: open.began_ms,
        ends_ms: open.until_ms,
        state: state.into(),
    }
}

fn told_ended(ended: &EndedTurn) -> RecoveryTurn {
    let state = match ended.outcome {
        TurnOutcome::Recovered => TurnState::Recovered,
        TurnOutcome::NeedsAcceptLoss => TurnState::NeedsAcceptLoss,
        TurnOutcome::TimedOut => TurnState::TimedOut,
        TurnOutcome::GivenUp => TurnState::GivenUp,
        TurnOutcome::Expired => TurnState::Expired,
    };
    RecoveryTurn {
        attempt: ended.attempt,
        watchdog: ended.watchdog.clone(),
        reason: ended.reason.clone(),
        began_ms: ended.began_ms,
        ends_ms: ended.ended_ms,
        state: state.into(),
    }
}
