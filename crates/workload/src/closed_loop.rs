//! The closed loop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use runtime::{Instant, Runtime};

use crate::choice::first_bytes;
use crate::{Choice, Measured};

/// Whoever answers one request at a time. An error is a short reason, such as `OVERLOADED`; reasons are counted.
pub trait Target: Send + 'static {
    /// Asks for the completions of each of the prefixes at once, and waits for all of them.
    fn read(&mut self, prefixes: &[&str]) -> impl Future<Output = Result<(), String>> + Send;
    /// Counts each of the terms once in one request, and waits until that is acknowledged.
    fn record(&mut self, terms: &[&str]) -> impl Future<Output = Result<(), String>> + Send;
    /// How long the last refusal asked to wait before the next request, if it did.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
    /// Waits after a request that got no answer, for this reason, before the next is sent; it is part of no request's time. By default
    /// nothing is waited for.
    fn back_off(&mut self, _reason: &str) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where the choices begin; the same seed sends the same requests.
    pub seed: u64,
    /// How many of a hundred requests record.
    pub record_percent: u64,
    /// Terms in a request that records; at least 1.
    pub batch: u16,
    /// Prefixes that are asked for at once; at least 1.
    pub questions: u16,
    /// Which terms are chosen how often.
    pub popularity: Popularity,
    /// What of them completions are asked for.
    pub prefixes: Prefixes,
    /// How long to run before anything counts.
    pub warm_up: Duration,
    /// How long to measure.
    pub time: Duration,
}

/// Which terms are chosen how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Popularity {
    /// As searches are: the one in place r about 1/r as often as the first.
    #[default]
    Skewed,
    /// Each as often as any other.
    Uniform,
}

/// What completions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefixes {
    /// What has been typed of a term at some keystroke.
    #[default]
    Typed,
    /// Its first bytes, as far as they end between characters.
    Bytes(u8),
}

/// Sends to so many targets at once, each with one request in flight, and waits for the end. Targets are made where they are used
/// ([`Runtime::spawn_apart`]), so that a connection that belongs to one is served by the thread that waits for its answers; connecting
/// is part of the warm-up.
///
/// # Errors
/// When a target cannot be made, or a task fails.
pub async fn run<T, F, Fut>(
    runtime: &Runtime,
    targets: u16,
    make: F,
    terms: &Arc<Vec<String>>,
    plan: Plan,
) -> Result<Measured, anyhow::Error>
where
    T: Target,
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T, anyhow::Error>> + Send,
{
    let start = runtime.now() + plan.warm_up;
    let end = start + plan.time;
    let workers = (0..u64::from(targets)).map(|number| {
        let (runtime, make, terms) = (runtime.clone(), make.clone(), Arc::clone(terms));
        let world = runtime.clone();
        let work = async move {
            let worker = Worker {
                target: make().await?,
                runtime,
                terms,
                // Far apart, so that no two workers walk the same choices.
                choice: Choice::new(plan.seed.wrapping_add(number << 32)),
                plan,
            };
            worker.run(start, end).await
        };
        world.spawn_apart("load worker", work)
    });
    let mut total = Measured::new()?;
    for measured in join_all(workers.collect::<Vec<_>>()).await {
        total.add(&measured??)?;
    }
    Ok(total)
}

impl Popularity {
    fn term<'a>(self, choice: &mut Choice, terms: &'a [String]) -> &'a str {
        match self {
            Self::Skewed => choice.term(terms),
            Self::Uniform => choice.uniform(terms),
        }
    }
}

impl Plan {
    fn prefix<'a>(&self, choice: &mut Choice, terms: &'a [String]) -> &'a str {
        let term = self.popularity.term(choice, terms);
        match self.prefixes {
            Prefixes::Typed => choice.typed(term),
            Prefixes::Bytes(bytes) => first_bytes(term, bytes.into()),
        }
    }
}

struct Worker<T> {
    runtime: Runtime,
    target: T,
    terms: Arc<Vec<String>>,
    choice: Choice,
    plan: Plan,
}

