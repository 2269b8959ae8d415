//! When to try again: the client's retry rule, without clocks or sockets.

use std::collections::BTreeSet;
use std::time::Duration;

use api::error::item_error;
use api::{ApiError, Outcome, Reason, Retry, v1};
use tonic::Code;

/// Whether a call changes anything; of a write that failed it matters whether it may have been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Another server can be asked at once.
    None,
    /// A random time up to this.
    UpTo(Duration),
    /// The server named a time; a random part up to `spread` is added, so that not everybody comes back together.
    AtLeast { delay: Duration, spread: Duration },
}

/// What follows from a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    GiveUp,
    Retry(Pause),
}

/// The limits that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) retries: u32,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// Servers that can be asked.
    pub(crate) servers: usize,
}

/// The tries of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    kind: Kind,
    failed: u32,
    maybe_applied: bool,
    /// A try of which no answer came may have been applied, and so any item of it.
    unanswered: bool,
    /// The items of a batch that were applied, or may have been, by the answers so far. At most as many as the batch has.
    in_doubt: BTreeSet<usize>,
}

impl Attempts {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            failed: 0,
            maybe_applied: false,
            unanswered: false,
            in_doubt: BTreeSet::new(),
        }
    }

    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// A try was cut off before its answer, for a cause that is counted elsewhere.
    pub(crate) fn may_have_applied(&mut self) {
        self.maybe_applied = true;
        self.unanswered = true;
    }

    /// Notes a failed try and decides.
    pub(crate) fn decide(&mut self, error: &ApiError, patience: &Patience) -> Step {
        let outcome = error
            .outcome()
            .unwrap_or_else(|| error.reason().outcome_of_write());
        if outcome == Outcome::Unknown {
            self.may_have_applied();
        }
        self.next(error, patience)
    }

    /// Notes a try that was answered item by item and left some to be tried again, and decides.
    pub(crate) fn decide_in_part(
        &mut self,
        results: &[v1::ItemResult],
        error: &ApiError,
        patience: &Patience,
    ) -> Step {
        // Some items may have been applied, whatever became of the others.
        self.maybe_applied = true;
        let is_refused = |result: &v1::ItemResult| {
            let outcome = result.error().map(Reason::outcome_of_write);
            outcome == Some(Outcome::NotApplied)
        };
        for (number, result) in results.iter().enumerate() {
            if !is_refused(result) {
                self.in_doubt.insert(number);
            }
        }
        self.next(error, patience)
    }

    /// Corrects the answer that the caller gets. Its items speak of the last try alone: one that was refused there may have been applied
    /// by an earlier one, and then does not say that it was not. An overflow stays: whoever found it had looked for the earlier try first.
    pub(crate) fn cover(&self, results: &mut [v1::ItemResult]) {
        if !self.unanswered && self.in_doubt.is_empty() {
            return;
        }
        for (number, result) in results.iter_mut().enumerate() {
            let may_be_applied = self.unanswered || self.in_doubt.contains(&number);
            let reason = result
                .error()
                .filter(|reason| may_be_applied && *reason != Reason::CountOverflow);
            if let Some(reason) = reason
                && reason.outcome_of_write() == Outcome::NotApplied
            {
                *result = item_error(reason.of_unknown_outcome());
            }
        }
    }

    fn next(&mut self, error: &ApiError, patience: &Patience) -> Step {
        self.failed = self.failed.saturating_add(1);
        if self.failed > patience.retries {
            return Step::GiveUp;
        }
        match error.retry() {
            Retry::Never => Step::GiveUp,
            Retry::AfterDelay => match error.retry_after() {
                Some(delay) => Step::Retry(Pause::AtLeast {
                    delay,
                    spread: self.backoff(patience),
                }),
                // Without a word on when to come back, coming back only adds to the load.
                None => Step::GiveUp,
            },
            Retry::SameRequest => Step::Retry(self.pause(error.code(), patience)),
            Retry::Reroute if self.failed == 1 => Step::Retry(Pause::None),
            Retry::Reroute => Step::Retry(Pause::UpTo(self.backoff(patience))),
        }
    }

    /// The error that the caller gets: of a write, with the outcome of all tries.
    pub(crate) fn conclude(&self, error: ApiError) -> ApiError {
        match (self.kind, self.maybe_applied) {
            (Kind::Read, _) => error,
            (Kind::Write, true) => error.after_unknown(),
            (Kind::Write, false) => error.for_write(),
        }
    }

    fn pause(&self, code: Code, patience: &Patience) -> Pause {
        let untried = (self.failed as usize) < patience.servers;
        if code == Code::Unavailable && untried {
            return Pause::None;
        }
        Pause::UpTo(self.backoff(patience))
    }

    fn backoff(&self, patience: &Patience) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(20);
        let grown = patience.backoff_min.saturating_mul(1 << doublings);
        grown.min(patience.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        retries: 5,
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        servers: 1,
    };

    fn first(kind: Kind, error: &ApiError, patience: &Patience) -> Step {
        Attempts::new(kind).decide(error, patience)
    }

    fn error(reason: Reason) -> ApiError {
        ApiError::new(reason, "for a test")
    }

    #[test]
    fn every_reason_is_treated_by_the_rule() {
        for &reason in Reason::ALL {
            let step = first(Kind::Write, &error(reason), &PATIENCE);
            let is_final = matches!(
                reason.code(),
                Code::InvalidArgument
                    | Code::OutOfRange
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::DataLoss
                    // Without a word on when to come back.
                    | Code::ResourceExhausted
            );
            let expected_retry = !is_final && reason.retry() != Retry::Never;
            assert_eq!(step != Step::GiveUp, expected_retry, "{reason:?}");
        }
    }

    #[test]
    fn an_overloaded_server_is_asked_again_when_it_says_so() {
        let delay = Duration::from_millis(70);
        let step = first(Kind::Write, &ApiError::overloaded("busy", delay), &PATIENCE);
        let pause = Pause::AtLeast {
            delay,
            spread: Duration::from_millis(10),
        };
        assert_eq!(step, Step::Retry(pause));
    }

    #[test]
    fn another_server_is_asked_at_once_and_then_pauses_double() {
        let patience = Patience {
            servers: 2,
            ..PATIENCE
        };
        let mut attempts = Attempts::new(Kind::Read);
        let pauses: Vec<_> =
            std::iter::repeat_with(
                || match attempts.decide(&error(Reason::Starting), &patience) {
                    Step::Retry(pause) => Some(pause),
                    Step::GiveUp => None,
                },
            )
            .take(6)
            .collect();
        let up_to = |ms| Some(Pause::UpTo(Duration::from_millis(ms)));
        assert_eq!(
            pauses,
            [
                Some(Pause::None),
                up_to(20),
                up_to(40),
                up_to(50),
                up_to(50),
                None
            ]
        );
    }

    #[test]
    fn one_try_of_unknown_outcome_makes_the_write_unknown() {
        let mut attempts = Attempts::new(Kind::Write);
        attempts.decide(&error(Reason::Deadline), &PATIENCE);
        attempts.decide(&error(Reason::Starting), &PATIENCE);
        let concluded = attempts.conclude(error(Reason::Starting));
        assert_eq!(concluded.outcome(), Some(Outcome::Unknown));

        let mut attempts = Attempts::new(Kind::Write);
        attempts.decide(&error(Reason::Starting), &PATIENCE);
        let concluded = attempts.conclude(error(Reason::Starting));
        assert_eq!(concluded.outcome(), Some(Outcome::NotApplied));
    }

    fn errors(results: &[v1::ItemResult]) -> Vec<Option<Reason>> {
        results.iter().map(v1::ItemResult::error).collect()
    }

    #[test]
    fn an_item_that_a_lost_try_may_have_applied_is_never_called_refused() {
        let mut results = vec![
            item_error(Reason::DiskFull),
            item_error(Reason::CountOverflow),
            item_error(Reason::NoQuorum),
            v1::ItemResult::default(),
        ];
        let before = results.clone();
        let mut attempts = Attempts::new(Kind::Write);
        attempts.decide(&error(Reason::Starting), &PATIENCE);
        attempts.cover(&mut results);
        assert_eq!(results, before, "no try before may have been applied");
        attempts.decide(&error(Reason::Deadline), &PATIENCE);
        attempts.cover(&mut results);
        let expected = [
            Some(Reason::ShardUnavailable),
            Some(Reason::CountOverflow),
            Some(Reason::NoQuorum),
            None,
        ];
        assert_eq!(errors(&results), expected);
    }

    #[test]
    fn what_an_answer_said_of_an_item_is_not_taken_back_by_a_later_one() {
        let mut attempts = Attempts::new(Kind::Write);
        let first = [
            v1::ItemResult::default(),
            item_error(Reason::NoQuorum),
            item_error(Reason::Overloaded),
        ];
        attempts.decide_in_part(&first, &error(Reason::NoQuorum), &PATIENCE);
        let mut second = [Reason::DiskFull; 3].map(item_error);
        attempts.cover(&mut second);
        let expected = [
            Some(Reason::ShardUnavailable),
            Some(Reason::ShardUnavailable),
            Some(Reason::DiskFull),
        ];
        assert_eq!(errors(&second), expected);
        let concluded = attempts.conclude(error(Reason::DiskFull));
        assert_eq!(concluded.outcome(), Some(Outcome::Unknown));
    }
}
