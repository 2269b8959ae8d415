//! Streams Records at a cluster from several lanes and keeps the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api::v1;
use client::{Client, ClientOptions};
use parking_lot::Mutex;
use runtime::{Instant, Runtime, Task};

use crate::history::{History, Outcome};

/// How long one Record may be retried before it is left open. Longer than any recovery of a run takes.
const RECORD_DEADLINE: Duration = Duration::from_secs(90);

/// Retries are bounded by the deadline, not by their number.
const RETRIES: u32 = 10_000;

/// A client whose writes are retried through a recovery.
///
/// # Errors
/// When an address is not one.
pub fn patient_client(runtime: &Runtime, coordinators: &[String]) -> anyhow::Result<Client> {
    let options = ClientOptions {
        endpoints: coordinators.to_vec(),
        deadline: RECORD_DEADLINE,
        retries: RETRIES,
        ..ClientOptions::default()
    };
    Ok(Client::connect(runtime.clone(), options)?)
}

/// Records of a run at most, however long its faults take.
const RECORDS_MAX: usize = 2_000_000;

/// Lanes that are sending.
#[derive(Debug)]
pub struct Workload {
    history: Arc<Mutex<History>>,
    settled: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    lanes: Vec<Task<()>>,
    runtime: Runtime,
    begun: Instant,
}

impl Workload {
    /// Starts `lanes` lanes that share the queries: each takes the next one when its Record is settled. After the last one they
    /// begin again, until [`Workload::finish`], so that no fault meets an idle cluster. Half of the Records add 1, the
    /// others a little more, so that a lost one and a doubled one cannot cancel out.
    #[must_use]
    pub fn start(runtime: &Runtime, client: &Client, queries: Vec<String>, lanes: usize) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let settled = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicUsize::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let queries = Arc::new(queries);
        let begun = runtime.now();
        let lanes = (0..lanes)
            .map(|_| {
                let (history, settled) = (Arc::clone(&history), Arc::clone(&settled));
                let (next, queries) = (Arc::clone(&next), Arc::clone(&queries));
                let enough = Arc::clone(&enough);
                let client = client.clone();
                let clock = runtime.clone();
                runtime.spawn("chaos lane", async move {
                    let now_us = || micros(clock.now().saturating_since(begun));
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let is_over = index >= queries.len() && enough.load(Ordering::Relaxed);
                        if is_over || index >= RECORDS_MAX {
                            break;
                        }
                        let Some(term) = queries.get(index % queries.len()) else {
                            break;
                        };
                        record(&client, &history, term, increment(index), &now_us).await;
                        settled.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self {
            history,
            settled,
            enough,
            lanes,
            runtime: runtime.clone(),
            begun,
        }
    }

    /// The time now by the clock of the history.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        micros(self.runtime.now().saturating_since(self.begun))
    }

    /// How many Records have ended.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.settled.load(Ordering::Relaxed)
    }

    /// Lets every query be sent at least once, waits for the lanes and returns the history.
    ///
    /// # Errors
    /// When a lane panicked.
    pub async fn finish(self) -> anyhow::Result<History> {
        self.enough.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await?;
        }
        let history = self.history.lock().clone();
        Ok(history)
    }
}

fn increment(index: usize) -> u64 {
    if index.is_multiple_of(2) {
        1
    } else {
        2 + (index % 97) as u64
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn record(
    client: &Client,
    history: &Mutex<History>,
    term: &str,
    add: u64,
    now_us: &(dyn Fn() -> u64 + Sync),
) {
    let operation = history.lock().begin(term.to_owned(), add, now_us());
    let request = v1::RecordRequest {
        term: term.to_owned(),
        count: add,
        ..v1::RecordRequest::default()
    };
    let outcome = match client.record(request).await {
        Ok(response) => Outcome::Acknowledged {
            count: response.count,
            repeated: response.repeated,
        },
        Err(error) => match error.outcome() {
            api::Outcome::NotApplied => Outcome::Refused,
            api::Outcome::Unknown => Outcome::Open,
        },
    };
    history.lock().end(operation, outcome, now_us());
}
