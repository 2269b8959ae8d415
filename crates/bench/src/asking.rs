//! How a server is asked for a while, and what came of it.
//!
//! What always holds: a fifth of a measurement is run before it, uncounted; one without a single answer is an error, so that nothing
//! looks fast because it failed.

use std::time::Duration;

use workload::{Latencies, Measured, Plan, Popularity, Prefixes};

use crate::figures::float;
use crate::ours::Way;

/// One part in so many of a measurement is run before it, uncounted.
const WARM_UP_PARTS: u32 = 5;

/// How a server is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) connections: u16,
    pub(crate) k: u32,
    pub(crate) way: Way,
    pub(crate) plan: Plan,
}

impl Asking {
    /// For ten completions of prefixes as typed, one call each to the coordinator, after a warm-up.
    pub(crate) fn over(connections: u16, time: Duration) -> Self {
        Self {
            connections,
            k: 10,
            way: Way::Routed,
            plan: Plan {
                seed: 1,
                record_percent: 0,
                batch: 1,
                questions: 1,
                popularity: Popularity::Skewed,
                prefixes: Prefixes::Typed,
                warm_up: time / WARM_UP_PARTS,
                time,
            },
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) reads: Latencies,
    pub(crate) records: Latencies,
    /// Requests without an answer.
    pub(crate) errors: u64,
    /// Processor time of the server for a request that was answered, in microseconds.
    pub(crate) cpu_us: f64,
}

impl Answers {
    /// Of a server that used so much processor time, warm-up included.
    ///
    /// # Errors
    /// When nothing was answered.
    pub(crate) fn of(
        measured: &Measured,
        cpu: Duration,
        time: Duration,
    ) -> Result<Self, anyhow::Error> {
        let answers = measured.answers();
        anyhow::ensure!(
            answers > 0,
            "no request was answered: {:?}",
            measured.errors()
        );
        Ok(Self {
            reads: measured.reads(time),
            records: measured.records(time),
            errors: measured.errors().values().sum(),
            cpu_us: cpu_per_request(cpu, time, answers),
        })
    }
}

/// The processor time of a request. The warm-up used some too; it ran at the same rate.
fn cpu_per_request(cpu: Duration, time: Duration, requests: u64) -> f64 {
    let whole = time + time / WARM_UP_PARTS;
    let counted = cpu.as_secs_f64() * time.as_secs_f64() / whole.as_secs_f64().max(f64::EPSILON);
    counted * 1e6 / float(requests.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_takes_its_share_of_the_processor() {
        let second = Duration::from_secs(1);
        let asking = Asking::over(16, second);
        assert_eq!(asking.plan.warm_up, Duration::from_millis(200));
        let cpu = cpu_per_request(Duration::from_millis(1_200), second, 1_000);
        assert!((cpu - 1_000.0).abs() < 1e-6, "{cpu}");
    }

    #[test]
    fn a_measurement_without_answers_is_an_error() {
        let second = Duration::from_secs(1);
        let nothing = Measured::new().unwrap();
        assert!(Answers::of(&nothing, second, second).is_err());
    }
}
