//! Reads that are sent to a second replica when the first is slow.
//!
//! Only STALE reads are: any replica may answer one, and every replica meets the same demands (the positions that the caller's token
//! names), so that either answer is right. A LEADER read has one place to ask, and so has a LINEARIZABLE one, since followers do
//! not serve those here; a second request to the same process gains little.
//!
//! What always holds: only the first try of a read for a shard is hedged, by one request at most, within the budget of [`Hedges`];
//! what fails before that, or without a hedge, is tried again by rounds as any other request. The answer that is not waited for any
//! more is dropped.
//!
//! [`Hedges`]: super::Hedges

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{ApiError, Consistency};
use futures::FutureExt as _;
use futures::future::{Either, select};
use runtime::Runtime;

use super::hedges::Read;
use super::rounds::Failed;
use super::{Ask, Router, Sent, Target, found};

/// How a read and its hedge ended.
#[derive(Debug)]
enum Ended<T> {
    /// There was no hedge.
    Alone(Result<T, Failed>),
    /// The first replica answered, after the hedge was sent.
    First(T),
    /// The second replica answered, while the first had not, or after it had failed.
    Second(T, Loser),
    Neither(Failed),
}

/// What became of a first replica that did not answer before the second.
#[derive(Debug, PartialEq, Eq)]
enum Loser {
    Failed,
    Overtaken,
}

impl Router {
    /// Asks one replica of a shard, and where that is slow and any may answer, another one beside it.
    pub(super) async fn read<T, F, Fut>(
        &self,
        read: Read,
        ask: Ask<'_>,
        call: F,
    ) -> Result<T, Failed>
    where
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let (sent, target) = self.begin(&ask)?;
        let wait = self.wait(read, &ask, &sent);
        let first = call(target).map(|answer| self.settle(&ask, &sent, answer));
        let mut first = pin!(first);
        let Some(wait) = wait else {
            return first.await;
        };
        let began = self.runtime.now();
        let hedge = || {
            let (second, target) = self.second(&ask, &sent)?;
            let (ask, answer) = (&ask, call(target));
            Some(answer.map(move |answer| self.settle(ask, &second, answer)))
        };
        let ended = beside(&self.runtime, wait, first.as_mut(), hedge).await;
        let pace = self.hedges.pace(read);
        let took = || self.runtime.now().saturating_since(began);
        match ended {
            Ended::Alone(answer) => {
                if answer.is_ok() {
                    pace.answered(took());
                }
                answer
            }
            Ended::First(answer) => {
                pace.answered(took());
                Ok(answer)
            }
            Ended::Second(answer, loser) => {
                self.hedges.won.increment();
                if loser == Loser::Overtaken {
                    pace.overtaken(wait);
                    self.overtaken(&sent);
                }
                Ok(answer)
            }
            Ended::Neither(failed) => Err(failed),
        }
    }

    /// One that is overtaken again and again, and not heard in between, is no first choice for a while: nobody waits for it as
    /// long as it takes to call it silent.
    fn overtaken(&self, first: &Sent) {
        if first.link.is_silent() {
            self.leaders.failed(first.node);
        }
    }

    /// How long the first replica has for itself; `None` where the read is not hedged.
    fn wait(&self, read: Read, ask: &Ask<'_>, sent: &Sent) -> Option<Duration> {
        let may_be_hedged = ask.consistency == Some(Consistency::Stale)
            && sent.replicas > 1
            && ask.rounds.is_first(ask.shard);
        if !may_be_hedged {
            return None;
        }
        let left = self.left(ask.rounds.deadline()).ok()?;
        self.hedges.begin(read, left)
    }

    /// Another replica, where there is one that is not known to fail and the budget allows it.
    fn second(&self, ask: &Ask<'_>, first: &Sent) -> Option<(Sent, Target)> {
        let shard = found(ask.map, ask.shard).ok()?;
        let left = self.left(ask.rounds.deadline()).ok()?;
        let mut others = self.candidates(ask, shard);
        others.retain(|at| at.node != first.node && !at.suspect);
        let tries = ask.rounds.tries(ask.shard);
        let node = tries.any(&others, self.turn.load(Ordering::Relaxed))?;
        if !self.hedges.take() {
            return None;
        }
        self.send(ask, shard, node, left).ok()
    }
}

