use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures::FutureExt as _;
use runtime::{Adapters, Connection, Listener, Network, OsRandom, Runtime, TokioClock};
use tokio::sync::oneshot;

use super::super::{PendingBatch, WINDOW_MAX};
use super::*;
use crate::ClientOptions;
use crate::retry::{Attempts, Kind, Pause};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A network that swallows whatever is sent into it.
#[derive(Debug)]
struct BlackHole;

impl Network for BlackHole {
    fn bind(&self, _address: SocketAddr) -> BoxFuture<io::Result<Listener>> {
        Box::pin(pending())
    }

    fn connect(&self, _authority: String) -> BoxFuture<io::Result<Connection>> {
        Box::pin(pending())
    }
}

/// A driver that reaches nobody and is given its jobs by hand.
fn driver() -> Driver {
    let runtime = Runtime::with(Adapters {
        clock: Arc::new(TokioClock::new()),
        random: Arc::new(OsRandom),
        network: Arc::new(BlackHole),
    });
    let caller = Caller::new(runtime, ClientOptions::to("nowhere:1")).unwrap();
    let (_, jobs) = mpsc::channel(1);
    Driver::new(caller, jobs, WINDOW_MAX)
}

impl Driver {
    fn in_time(&self, seconds: u64) -> Instant {
        self.caller.runtime.now() + Duration::from_secs(seconds)
    }

    /// Puts a batch of one term into the queue.
    fn give(&mut self, deadline: Instant) -> PendingBatch {
        let (reply, answer) = oneshot::channel();
        let item = v1::RecordItem {
            term: "a".to_owned(),
            count: 1,
        };
        self.accept(Job {
            request: v1::RecordBatchRequest {
                items: vec![item],
                ..v1::RecordBatchRequest::default()
            },
            deadline,
            attempts: Attempts::new(Kind::Write),
            reply,
            _issued: None,
        });
        PendingBatch(answer)
    }

    /// Sends what is in the queue to nobody.
    fn send(&mut self) {
        let (requests, _taken) = mpsc::channel(self.window);
        self.flush(&requests).unwrap();
    }
}

fn error(reason: Reason) -> ApiError {
    ApiError::new(reason, "for a test")
}