impl<T: Target> Worker<T> {
    /// Sends until `end`, and until one request counts; what began before `start` does not. A server that takes longer than the time
    /// there was is measured by that one request.
    async fn run(mut self, start: Instant, end: Instant) -> Result<Measured, anyhow::Error> {
        let mut measured = Measured::new()?;
        loop {
            let begun = self.runtime.now();
            if begun >= end && !measured.is_empty() {
                return Ok(measured);
            }
            let is_record = self.choice.below(100) < self.plan.record_percent;
            let result = if is_record {
                let terms: Vec<&str> = (0..self.plan.batch.max(1))
                    .map(|_| self.plan.popularity.term(&mut self.choice, &self.terms))
                    .collect();
                self.target.record(&terms).await
            } else {
                let prefixes: Vec<&str> = (0..self.plan.questions.max(1))
                    .map(|_| self.plan.prefix(&mut self.choice, &self.terms))
                    .collect();
                self.target.read(&prefixes).await
            };
            let time = self.runtime.now().saturating_since(begun);
            match result {
                Ok(()) if begun < start => {}
                Ok(()) if is_record => measured.record(time, u64::from(self.plan.batch)),
                Ok(()) => measured.read(time),
                Err(reason) => {
                    if begun >= start {
                        measured.error(&reason, time)?;
                    }
                    self.target.back_off(&reason).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads alone, for a fifth of a second.
    fn reads() -> Plan {
        Plan {
            seed: 1,
            record_percent: 0,
            batch: 1,
            questions: 1,
            popularity: Popularity::Skewed,
            prefixes: Prefixes::Typed,
            warm_up: Duration::from_millis(100),
            time: Duration::from_millis(200),
        }
    }

    struct Slow(Runtime, u64);

    impl Target for Slow {
        async fn read(&mut self, _prefixes: &[&str]) -> Result<(), String> {
            self.0.sleep(Duration::from_millis(10)).await;
            self.1 += 1;
            if self.1.is_multiple_of(2) {
                return Err("EVEN".to_owned());
            }
            Ok(())
        }

        async fn record(&mut self, terms: &[&str]) -> Result<(), String> {
            assert_eq!(terms.len(), 3);
            self.0.sleep(Duration::from_millis(20)).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_begins_after_the_warm_up_counts() {
        let runtime = Runtime::real();
        let terms = Arc::new(vec!["a".to_owned()]);
        let mut plan = Plan {
            batch: 3,
            ..reads()
        };
        let world = runtime.clone();
        let make = move || std::future::ready(Ok(Slow(world.clone(), 0)));
        let measured = run(&runtime, 2, make.clone(), &terms, plan).await.unwrap();
        assert_eq!(measured.answers() + measured.errors()["EVEN"], 40);
        assert_eq!(measured.errors()["EVEN"], 20);
        let failures = measured.failures("EVEN", plan.time);
        assert_eq!(failures.requests, 20);
        assert!((10_000..11_500).contains(&failures.p50_us), "{failures:?}");
        assert_eq!(measured.failures("ODD", plan.time).requests, 0);
        let reads = measured.reads(plan.time);
        assert_eq!(reads.requests_per_second, 100);
        assert!((10_000..11_500).contains(&reads.p50_us), "{reads:?}");

        plan.record_percent = 100;
        let measured = run(&runtime, 2, make, &terms, plan).await.unwrap();
        assert_eq!((measured.answers(), measured.terms()), (20, 60));
    }

    struct Full(Runtime);

    impl Target for Full {
        async fn read(&mut self, _prefixes: &[&str]) -> Result<(), String> {
            self.0.sleep(Duration::from_millis(10)).await;
            Err("OVERLOADED".to_owned())
        }

        async fn record(&mut self, _terms: &[&str]) -> Result<(), String> {
            Ok(())
        }

        async fn back_off(&mut self, reason: &str) {
            assert_eq!(reason, "OVERLOADED");
            self.0.sleep(Duration::from_millis(30)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_after_a_refusal_is_part_of_no_request() {
        let runtime = Runtime::real();
        let terms = Arc::new(vec!["a".to_owned()]);
        let plan = reads();
        let world = runtime.clone();
        let make = move || std::future::ready(Ok(Full(world.clone())));
        let measured = run(&runtime, 2, make, &terms, plan).await.unwrap();
        // Begun at 120, 160, 200, 240 and 280 ms.
        assert_eq!(measured.errors()["OVERLOADED"], 10);
        let refused = measured.failures("OVERLOADED", plan.time);
        assert!((10_000..11_500).contains(&refused.max_us), "{refused:?}");
    }
}