/// Waits for `first`. If it has not ended after `wait`, `hedge` may name another that is waited for as well; the first good result
/// counts.
async fn beside<T, A, B>(
    runtime: &Runtime,
    wait: Duration,
    mut first: Pin<&mut A>,
    hedge: impl FnOnce() -> Option<B>,
) -> Ended<T>
where
    A: Future<Output = Result<T, Failed>>,
    B: Future<Output = Result<T, Failed>>,
{
    if let Ok(ended) = runtime.timeout(wait, first.as_mut()).await {
        return Ended::Alone(ended);
    }
    match hedge() {
        // Rare, so that no other read has to carry its room.
        Some(second) => Box::pin(race(first, second)).await,
        None => Ended::Alone(first.await),
    }
}

async fn race<T, A, B>(first: Pin<&mut A>, second: B) -> Ended<T>
where
    A: Future<Output = Result<T, Failed>>,
    B: Future<Output = Result<T, Failed>>,
{
    match select(first, pin!(second)).await {
        Either::Left((Ok(answer), _)) => Ended::First(answer),
        Either::Right((Ok(answer), _)) => Ended::Second(answer, Loser::Overtaken),
        Either::Left((Err(failed), second)) => match second.await {
            Ok(answer) => Ended::Second(answer, Loser::Failed),
            Err(other) => Ended::Neither(Failed::both(failed, other)),
        },
        Either::Right((Err(other), first)) => match first.await {
            Ok(answer) => Ended::First(answer),
            Err(failed) => Ended::Neither(Failed::both(failed, other)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use api::Reason;

    use super::*;

    const WAIT: Duration = Duration::from_millis(10);

    type Answer = Result<&'static str, Failed>;

    fn failed(reason: Reason) -> Answer {
        Err(ApiError::new(reason, "test").into())
    }

    async fn after(runtime: &Runtime, pause: u64, answer: Answer) -> Answer {
        runtime.sleep(Duration::from_millis(pause)).await;
        answer
    }

    /// How it ended, and whether a second replica was asked for.
    async fn ended<B: Future<Output = Answer>>(
        first: impl Future<Output = Answer>,
        second: Option<B>,
    ) -> (Ended<&'static str>, bool) {
        let mut asked = false;
        let hedge = || {
            asked = true;
            second
        };
        let ended = beside(&Runtime::real(), WAIT, pin!(first), hedge).await;
        (ended, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_answers_while_the_first_never_does() {
        let (ended, _) = ended(pending(), Some(ready(Ok("second")))).await;
        assert!(
            matches!(ended, Ended::Second("second", Loser::Overtaken)),
            "{ended:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_in_time_is_alone_be_it_with_an_error() {
        let runtime = Runtime::real();
        for answer in [Ok("first"), failed(Reason::Disconnected)] {
            let is_ok = answer.is_ok();
            let first = after(&runtime, 9, answer);
            let (ended, asked) = ended(first, Some(ready(Ok("second")))).await;
            assert!(!asked);
            assert!(matches!(&ended, Ended::Alone(answer) if answer.is_ok() == is_ok));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_second_the_first_is_waited_for() {
        let runtime = Runtime::real();
        let first = after(&runtime, 900, Ok("first"));
        let (ended, asked) = ended(first, None::<std::future::Pending<_>>).await;
        assert!(asked);
        assert!(matches!(ended, Ended::Alone(Ok("first"))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_leaves_the_answer_to_the_other() {
        let runtime = Runtime::real();
        let first = after(&runtime, 50, Ok("first"));
        let second = ready(failed(Reason::Overloaded));
        let (kept, _) = ended(first, Some(second)).await;
        assert!(matches!(kept, Ended::First("first")), "{kept:?}");

        let first = after(&runtime, 20, failed(Reason::Internal));
        let second = after(&runtime, 50, Ok("second"));
        let (kept, _) = ended(first, Some(second)).await;
        assert!(
            matches!(kept, Ended::Second("second", Loser::Failed)),
            "{kept:?}"
        );

        let first = after(&runtime, 50, failed(Reason::Deadline));
        let second = ready(failed(Reason::Starting));
        let (kept, _) = ended(first, Some(second)).await;
        let Ended::Neither(failed) = &kept else {
            panic!("{kept:?}");
        };
        assert_eq!(failed.error.reason(), Reason::Starting);
    }
}