fn answer(count: u64) -> v1::RecordBatchResponse {
    let result = v1::ItemResult {
        count,
        ..v1::ItemResult::default()
    };
    v1::RecordBatchResponse {
        results: vec![result],
        token: None,
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_no_batch_more_than_its_deadline() {
    let mut driver = driver();
    let runtime = driver.caller.runtime.clone();
    let deadline = driver.in_time(10);
    let batches: Vec<_> = (0..WINDOW_MAX).map(|_| driver.give(deadline)).collect();
    driver.send();
    driver.broken(error(Reason::Disconnected));
    let driving = runtime.spawn("driver", driver.run());
    driving.await.unwrap();
    let late = runtime.now().saturating_since(deadline);
    assert!(late < Duration::from_secs(1), "{late:?}");
    for batch in batches {
        let failure = batch.await.unwrap_err();
        assert_eq!(failure.outcome(), Outcome::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn each_batch_is_given_up_at_its_own_deadline_while_no_stream_can_be_opened() {
    let mut driver = driver();
    let runtime = driver.caller.runtime.clone();
    let deadlines: Vec<_> = (1..=9).map(|seconds| driver.in_time(seconds)).collect();
    let mut batches = Vec::new();
    for deadline in deadlines {
        batches.push((deadline, driver.give(deadline)));
    }
    let patient = driver.in_time(60);
    let last = driver.give(patient);
    let driving = runtime.spawn("driver", driver.run());
    for (deadline, batch) in batches {
        batch.await.unwrap_err();
        let late = runtime.now().saturating_since(deadline);
        assert!(late < Duration::from_millis(100), "{late:?}");
    }
    last.await.unwrap_err();
    driving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_ran_out_of_time_before_it_was_sent_was_not_applied() {
    let mut driver = driver();
    let runtime = driver.caller.runtime.clone();
    let (soon, later) = (driver.in_time(1), driver.in_time(5));
    let (first, second) = (driver.give(soon), driver.give(later));
    // Somebody was overloaded.
    driver.resume_at = driver.in_time(3);
    let driving = runtime.spawn("driver", driver.run());
    let failure = first.await.unwrap_err();
    assert!(runtime.now() < soon + Duration::from_secs(1));
    assert_eq!(failure.reason(), Some(Reason::Deadline));
    assert_eq!(failure.outcome(), Outcome::NotApplied);
    // Whether the network carried it is not known.
    let failure = second.await.unwrap_err();
    assert_eq!(failure.outcome(), Outcome::Unknown);
    driving.await.unwrap();
    assert!(runtime.now() < later + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_runs_out_of_time_before_it_is_sent_again_has_the_outcome_of_its_tries() {
    for (reason, blamed, cut_off) in [
        (Reason::Starting, Outcome::NotApplied, Outcome::Unknown),
        (Reason::Disconnected, Outcome::Unknown, Outcome::Unknown),
    ] {
        let mut driver = driver();
        let deadline = driver.in_time(1);
        let batches = [driver.give(deadline), driver.give(deadline)];
        driver.send();
        driver.broken(error(reason));
        driver.caller.runtime.sleep(Duration::from_secs(2)).await;
        driver.expire();
        assert!(!driver.has_waiting());
        let failures = batches.map(|batch| batch.now_or_never().unwrap().unwrap_err());
        for (failure, outcome) in failures.iter().zip([blamed, cut_off]) {
            assert_eq!(failure.reason(), Some(Reason::Deadline), "{reason:?}");
            assert_eq!(failure.outcome(), outcome, "{reason:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_again_only_with_time_for_an_answer() {
    let driver = driver();
    let deadline = driver.in_time(1);
    let resumes = |delay| {
        let spread = Duration::ZERO;
        driver.resumes(Step::Retry(Pause::AtLeast { delay, spread }), deadline)
    };
    let last = Duration::from_secs(1) - TRY_MIN;
    assert!(resumes(last).is_some());
    assert!(resumes(last + Duration::from_millis(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_given_up_keeps_its_place_on_the_stream() {
    let mut driver = driver();
    let (soon, later) = (driver.in_time(0), driver.in_time(60));
    let (first, second) = (driver.give(soon), driver.give(later));
    driver.send();
    driver.expire();
    let failure = first.now_or_never().unwrap().unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Deadline));
    assert_eq!(failure.outcome(), Outcome::Unknown);
    driver.answered(answer(7));
    driver.answered(answer(8));
    let response = second.now_or_never().unwrap().unwrap();
    assert_eq!(response.results[0].count, 8);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_blamed_in_the_place_of_what_was_given_up() {
    let mut driver = driver();
    let (soon, later) = (driver.in_time(0), driver.in_time(60));
    let first = driver.give(soon);
    let _second = driver.give(later);
    driver.send();
    driver.expire();
    first.now_or_never().unwrap().unwrap_err();
    let _third = driver.give(later);
    driver.broken(error(Reason::BadTerm));
    // The second was cut off, the third was never sent.
    let outcomes: Vec<_> = driver
        .queue
        .iter()
        .map(|job| job.attempts.conclude(error(Reason::Starting)).outcome())
        .collect();
    let expected = [Some(Outcome::Unknown), Some(Outcome::NotApplied)];
    assert_eq!(outcomes, expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_was_answered_is_carried_by_the_next_read() {
    let mut driver = driver();
    let deadline = driver.in_time(60);
    let batch = driver.give(deadline);
    driver.send();
    let position = v1::Position {
        shard_id: 2,
        incarnation: 1,
        index: 9,
    };
    let token = Some(v1::SessionToken {
        positions: vec![position],
    });
    driver.answered(v1::RecordBatchResponse {
        token: token.clone(),
        ..answer(7)
    });
    batch.now_or_never().unwrap().unwrap();
    assert_eq!(driver.caller.session.token(), token);
}
